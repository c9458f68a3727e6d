"""Ratios that are not what they seem: lists without depth, filters that match too much or nothing.

Lists and filters are resolved by mergekit; here it is retraced which line of the recipe decided
for which tensor.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mergekit.common import ModelReference
from mergekit.config import ParameterSetting

from chatvec_method.checks.findings import Finding, advice, error, warning
from chatvec_method.facts.plan import MergePlan, PlannedTensor
from chatvec_method.facts.survey import Survey
from chatvec_method.method.refusals import ratio_cases
from chatvec_method.recipe.edits import Edit
from chatvec_method.recipe.file import KeyPath, Recipe, place_of


@dataclass
class _Line:
    """One case of a `ratio:`: a filter (or none) and its value."""

    path: KeyPath
    """Of the case in the recipe."""
    pattern: str | None
    value: Any
    matched: list[str] = field(default_factory=list)
    """The tensors whose name has the filter, of those for which the `ratio:` is asked."""
    decided: list[PlannedTensor] = field(default_factory=list)
    """Those for which this case gave the ratio."""


@dataclass
class _Setting:
    """A `ratio:` of the recipe."""

    path: KeyPath
    lines: list[_Line]

    @property
    def plain(self) -> bool:
        """Whether it is a number or a list of numbers, without filters."""
        return len(self.lines) == 1 and self.lines[0].path == self.path


def ratio_findings(survey: Survey) -> Iterator[Finding]:
    """Find ratios that mean something else than they say."""
    if survey.plan is None:
        return
    for setting in _settings(survey.recipe, survey.plan):
        yield from _never_counts(setting)
        for line in setting.lines:
            yield from _matches_nothing(setting, line)
            yield from _matches_more(line)
            yield from _list_without_depth(setting, line)
            if not _restarts(line, survey.plan):
                yield from _list_of_another_length(line, survey.plan)


def _never_counts(setting: _Setting) -> Iterator[Finding]:
    if not any(line.decided for line in setting.lines) and not any(
        line.matched for line in setting.lines
    ):
        yield warning(
            "ratio-never-counts",
            place_of(setting.path),
            "every chat model has a nearer ratio for every tensor, so this one never counts.",
            "Remove it, or remove the nearer ones.",
            (Edit(setting.path, remove=True),),
        )


def _matches_nothing(setting: _Setting, line: _Line) -> Iterator[Finding]:
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


def _matches_more(line: _Line) -> Iterator[Finding]:
    pattern = line.pattern or ""
    names = {t.inputs[chat].name for t in line.decided for chat in t.ratios}
    if not pattern[-1:].isdigit() or not any(f"{pattern}." in name for name in names):
        return
    longer = re.compile(re.escape(pattern) + r"\d+")
    more = {found[0] for name in names if (found := longer.search(name))}
    if more:
        yield warning(
            "filter-matches-more",
            place_of(line.path),
            f"the filter `{pattern}` is a plain part of a name and is also in "
            f"{_some(sorted(more, key=lambda name: (len(name), name)))}.",
            f"Write `filter: {pattern}.`",
            (Edit((*line.path, "filter"), f"{pattern}."),),
        )


def _list_without_depth(setting: _Setting, line: _Line) -> Iterator[Finding]:
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


def _list_of_another_length(line: _Line, plan: MergePlan) -> Iterator[Finding]:
    layers = {tensor.layer for tensor in line.decided if tensor.layer is not None}
    if not isinstance(line.value, list) or not layers:
        return
    count, numbers = len(layers), len(line.value)
    if count // 2 < numbers != count and numbers > 3:
        yield advice(
            "list-interpolated",
            place_of(line.path),
            f"the list has {numbers} numbers for {count} layers, so mergekit joins them by "
            "straight lines over the depth, and hardly any layer has a number of the list.",
            f"Write {count} numbers to give each layer its own.",
        )


def _restarts(line: _Line, plan: MergePlan) -> bool:
    """Whether a list runs over the depth of each slice anew."""
    several = any(len(module.slices or ()) > 1 for module in plan.config.modules.values())
    return several and "slices" not in line.path


def _settings(recipe: Recipe, plan: MergePlan) -> list[_Setting]:
    """Return every `ratio:` of the recipe with the tensors that each of its lines decided."""
    paths = _paths(recipe, plan)
    found: dict[KeyPath, _Setting] = {}
    for path, parameters in paths.values():
        if "ratio" in parameters:
            found.setdefault((*path, "ratio"), _setting((*path, "ratio"), parameters["ratio"]))
    for tensor in plan.tensors:
        for chat, chain in tensor.settings.items():
            _retrace(tensor, chat, chain, paths, found)
    return list(found.values())


def _setting(path: KeyPath, value: ParameterSetting) -> _Setting:
    lines = []
    for i, (pattern, number) in enumerate(ratio_cases(value)):
        in_list = isinstance(value, list) and all(hasattr(entry, "filter") for entry in value)
        plain = not in_list and not hasattr(value, "filter")
        own_path: KeyPath = (*path, i) if in_list else path
        lines.append(_Line(own_path, None if plain or pattern == "*" else pattern, number))
    return _Setting(path, lines)


def _retrace(
    tensor: PlannedTensor,
    chat: ModelReference,
    chain: tuple[Any, ...],
    paths: Mapping[int, tuple[KeyPath, Mapping[str, Any]]],
    found: Mapping[KeyPath, _Setting],
) -> None:
    """Note which line decides for a tensor: the first that matches, in the nearest `ratio:`."""
    name = tensor.inputs[chat].name
    for parameters in chain:
        if not parameters or "ratio" not in parameters:
            continue
        setting = found[(*paths[id(parameters)][0], "ratio")]
        matching = [line for line in setting.lines if line.pattern is None or line.pattern in name]
        for line in matching:
            line.matched.append(name)
        if matching:
            matching[0].decided.append(tensor)
            return


def _paths(recipe: Recipe, plan: MergePlan) -> dict[int, tuple[KeyPath, Mapping[str, Any]]]:
    """Return, by identity, where in the recipe each `parameters:` of mergekit's form stands."""
    paths: dict[int, tuple[KeyPath, Mapping[str, Any]]] = {}

    def note(parameters: Mapping[str, Any] | None, path: KeyPath) -> None:
        if parameters:
            paths[id(parameters)] = ((*path, "parameters"), parameters)

    note(plan.config.parameters, ())
    for name, module in plan.config.modules.items():
        above: KeyPath = ("modules", name) if recipe.config.modules else ()
        written = recipe.config.modules[name] if recipe.config.modules else recipe.config
        note(module.parameters, above)
        for i, output_slice in enumerate(module.slices):
            here = above if written.models else (*above, "slices", i)
            note(output_slice.parameters, here)
            for j, source in enumerate(output_slice.sources):
                note(source.parameters, (*here, "models" if written.models else "sources", j))
    return paths


def _as_yaml(line: _Line) -> dict[str, Any]:
    named = {"filter": line.pattern} if line.pattern else {}
    return {**named, "value": line.value}


def _some(names: list[str], most: int = 4) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def ratio_table(plan: MergePlan) -> dict[ModelReference, dict[str, dict[int | None, list[float]]]]:
    """Return, for each chat model and kind of tensor, the ratios in every layer.

    The layer None is what stands outside the layers. A list has more than one number where tensors
    of one kind in one layer differ.
    """
    table: dict[ModelReference, dict[str, dict[int | None, list[float]]]] = {}
    for tensor in plan.tensors:
        for chat, ratio in tensor.ratios.items():
            kinds = table.setdefault(chat, defaultdict(dict))
            ratios = kinds[tensor.kind].setdefault(tensor.layer, [])
            if ratio not in ratios:
                ratios.append(ratio)
    return table
