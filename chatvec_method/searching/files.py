"""What a search leaves in its folder: recipes, a table, and pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import optuna

from chatvec_method.errors import ChatVecError
from chatvec_method.intake import read_json
from chatvec_method.searching.objectives import interval_of
from chatvec_method.searching.outcome import Candidate, Outcome
from chatvec_method.searching.recipes import with_figures, write_files
from chatvec_method.searching.search import Search

RESULTS, SUGGESTED = "results.json", "suggested.yaml"
OURS = re.compile(r"pareto-\d+\.yaml|suggested\.yaml|(front|schedules|importance)[\w-]*\.png")
"""The names of all files that a search writes besides."""
NO_MATPLOTLIB = "no-matplotlib"


def recipe_names(outcome: Outcome) -> dict[int, str]:
    """Return by trial what the recipes of the Pareto set are called, in its order."""
    return {each.tried.number: f"pareto-{i}.yaml" for i, each in enumerate(outcome.front, 1)}


def write_outcome(
    folder: Path, prepared: Search, outcome: Outcome, study: optuna.Study
) -> str | None:
    """Write what was found into a folder.

    Args:
        folder: Which is made if it is missing.
        prepared: The search.
        outcome: What was found.
        study: optuna's, for the importance of the numbers.

    Returns:
        Why there are no pictures; None if there are.

    Raises:
        ChatVecError: The folder cannot be written to.
    """
    files: dict[str, str | bytes] = dict(_recipes(outcome))
    why = None
    try:
        from chatvec_method.searching.pictures import search_pictures

        files |= search_pictures(outcome, prepared, study)
    except ChatVecError as error:
        if error.code != NO_MATPLOTLIB:
            raise
        why = str(error)
    data = {**outcome.as_data(), "files": sorted(files)}
    for each in data["pareto"]:
        each["file"] = recipe_names(outcome)[each["trial"]]
    files[RESULTS] = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    write_files(folder, files, _before(folder))
    return why


def _recipes(outcome: Outcome) -> Iterator[tuple[str, str]]:
    names = recipe_names(outcome)
    for each in outcome.front:
        text = with_figures(each.recipe, headline(outcome, each))
        yield names[each.tried.number], text
        if each is outcome.suggested:
            yield SUGGESTED, text


def headline(outcome: Outcome, candidate: Candidate) -> str:
    """Return what was measured of a recipe, and how, in one line."""
    told = []
    for each in outcome.sought.objectives:
        low, high = interval_of(each.measure, candidate.report)
        told.append(
            f"{each.name} {each.measure.value(candidate.report):.3f} ({low:.3f}–{high:.3f}), "
            f"{each.measure.value(candidate.search):.3f} while searching"
        )
    parts = [
        *told,
        f"{outcome.prompts[1]} prompts that had no part in the search, and {outcome.prompts[0]} "
        "that had",
        f"chatvec search, {candidate.tried.label} of {len(outcome.trials)} trials in the space "
        f"{outcome.circumstances['space']}, seed {outcome.circumstances['seed']}",
        ", ".join(f"{name} {each}" for name, each in outcome.circumstances["versions"].items()),
        datetime.now(timezone.utc).date().isoformat(),
    ]
    return "; ".join(parts).replace("|", "/")


def _before(folder: Path) -> list[str]:
    """Return the names of the files that an earlier run wrote, of those that one can write.

    The folder may be from anybody, and what lies there besides is not ours to remove.
    """
    try:
        results: Mapping[str, Any] = read_json(folder / RESULTS)
        return [name for name in results["files"] if OURS.fullmatch(str(name))]
    except (OSError, ChatVecError, KeyError, TypeError):
        return []
