"""A loaded tokenizer looked at before a text is given to it, or its tokens are written again.

A tokenizer is a small program that comes with a model: its steps can make a thousand million
characters of one, and the library that runs them counts up to the highest number of a token.
"""

from __future__ import annotations

import json
from typing import Any

from transformers import PreTrainedTokenizerBase

from chatvec_method.errors import ChatVecError

MOST_TOKENS = 1 << 24
"""The most that people use have a million."""
MOST_GROWTH = 1000
"""So many characters the steps may make of one; those that people use make one or two."""


def check_bounds(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a tokenizer makes no more of a text, and has no higher numbers, than others.

    Raises:
        ChatVecError: It does.
    """
    token, highest = max(tokenizer.get_vocab().items(), key=lambda each: each[1], default=("", 0))
    if highest >= MOST_TOKENS:
        raise _refusal(f"{token!r:.60} has the number {highest}, and {MOST_TOKENS} is the most")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    for part in ("normalizer", "decoder"):
        step = getattr(backend, part, None)
        if step is not None and _growth(json.loads(step.__getstate__())) > MOST_GROWTH:
            raise _refusal(f"its {part} makes more than {MOST_GROWTH} characters of one")


def _growth(step: Any) -> int:
    """Return how many characters a step, with those within it, makes of one at most."""
    if not isinstance(step, dict):
        return 1
    growth = max(1, len(step.get("content") or "")) if step.get("type") == "Replace" else 1
    for inner in (*(step.get("normalizers") or ()), *(step.get("decoders") or ())):
        growth *= _growth(inner)
    return growth


def _refusal(problem: str) -> ChatVecError:
    return ChatVecError(
        f"tokenizer.json: {problem}.", "Download or save the model again.", code="unsafe-file"
    )
