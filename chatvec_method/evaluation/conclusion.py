"""The sentence at the end: which ratio does, or that none does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chatvec_method.evaluation.scores import Score

LANGUAGE = 0.95
"""The share of answers in the target language that the language must stay above."""
WANTED = ("follows", "refuses")


def smallest_ratio(by_ratio: Mapping[float, Sequence[Score]], language: str) -> float | None:
    """Return the smallest ratio at which a merge does as well as at its best, None without one.

    That is where `follows` and `refuses` lie within the interval of their best ratio, while more
    than 95 % of the answers are in the language.

    Args:
        by_ratio: The scores of a recipe's ratios, those that are the same in all layers.
        language: Of the suite.
    """
    table = {
        ratio: {each.axis: each for each in scores if each.language == language}
        for ratio, scores in by_ratio.items()
    }
    least = {}
    for axis in WANTED:
        best = max((row[axis] for row in table.values() if axis in row), key=_value, default=None)
        if best is None or best.interval is None or best.value == 0:
            return None
        least[axis] = best.interval[0]
    for ratio, row in sorted(table.items()):
        told = row.get("language")  # where no answer has letters, there is no share of them
        if (
            told is not None
            and told.value > LANGUAGE
            and all(row[axis].value >= least[axis] for axis in WANTED)
        ):
            return ratio
    return None


def conclusion(by_ratio: Mapping[float, Sequence[Score]], language: str) -> str | None:
    """Return what a sweep says in one sentence; None where it has not asked for it.

    Args:
        by_ratio: The scores of a recipe's ratios, those that are the same in all layers.
        language: Of the suite.
    """
    asked = {each.axis for scores in by_ratio.values() for each in scores}
    if len(by_ratio) < 2 or not {*WANTED, "language"} <= asked:
        return None
    ratio = smallest_ratio(by_ratio, language)
    for axis in WANTED:
        if not any(each.value for s in by_ratio.values() for each in s if each.axis == axis):
            return f"{language}: at no ratio is there an answer that {axis}."
    if ratio is None:
        return (
            f"{language}: at no ratio do follows and refuses both lie within the interval of their "
            f"best while more than {LANGUAGE:.0%} of the answers are in the language: a schedule "
            "per layer is worth trying (`--schedule`)."
        )
    return (
        f"{language}: {ratio:g} is the smallest ratio at which follows and refuses lie within the "
        f"interval of their best while more than {LANGUAGE:.0%} of the answers are in the language."
    )


def _value(score: Score) -> float:
    return score.value
