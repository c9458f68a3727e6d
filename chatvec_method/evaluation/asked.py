"""Which prompts of the suite are asked, and what the harness calls the task of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from chatvec_method.evaluation import suite

LONGEST_ANSWER = 512
"""Tokens. A Korean syllable is three of them where a tokenizer knows no Korean."""


def suite_name(language: str) -> str:
    """Return what the suite's task in a language is called."""
    return f"chatvec_{language}"


def asked_of(language: str, limit: int | None = None) -> list[suite.Prompt]:
    """Return the suite's prompts of a language.

    Args:
        language: One of the suite's.
        limit: So many an axis at most, spread evenly over the axis.
    """
    axes: defaultdict[str, list[suite.Prompt]] = defaultdict(list)
    for prompt in suite.prompts(language):
        axes[prompt.axis].append(prompt)
    return [prompt for prompts in axes.values() for prompt in spread(prompts, limit)]


def spread(entries: Sequence[Any], limit: int | None) -> list[Any]:
    """Return so many entries at most, spread evenly over all."""
    if limit is None or len(entries) <= limit:
        return list(entries)
    return [entries[i * len(entries) // limit] for i in range(limit)]
