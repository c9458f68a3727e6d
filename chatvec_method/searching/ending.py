"""When a trial ends early: when others do the same prompts better, beyond what chance can make.

optuna's pruning is for one objective. Here, after a part of the searching half, a trial is held
against those that have all of it, on the very same prompts. It ends if one of them is better in
some objective and worse in none, and both with certainty: in no objective does the paired interval
of 95 % reach below 0, and in one at least it begins above it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from chatvec_method.searching.objectives import ByFigure, Sought, difference


def better_beyond_doubt(
    sought: Sought, marks: ByFigure, asked: Collection[str], others: Iterable[tuple[int, ByFigure]]
) -> int | None:
    """Return the number of a trial that is better for certain; None if there is none.

    Args:
        sought: The objectives.
        marks: Of the trial, as far as it went.
        asked: The prompts that it was asked.
        others: The numbers and marks of trials that have gone further; only their answers to the
            same prompts count.
    """
    values = _raised(sought, marks)
    for number, whole in others:
        same = on_some(whole, asked)
        theirs = _raised(sought, same)
        no_worse = all(their >= own for their, own in zip(theirs, values, strict=True))
        if no_worse and _for_certain(sought, same, marks):
            return number
    return None


def on_some(marks: ByFigure, prompts: Collection[str]) -> ByFigure:
    """Return of a trial's marks those of some prompts."""
    return {
        name: {each: mark for each, mark in of_figure.items() if each in prompts}
        for name, of_figure in marks.items()
    }


def _raised(sought: Sought, marks: ByFigure) -> list[float]:
    """Return the objectives' values, those to be lowered with the other sign."""
    values = zip(sought.objectives, sought.values(marks), strict=True)
    return [each.sign * value for each, value in values]


def _for_certain(sought: Sought, better: ByFigure, worse: ByFigure) -> bool:
    lowest = []
    for each in sought.objectives:
        _, (low, high) = difference(each.measure, better, worse)
        lowest.append(low if each.maximise else -high)
    return min(lowest) >= 0 and max(lowest) > 0
