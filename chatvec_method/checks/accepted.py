"""What a recipe says of findings in advance: `chatvec: {accept: [CODE, ...]}`, "I know"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from chatvec_method.checks.findings import Finding, Severity, warning
from chatvec_method.checks.kinds import JUDGEMENTS, NATURES
from chatvec_method.recipe.edits import Edit
from chatvec_method.recipe.file import METADATA, KeyPath, Recipe, place_of

ACCEPT = "accept"
PATH: KeyPath = (METADATA, ACCEPT)
MOST_GUESSED = 100
"""Entries that are no codes for which one is looked for that is like them."""


def accepted_codes(recipe: Recipe) -> tuple[str, ...]:
    """Return the codes that a recipe accepts, as far as there are such."""
    return tuple(code for _, code in _entries(recipe) if isinstance(code, str))


def accept_findings(recipe: Recipe) -> Iterator[Finding]:
    """Find what stands under `accept:` and is not the code of a finding that can be accepted."""
    for i, (path, code) in enumerate(_entries(recipe)):
        if code in JUDGEMENTS:
            continue
        place = place_of(path)
        removed = (Edit(path, remove=True),)
        if isinstance(code, str) and code in NATURES:
            yield warning(
                "accept-impossible",
                place,
                f"a finding `{code}` cannot be accepted: it makes the merge impossible or wrong.",
                "Remove it here, and do what the finding says.",
                removed,
            )
            continue
        like = JUDGEMENTS if i < MOST_GUESSED else ()
        near = difflib.get_close_matches(str(code).lower(), like, n=1)
        yield warning(
            "accept-unknown",
            place,
            f"there is no finding `{code}`, so this accepts nothing.",
            f"Did you mean `{near[0]}`?" if near else "Write a code as `chatvec check` prints it.",
            (Edit(path, near[0]),) if near else removed,
        )


def divided(
    findings: Iterable[Finding], recipe: Recipe
) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """Return the findings that are left, and those that the recipe accepts."""
    codes = accepted_codes(recipe)
    left: list[Finding] = []
    accepted: list[Finding] = []
    for finding in findings:
        is_accepted = finding.acceptable and finding.code in codes
        (accepted if is_accepted else left).append(finding)
    return tuple(left), tuple(accepted)


def with_way_to_accept(finding: Finding, recipe: Recipe) -> Finding:
    """Return a finding whose fix also says what to write if it is meant, where that may be."""
    if not finding.acceptable or finding.severity is Severity.ADVICE:
        return finding
    codes = dict.fromkeys((*accepted_codes(recipe), finding.code))
    accept = f"`{METADATA}: {{{ACCEPT}: [{', '.join(codes)}]}}`"
    fix = f"{finding.fix.removesuffix('.')}, or {accept} if it is meant."
    return replace(finding, fix=fix)


def _entries(recipe: Recipe) -> list[tuple[KeyPath, Any]]:
    """Return what stands under `accept:`, a list or one code, with its place."""
    value = recipe.metadata.get(ACCEPT)
    if value is None:
        return []
    if isinstance(value, list):
        return [((*PATH, i), entry) for i, entry in enumerate(value)]
    return [(PATH, value)]
