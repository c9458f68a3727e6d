"""Marks as a trial keeps them: short, so that thousands of trials fit a journal.

Shares are a character a prompt; sums of log-likelihoods are two numbers. The prompts are not kept:
their order follows from the questions and the seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from chatvec_method.evaluation.by_prompt import Figure, Marks, Place
from chatvec_method.searching.objectives import ByFigure

PASSED, FAILED, ABSENT = "1", "0", "-"
DIGITS = 4
"""Behind the point, of a log-likelihood."""
WORST = 100.0
"""The loss, in nats a byte or a word, of a model that gives no number."""


def rounded(marks: ByFigure) -> dict[str, Marks]:
    """Return marks as exactly as they are kept, so that nothing depends on where they come from.

    A model that overflows reads as badly as can be.
    """
    return {
        name: {each: _rounded(*mark) for each, mark in of_figure.items()}
        for name, of_figure in marks.items()
    }


def _rounded(value: float, weight: float) -> tuple[float, float]:
    value = value if math.isfinite(value) else -WORST * weight
    return round(value, DIGITS), round(weight, DIGITS)


def packed(marks: ByFigure, figures: Sequence[Figure], places: Sequence[Place]) -> dict[str, Any]:
    """Return marks as JSON has them, by figure, in the order of the places that it is about."""
    return {figure.name: _packed(marks[figure.name], _ids(figure, places)) for figure in figures}


def unpacked(
    kept: Mapping[str, Any], figures: Sequence[Figure], places: Sequence[Place]
) -> dict[str, Marks]:
    """Return marks that were kept."""
    return {figure.name: _unpacked(kept[figure.name], _ids(figure, places)) for figure in figures}


def _ids(figure: Figure, places: Sequence[Place]) -> list[str]:
    return [place.id for place in places if place.task in figure.tasks]


def _packed(marks: Marks, ids: Sequence[str]) -> Any:
    if all(mark in ((0.0, 1.0), (1.0, 1.0)) for mark in marks.values()):
        letters = {1.0: PASSED, 0.0: FAILED}
        return "".join(letters[marks[each][0]] if each in marks else ABSENT for each in ids)
    return [list(marks[each]) if each in marks else None for each in ids]


def _unpacked(kept: Any, ids: Sequence[str]) -> Marks:
    if isinstance(kept, str):
        values = {PASSED: (1.0, 1.0), FAILED: (0.0, 1.0)}
        return {each: values[c] for each, c in zip(ids, kept, strict=True) if c != ABSENT}
    return {each: (m[0], m[1]) for each, m in zip(ids, kept, strict=True) if m is not None}
