"""How well a model knows a language: its perplexity of plain text that no model has read."""

from __future__ import annotations

import math
import random
from itertools import islice
from typing import Literal

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from .batches import WIDTH
from .documents import Mix, documents
from .training import IGNORED
from .word_order import translation_of

TEXTS = 200


@torch.inference_mode()
def perplexity(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, language: Literal["A", "B"]
) -> float:
    """Return exp of the mean negative log-likelihood of a word.

    The texts are of one language throughout, and speak of nobody whom base does not know. They are
    cut where training cuts them.
    """
    mix = Mix(a=1, b=0) if language == "A" else Mix(a=0, b=1)
    source = documents(random.Random("evaluation"), mix, translation_of(model.config))
    texts = [
        " ".join([tokenizer.bos_token, *words[: WIDTH - 1]]) for words in islice(source, TEXTS)
    ]
    encoded = tokenizer(
        texts, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt"
    ).to(model.device)
    labels = encoded.input_ids.masked_fill(encoded.attention_mask == 0, IGNORED)
    return math.exp(model(input_ids=encoded.input_ids, labels=labels).loss.item())
