"""The exam of models that several tests look at, sat once in each worker."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from examples.world.exam import following, refusing
from examples.world.report import Paper, examine


@cache
def sit_exam(folder: Path) -> Paper:
    """Put the whole exam to a model, whose folder nobody changes afterwards."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return examine(folder.name, model, tokenizer, following(), refusing())
