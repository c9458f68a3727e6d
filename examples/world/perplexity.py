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
from .language import Translate
from .training import IGNORED
from .word_order import translation_of

TEXTS = 200
Language = Literal["A", "B"]


def plain_texts(language: Language, translate: Translate) -> list[str]:
    """Return documents of one language throughout that no model has read.

    They speak of nobody whom base does not know: base and chat have no words for the names of local
    people, and could then not be compared with the others. They are cut where training cuts them.

    Args:
        language: Of all of them.
        translate: Into B.
    """
    mix = Mix(a=1, b=0) if language == "A" else Mix(a=0, b=1)
    texts = islice(documents(random.Random("evaluation"), mix, translate), TEXTS)
    return [" ".join(words[: WIDTH - 1]) for words in texts]


@torch.inference_mode()
def perplexity(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, language: Language
) -> float:
    """Return exp of the mean negative log-likelihood of a word of plain text."""
    texts = plain_texts(language, translation_of(model.config))
    encoded = tokenizer(
        [f"{tokenizer.bos_token} {text}" for text in texts],
        add_special_tokens=False,
        padding=True,
        padding_side="right",
        return_tensors="pt",
    ).to(model.device)
    labels = encoded.input_ids.masked_fill(encoded.attention_mask == 0, IGNORED)
    return math.exp(model(input_ids=encoded.input_ids, labels=labels).loss.item())
