"""Which line of the recipe decided the ratio of which tensor.

Lists and filters are resolved by mergekit; here it is retraced what it took where.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mergekit.common import ModelReference
from mergekit.config import ParameterSetting

from chatvec_method.facts.plan import MergePlan, PlannedTensor
from chatvec_method.method.settings import ratio_cases
from chatvec_method.recipe.file import KeyPath, Recipe


@dataclass
class Line:
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
class RatioSetting:
    """A `ratio:` of the recipe."""

    path: KeyPath
    lines: list[Line]

    @property
    def plain(self) -> bool:
        """Whether it is a number or a list of numbers, without filters."""
        return len(self.lines) == 1 and self.lines[0].path == self.path

    @property
    def never_counts(self) -> bool:
        """Whether every chat model has a nearer ratio for every tensor."""
        return not any(line.decided or line.matched for line in self.lines)


def ratio_settings(recipe: Recipe, plan: MergePlan) -> list[RatioSetting]:
    """Return every `ratio:` of the recipe with the tensors that each of its lines decided."""
    paths = _paths(recipe, plan)
    settings: dict[KeyPath, RatioSetting] = {}
    for path, parameters in paths.values():
        if "ratio" in parameters:
            settings.setdefault((*path, "ratio"), _setting((*path, "ratio"), parameters["ratio"]))
    for tensor in plan.tensors:
        for chat, chain in tensor.settings.items():
            _retrace(tensor, chat, chain, paths, settings)
    return list(settings.values())


def _setting(path: KeyPath, value: ParameterSetting) -> RatioSetting:
    lines = []
    for i, (pattern, number) in enumerate(ratio_cases(value)):
        in_list = isinstance(value, list) and all(hasattr(entry, "filter") for entry in value)
        plain = not in_list and not hasattr(value, "filter")
        own_path: KeyPath = (*path, i) if in_list else path
        lines.append(Line(own_path, None if plain or pattern == "*" else pattern, number))
    return RatioSetting(path, lines)


def _retrace(
    tensor: PlannedTensor,
    chat: ModelReference,
    chain: tuple[Any, ...],
    paths: Mapping[int, tuple[KeyPath, Mapping[str, Any]]],
    settings: Mapping[KeyPath, RatioSetting],
) -> None:
    """Note which line decides for a tensor: the first that matches, in the nearest `ratio:`."""
    name = tensor.inputs[chat].name
    for parameters in chain:
        if not parameters or "ratio" not in parameters:
            continue
        setting = settings[(*paths[id(parameters)][0], "ratio")]
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
