"""A recipe with other ratios: what changes in it, and its text only when somebody asks for it.

Whoever tries one ratio after the other needs what mergekit understands of each, in milliseconds;
the text, with all comments kept, takes longer and is read by people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import yaml
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from pydantic import ValidationError

from chatvec_method.errors import ChatVecError
from chatvec_method.recipe.edits import Edit, changed, edited
from chatvec_method.recipe.file import KeyPath, Recipe, parse_recipe
from chatvec_method.recipe.one_ratio import WITH_RATIO, all_parameters


@dataclass(frozen=True)
class Reworded:
    """A recipe, and changes to it."""

    before: Recipe
    edits: tuple[Edit, ...] = ()

    @cached_property
    def raw(self) -> dict[str, Any]:
        """All that the YAML says after the changes."""
        raw: dict[str, Any] = reduce(changed, self.edits, self.before.raw)
        return raw

    @cached_property
    def config(self) -> MergeConfiguration:
        """What mergekit takes of it.

        Raises:
            ChatVecError: That is no recipe any more.
        """
        try:
            return MergeConfiguration.model_validate(self.raw)
        except (ValidationError, RuntimeError):
            return self.recipe.config  # which says in words of people what is wrong

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe with its text, in which comments stay where it can be changed piece by piece.

        Raises:
            ChatVecError: As `config`.
        """
        if not self.edits:
            return self.before
        try:
            text = edited(self.before.text, self.edits)
        except ChatVecError:  # aliases, and what else has to be written anew
            text = yaml.safe_dump(self.raw, sort_keys=False, allow_unicode=True)
        return parse_recipe(text, self.before.name)


def chat_parameters(raw: Mapping[str, Any]) -> Iterator[tuple[str, KeyPath, Mapping[str, Any]]]:
    """Yield the name of each chat model and vector, and path and content of its `parameters:`."""
    for path, entry in _entries(raw):
        parameters = entry.get("parameters") or {}
        if parameters.get("role") in WITH_RATIO:
            name = str(ModelReference.model_validate(entry["model"]))
            yield name, (*path, "parameters"), parameters


def ratio_edits(raw: Mapping[str, Any], ratios: Mapping[str, Any]) -> tuple[Edit, ...]:
    """Return what gives chat models other ratios, the same in all places where they are named.

    Where all of them get one, every other `ratio:` goes, as it would count for nothing.

    Args:
        raw: What the recipe says.
        ratios: By the name that the recipe has for a chat model, what stands behind `ratio:`.
    """
    edits = []
    own = list(chat_parameters(raw))
    for name, path, parameters in own:
        if name in ratios and parameters.get("ratio") != ratios[name]:
            edits.append(Edit((*path, "ratio"), ratios[name]))
    if {name for name, _, _ in own} <= ratios.keys():
        kept = {path for _, path, _ in own}
        others = [(path, each) for path, each in all_parameters(raw, ()) if path not in kept]
        edits += [Edit((*path, "ratio"), remove=True) for path, each in others if "ratio" in each]
    return tuple(edits)


def _entries(raw: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Mapping[str, Any]]]:
    """Yield the models of a recipe wherever it lists them."""
    modules = raw.get("modules") or {}
    parts: list[tuple[KeyPath, Mapping[str, Any]]] = [((), raw)]
    parts += [(("modules", name), module) for name, module in modules.items()]
    for path, part in parts:
        for i, entry in enumerate(part.get("models") or ()):
            yield (*path, "models", i), entry
        for i, output_slice in enumerate(part.get("slices") or ()):
            for j, source in enumerate(output_slice.get("sources") or ()):
                yield (*path, "slices", i, "sources", j), source
