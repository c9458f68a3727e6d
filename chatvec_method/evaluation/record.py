"""The headline of an evaluation, as a recipe's `measured:` has it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from chatvec_method.errors import ChatVecError
from chatvec_method.evaluation.results import Results
from chatvec_method.evaluation.scores import Score
from chatvec_method.evaluation.sweep import Result
from chatvec_method.recipe.edits import Edit, edited
from chatvec_method.recipe.file import METADATA, Recipe

TOLD = ("follows", "knows", "recalls", "refuses", "does_not_over_refuse", "language", "ends")
SHORT = 12
"""Characters of a revision, which tell it from every other one there is."""


def recorded(recipe: Recipe, results: Results, command: str) -> str:
    """Return a recipe's text with what was measured of it, its comments kept.

    Args:
        recipe: The recipe.
        results: Of the recipe at its own ratio, or of one model, which then is its output.
        command: With which they were found out.

    Raises:
        ChatVecError: The results are not of this recipe, or its text cannot be changed.
    """
    measured = headline(_of_recipe(recipe, results), results, command)
    return edited(recipe.text, [Edit((METADATA, "measured"), measured)])


def headline(result: Result, results: Results, command: str) -> str:
    """Return what was measured, with what, when and how: one line."""
    circumstances = results.circumstances
    revisions = circumstances.revisions.get(result.point.target, {})
    parts = [
        *_scores(result),
        "models " + ", ".join(f"{name}@{each[:SHORT]}" for name, each in revisions.items()),
        ", ".join(f"{name} {each}" for name, each in circumstances.versions.items()),
        circumstances.date.partition("T")[0],
        f"`{_without_secrets(command)}`",
    ]
    if circumstances.limit is not None:
        parts.insert(0, f"a quick look at {circumstances.limit} prompts an axis")
    return re.sub(r"[|\s]+", " ", "; ".join(parts))


def _of_recipe(recipe: Recipe, results: Results) -> Result:
    """Return the result that is the recipe's."""
    own = [each for each in results if each.point.target == recipe.name and each.point.own]
    if own:
        return own[0]
    models = [each for each in results if each.point.kind != "recipe"]
    if len(models) == 1:
        return models[0]
    raise ChatVecError(
        f"what was evaluated is not {recipe.name}.",
        "Evaluate the recipe, or its output alone.",
    )


def _scores(result: Result) -> Iterator[str]:
    for language in dict.fromkeys(each.language for each in result.scores):
        told = [
            _told(each) for each in result.scores if each.language == language and _wanted(each)
        ]
        if told:
            yield (f"{language}: " if language else "") + ", ".join(told)


def _wanted(score: Score) -> bool:
    return score.part_of is None and (score.language is None or score.axis in (*TOLD, "reads"))


def _told(score: Score) -> str:
    share = score.unit == "share"
    factor, digits, unit = (100, 0, " %") if share else (1, 2, "")
    text = f"{score.axis.replace('_', ' ')} {factor * score.value:.{digits}f}{unit}"
    if score.interval is None:
        return text
    low, high = (f"{factor * end:.{digits}f}" for end in score.interval)
    return f"{text} ({low}–{high} of {score.prompts})"


def _without_secrets(command: str) -> str:
    """Return a command without what stands before the @ of an address."""
    return re.sub(r"//[^/@\s]+@", "//", command)
