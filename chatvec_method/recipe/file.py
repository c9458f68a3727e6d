"""A recipe as a file: what it says, and what of that mergekit would ignore.

mergekit's own models drop every key they do not know. What is known is taken from those models
themselves, so a newer mergekit's keys are known too.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from mergekit.config import (
    ConditionalParameter,
    InputModelDefinition,
    InputSliceDefinition,
    MergeConfiguration,
    OutputModuleDefinition,
    OutputSliceDefinition,
)
from mergekit.tokenizer import TokenizerConfig
from mergekit.tokenizer.config import TokenEmbeddingConfig
from pydantic import BaseModel, ValidationError

from chatvec_method.errors import ChatVecError
from chatvec_method.recipe.text import parse_yaml, read_text
from chatvec_method.recipe.yaml_text import compose_yaml

METHOD = "chat_vector"
TASK_ARITHMETIC, LINEAR = SUMS = ("task_arithmetic", "linear")
"""mergekit's own methods that can be a chat vector by algebra."""
METADATA = "chatvec"
"""The top-level key of ours, for the catalogue; mergekit ignores it."""

MOST_MODELS, MOST_LAYERS = 50, 1000
"""In a recipe; and in the output, of all slices."""
MOST_TOLD = 50
"""Keys that are ignored, or there twice: who has more sees more once these are mended."""

KeyPath: TypeAlias = tuple[str | int, ...]
"""The keys and list indices that lead to a value."""


@dataclass(frozen=True, repr=False)
class Recipe:
    """A recipe, as text and as mergekit understands it."""

    name: str
    """Of the file, for messages."""
    text: str
    raw: dict[str, Any]
    """All that the YAML says."""
    config: MergeConfiguration
    """What mergekit takes of it."""

    def __repr__(self) -> str:
        return f"<Recipe {self.name}>"

    @property
    def metadata(self) -> dict[str, Any]:
        """The block for the catalogue, {} without one."""
        block = self.raw.get(METADATA)
        return block if isinstance(block, dict) else {}


@dataclass(frozen=True)
class UnknownKey:
    """A key that mergekit ignores without a word."""

    path: KeyPath
    nearest: str | None
    """The known key that it resembles."""


def read_recipe(file: Path) -> Recipe:
    """Return the recipe in a file.

    Raises:
        ChatVecError: The file cannot be read, is not YAML or not a recipe of mergekit, or its
            method is not `chat_vector`.
    """
    return parse_recipe(read_text(file), str(file))


def parse_recipe(text: str, name: str) -> Recipe:
    """Return the recipe that a text holds; `name` is for messages.

    Raises:
        ChatVecError: As `read_recipe`.
    """
    raw = parse_yaml(text, name)
    method = raw.get("merge_method")
    if method != METHOD:
        written = f"`merge_method: {method}`" if method else "no `merge_method:`"
        fix = f"Write `merge_method: {METHOD}`, or run `mergekit-yaml` for other methods."
        if method in SUMS:
            fix = (
                "Write it as the chat vector that it is, if it is one by algebra: `chatvec check` "
            )
            fix += "tells, and `chatvec check --fix` writes it."
        raise ChatVecError(
            f"{name} has {written}, and chatvec only knows the method {METHOD}.", fix
        )
    try:
        config = MergeConfiguration.model_validate(raw)
    except (ValidationError, RuntimeError) as error:
        for key in _unknown(raw, MergeConfiguration, ()):
            if key.nearest is not None:
                raise ChatVecError(
                    f"{name}: mergekit knows no key `{key.path[-1]}`.", f"Write `{key.nearest}:`"
                ) from error
        if isinstance(error, RuntimeError):
            raise ChatVecError(f"{name}: {error}.", "Write it as recipes/ has it.") from error
        raise ChatVecError(
            f"{name}: {_wrong_value(raw, error)}.", "Write it as the recipes in recipes/ do."
        ) from error
    _check_bounds(config, name)
    return Recipe(name=name, text=text, raw=raw, config=config)


def _check_bounds(config: MergeConfiguration, name: str) -> None:
    """Refuse what would keep a check busy for minutes, and that nobody means.

    Raises:
        ChatVecError: More models than anybody merges, or more layers than any model has.
    """
    models = len(config.referenced_models())
    if models > MOST_MODELS:
        raise ChatVecError(
            f"{name} names {models} models, and {MOST_MODELS} is the most.",
            "Write `models:` with base, cp and the chat models.",
        )
    parts = [config, *(config.modules or {}).values()]
    slices = [each for part in parts for each in part.slices or ()]
    layers = sum(max((_layers(source) for source in each.sources), default=0) for each in slices)
    if layers > MOST_LAYERS:
        raise ChatVecError(
            f"{name} takes {str(layers)[:40]} layers, and no model has more than {MOST_LAYERS}.",
            "Write `layer_range: [0, 32]`, with layers that the models have.",
        )


def _layers(source: InputSliceDefinition) -> int:
    first, end = source.layer_range
    return abs(int(end - first))


def _wrong_value(raw: dict[str, Any], error: ValidationError) -> str:
    """Return what is wrong with a recipe, in its own words and not those of mergekit's models."""
    first = error.errors()[0]
    value: Any = raw
    path: list[str | int] = []
    for part in first["loc"]:  # keys, and between them the names of types that were tried
        if not isinstance(value, (dict, list)):
            break
        try:
            value = value[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            continue
        path.append(part)
    place = place_of(tuple(path)) or "the top level"
    if first["type"] == "missing" and isinstance(value, dict):
        return f"{place} has no `{first['loc'][-1]}:`"
    return f"{place} is {value!r:.60}, which mergekit cannot read there"


def place_of(path: KeyPath) -> str:
    """Return a place in a recipe as people write it: `models[1].parameters.ratio`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).lstrip(".")


def repeated_keys(recipe: Recipe) -> list[KeyPath]:
    """Return the keys that a recipe has twice in one place, of which YAML keeps the last."""
    root = compose_yaml(recipe.text) or yaml.MappingNode("", [])
    paths = (path for path in _repeated(root, (), set()) if path[0] != METADATA)
    return [*islice(paths, MOST_TOLD)]


def _repeated(node: yaml.Node, path: KeyPath, seen: set[int]) -> Iterator[KeyPath]:
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        yield from ((*path, key) for key, count in keys.items() if count > 1)
        for key, value in node.value:
            yield from _repeated(value, (*path, str(key.value)), seen)
    elif isinstance(node, yaml.SequenceNode):
        for i, entry in enumerate(node.value):
            yield from _repeated(entry, (*path, i), seen)


def unknown_keys(recipe: Recipe) -> list[UnknownKey]:
    """Return the keys of a recipe that mergekit does not know, parameters apart."""
    unknown = _unknown(recipe.raw, MergeConfiguration, ())
    return [*islice((key for key in unknown if key.path != (METADATA,)), MOST_TOLD)]


def _unknown(value: Any, model: type[BaseModel], path: KeyPath) -> Iterator[UnknownKey]:
    if not isinstance(value, dict):
        return
    for key, part in value.items():
        here = (*path, key)
        if key not in model.model_fields:
            near = difflib.get_close_matches(str(key).lower(), model.model_fields, n=1, cutoff=0.7)
            yield UnknownKey(here, near[0] if near else None)
        elif key == "parameters" and isinstance(part, dict):
            for name, setting in part.items():
                yield from _unknown_in_setting(setting, (*here, name))
        else:
            yield from _unknown_below(key, part, here)


def _unknown_below(key: str, part: Any, path: KeyPath) -> Iterator[UnknownKey]:
    """Go on below a key that has a structure of its own."""
    lists: dict[str, type[BaseModel]] = {
        "models": InputModelDefinition,
        "slices": OutputSliceDefinition,
        "sources": InputSliceDefinition,
    }
    mappings: dict[str, type[BaseModel]] = {
        "modules": OutputModuleDefinition,
        "tokens": TokenEmbeddingConfig,
    }
    if key in lists and isinstance(part, list):
        for i, entry in enumerate(part):
            yield from _unknown(entry, lists[key], (*path, i))
    elif key in mappings and isinstance(part, dict):
        for name, entry in part.items():
            yield from _unknown(entry, mappings[key], (*path, name))
    elif key == "tokenizer":
        yield from _unknown(part, TokenizerConfig, path)


def _unknown_in_setting(setting: Any, path: KeyPath) -> Iterator[UnknownKey]:
    entries = enumerate(setting) if isinstance(setting, list) else [(None, setting)]
    for i, entry in entries:
        yield from _unknown(entry, ConditionalParameter, path if i is None else (*path, i))
