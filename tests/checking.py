"""How tests look at `chatvec check`: its report of a recipe, and its fixes applied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import oracle
import yaml
from conftest import Recipe
from mergekit.options import MergeOptions

from chatvec_method.checks.report import Finding, Report, Severity, check
from chatvec_method.recipe.edits import Edit, edited
from chatvec_method.recipe.file import parse_recipe

ROUNDS = 10
"""So many times a recipe is mended and checked again, as `chatvec check --fix` does."""


def as_text(recipe: Recipe | str) -> str:
    """Return a recipe as YAML, its keys in the order in which they were written."""
    return recipe if isinstance(recipe, str) else yaml.safe_dump(recipe, sort_keys=False)


def checked(recipe: Recipe | str, *, deep: bool = False, **options: Any) -> Report:
    """Return what `chatvec check` finds out about a recipe; `options` are mergekit's."""
    return check(parse_recipe(as_text(recipe), "the recipe"), MergeOptions(**options), deep=deep)


def codes(report: Report, *severities: Severity) -> list[str]:
    """Return the codes of a report's findings, of all severities or of some."""
    wanted = severities or tuple(Severity)
    return [finding.code for finding in report.findings if finding.severity in wanted]


def the(code: str, report: Report) -> Finding:
    """Return the one finding with a code."""
    (finding,) = [finding for finding in report.findings if finding.code == code]
    return finding


def with_edits(recipe: Recipe | str, edits: Sequence[Edit]) -> Recipe:
    """Return a recipe with changes made to its text."""
    assert edits, "there is nothing to apply"
    changed: Recipe = yaml.safe_load(edited(as_text(recipe), edits))
    return changed


def mended(recipe: Recipe | str) -> Recipe:
    """Return a recipe with all made that check itself would change in it."""
    text = as_text(recipe)
    for _ in range(ROUNDS):
        report = checked(text)
        if not report.edits:
            break
        text = edited(text, report.edits)
    changed: Recipe = yaml.safe_load(text)
    return changed


def wrong_tensors(out: Path, recipe: Recipe) -> list[str]:
    """Return the tensors of a 16-bit output that are not, within one step, what a recipe says."""
    expected, output = oracle.expected_output(Path(), recipe), oracle.stored_tensors(out)
    return [
        name
        for name in expected.keys() | output.keys()
        if name not in expected
        or name not in output
        or expected[name].shape != output[name].shape
        or oracle.steps_off(output[name], expected[name]).max(initial=0) > 1
    ]
