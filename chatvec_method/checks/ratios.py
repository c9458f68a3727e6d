"""Ratios that are not what they seem: lists without depth, filters that match too much or nothing.

Lists and filters are resolved by mergekit; here it is retraced which line of the recipe decided
for which tensor.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from chatvec_method.checks.findings import Finding, advice, error, warning
from chatvec_method.facts.plan import MergePlan
from chatvec_method.facts.ratio_lines import Line, RatioSetting, ratio_settings
from chatvec_method.facts.survey import Survey
from chatvec_method.recipe.edits import Edit
from chatvec_method.recipe.file import place_of


def ratio_findings(survey: Survey) -> Iterator[Finding]:
    """Find ratios that mean something else than they say."""
    if survey.plan is None:
        return
    for setting in ratio_settings(survey.recipe, survey.plan):
        yield from _never_counts(setting)
        for line in setting.lines:
            yield from _matches_nothing(setting, line)
            yield from _matches_more(line)
            yield from _list_without_depth(setting, line)
            if not _restarts(line, survey.plan):
                yield from _list_of_another_length(line, survey.plan)


def _never_counts(setting: RatioSetting) -> Iterator[Finding]:
    if setting.never_counts:
        yield warning(
            "ratio-never-counts",
            place_of(setting.path),
            "every chat model has a nearer ratio for every tensor, so this one never counts.",
            "Remove it, or remove the nearer ones.",
            (Edit(setting.path, remove=True),),
        )


def _matches_nothing(setting: RatioSetting, line: Line) -> Iterator[Finding]:
    place = place_of(line.path)
    if line.pattern is None or line.decided:
        return
    if not line.matched:
        if any(other.matched for other in setting.lines):
            head = "head" in line.pattern
            yield error(
                "filter-matches-nothing",
                place,
                f"the filter `{line.pattern}` is in the name of no tensor that is merged here, so "
                f"it does nothing{' (all embeddings are tied: there is no head)' if head else ''}.",
                f"Remove it{'; the embeddings have `filter: embed_tokens`' if head else ''}.",
                (Edit(line.path, remove=True),),
            )
        return
    above = setting.lines[: setting.lines.index(line)]
    hiders = [other for other in above if set(other.matched) & set(line.matched)]
    message = (
        f"the filter `{line.pattern}` never counts: every tensor that it matches is matched by "
        + " or ".join(f"`{hider.pattern or 'the line without a filter'}`" for hider in hiders)
        + " above it, and the first match decides."
    )
    if len(hiders) == 1 and set(hiders[0].matched) == set(line.matched):
        yield error(
            "filter-hidden", place, message, "Remove one of them.", (Edit(line.path, remove=True),)
        )
        return
    (*setting_path, index) = line.path
    yield error(
        "filter-hidden",
        place,
        message,
        f"Write the line for `{line.pattern}` above it.",
        (
            Edit(hiders[0].path, _as_yaml(line), insert=True),
            Edit((*setting_path, int(index) + 1), remove=True),
        ),
    )


def _matches_more(line: Line) -> Iterator[Finding]:
    pattern = line.pattern or ""
    names = {t.inputs[chat].name for t in line.decided for chat in t.ratios}
    if not pattern[-1:].isdigit() or not any(f"{pattern}." in name for name in names):
        return
    longer = re.compile(re.escape(pattern) + r"\d+")
    more = {match[0] for name in names if (match := longer.search(name))}
    if more:
        yield warning(
            "filter-matches-more",
            place_of(line.path),
            f"the filter `{pattern}` is a plain part of a name and is also in "
            f"{_some(sorted(more, key=lambda name: (len(name), name)))}.",
            f"Write `filter: {pattern}.`",
            (Edit((*line.path, "filter"), f"{pattern}."),),
        )


def _list_without_depth(setting: RatioSetting, line: Line) -> Iterator[Finding]:
    """Trap: outside the layers there is no depth, so a list gives its first number there."""
    if not isinstance(line.value, list) or len(set(map(str, line.value))) == 1:
        return
    outside = [tensor.name for tensor in line.decided if tensor.layer is None]
    if not outside:
        return
    first = line.value[0]
    cases = [
        {"filter": name.removesuffix(".weight"), "value": first} for name in dict.fromkeys(outside)
    ]
    if setting.plain:
        edits: tuple[Edit, ...] = (Edit(setting.path, [*cases, _as_yaml(line)]),)
    else:
        edits = tuple(Edit(line.path, case, insert=True) for case in reversed(cases))
    yield warning(
        "list-without-depth",
        place_of(line.path),
        f"{_some(list(dict.fromkeys(outside)))} stand outside the layers and have no depth, so the "
        f"list gives them its first number, {first}.",
        "Write a number for them above the list, as in "
        + ", ".join(f"`- {{filter: {case['filter']}, value: {first}}}`" for case in cases),
        edits,
    )


def _list_of_another_length(line: Line, plan: MergePlan) -> Iterator[Finding]:
    if not isinstance(line.value, list):
        return
    layers: dict[str, set[int]] = defaultdict(set)
    for tensor in line.decided:
        if tensor.layer is not None:
            layers[tensor.module].add(tensor.layer)
    numbers = len(line.value)
    for module, there in layers.items():
        count = len(there)
        if 1 < count != numbers and numbers > max(count // 2, 3):
            where = f" of {module}" if module != plan.module else ""
            yield advice(
                "list-interpolated",
                place_of(line.path),
                f"the list has {numbers} numbers for {count} layers{where}, so mergekit joins them "
                "by straight lines over the depth, and hardly any layer has a number of the list.",
                f"Write {count} numbers to give each layer its own."
                if not where
                else f"Write a line with a filter for {module} above it, if that is not meant.",
            )


def _restarts(line: Line, plan: MergePlan) -> bool:
    """Whether a list runs over the depth of each slice anew."""
    several = any(len(module.slices or ()) > 1 for module in plan.config.modules.values())
    return several and "slices" not in line.path


def _as_yaml(line: Line) -> dict[str, Any]:
    named = {"filter": line.pattern} if line.pattern else {}
    return {**named, "value": line.value}


def _some(names: list[str], most: int = 4) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
