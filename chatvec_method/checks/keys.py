"""Keys that mergekit ignores: misspelled, or in the wrong place (traps 1 and 2)."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from chatvec_method.checks.findings import Finding, error, warning
from chatvec_method.method.roles import PARAMETERS
from chatvec_method.recipe.edits import Edit
from chatvec_method.recipe.file import (
    METADATA,
    KeyPath,
    Recipe,
    UnknownKey,
    place_of,
    repeated_keys,
    unknown_keys,
)

TOP_LEVEL = ("chat_template", "tokenizer", "tokenizer_source", "dtype", "out_dtype", "base_model")
ELSEWHERE = {
    "ratio": "under a chat model's `parameters:`, or in the recipe's top-level `parameters:`",
    "role": "under a model's `parameters:`",
    **dict.fromkeys(TOP_LEVEL, "at the top level of the recipe"),
}
"""Keys that mean something, and where."""
DEEPEST = len(("modules", "name", "slices", 0, "sources", 0))


def key_findings(recipe: Recipe) -> Iterator[Finding]:
    """Find the keys that mergekit drops without a word."""
    for path in repeated_keys(recipe):
        yield error(
            "repeated-key",
            place_of(path),
            f"`{path[-1]}` is written more than once here, and only the last one counts.",
            "Remove the others.",
        )
    for unknown in unknown_keys(recipe):
        yield _unknown(recipe, unknown)
    for path, level in _levels(recipe.raw, ()):
        yield from _unknown_parameters((*path, "parameters"), _mapping(level, "parameters"))
        for key in ("models", "sources"):
            yield from _misplaced_ratios((*path, key), _list(level, key))


def _unknown(recipe: Recipe, unknown: UnknownKey) -> Finding:
    key, place = unknown.path[-1], place_of(unknown.path)
    if unknown.nearest is not None:
        return error(
            "unknown-key",
            place,
            f"mergekit knows no key `{key}` here and ignores it without a word.",
            f"Write `{unknown.nearest}:`",
            _renamed(recipe, unknown.path, unknown.nearest),
        )
    near = difflib.get_close_matches(str(key).lower(), ELSEWHERE, n=1, cutoff=0.8)
    if near:
        return error(
            "misplaced-key",
            place,
            f"mergekit does not look for `{key}` here and ignores it without a word.",
            f"Write `{near[0]}:` {ELSEWHERE[near[0]]}.",
            _moved(recipe, unknown.path, near[0]),
        )
    return warning(
        "unknown-key",
        place,
        f"mergekit knows no key `{key}` here and ignores it without a word.",
        f"Remove it, or write it below the top-level key `{METADATA}:`, made for notes.",
        (Edit(unknown.path, remove=True),) if isinstance(key, str) else (),
    )


def _renamed(recipe: Recipe, path: KeyPath, name: str) -> tuple[Edit, ...]:
    """Return the edit that renames a key, unless that would make two of one name."""
    if not isinstance(path[-1], str) or name in _at(recipe, path[:-1]):
        return ()
    return (Edit(path, rename=name),)


def _moved(recipe: Recipe, path: KeyPath, name: str) -> tuple[Edit, ...]:
    """Return the edits that move a setting to where it counts, if that is plain and free."""
    above = path[:-1]
    if name in TOP_LEVEL:
        target: KeyPath = (name,)
    elif any(above == place for place, _ in _levels(recipe.raw, ())):
        target = (*above, "parameters", name)
    else:
        return ()
    if name == "role" and above[-2:-1] not in (("models",), ("sources",)):
        return ()
    # A dtype of one model alone there is none, and for all of them it means another thing.
    if name == "dtype" or name in _at(recipe, target[:-1]):
        return ()
    return (Edit(target, _at(recipe, path)), Edit(path, remove=True))


def _at(recipe: Recipe, path: KeyPath) -> Any:
    """Return what the recipe has at a path, {} where there is nothing."""
    value: Any = recipe.raw
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return {}
    return {} if value is None else value


def _levels(level: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    """Yield every place of a recipe where `parameters:` may stand."""
    yield path, level
    if len(path) >= DEEPEST:
        return
    for key in ("models", "slices", "sources"):
        for i, entry in enumerate(_list(level, key)):
            yield from _levels(entry, (*path, key, i))
    for name, module in _mapping(level, "modules").items():
        yield from _levels(module, (*path, "modules", name))


def _list(level: Any, key: str) -> list[Any]:
    value = level.get(key) if isinstance(level, dict) else None
    return value if isinstance(value, list) else []


def _mapping(level: Any, key: str) -> dict[Any, Any]:
    value = level.get(key) if isinstance(level, dict) else None
    return value if isinstance(value, dict) else {}


def _unknown_parameters(path: KeyPath, parameters: dict[Any, Any]) -> Iterator[Finding]:
    for name in parameters:
        if name in PARAMETERS:
            continue
        near = difflib.get_close_matches(str(name).lower(), PARAMETERS, n=1)
        here = (*path, name)
        if near and near[0] not in parameters:
            fix, edits = f"Write `{near[0]}:`", (Edit(here, rename=near[0]),)
        else:
            fix, edits = "Remove it.", (Edit(here, remove=True),)
        yield error(
            "unknown-parameter",
            place_of(here),
            f"chat_vector has no parameter `{name}`, only role and ratio (mergekit's own methods "
            "ignore a name that they do not know without a word).",
            fix,
            edits if isinstance(name, str) else (),
        )


def _misplaced_ratios(path: KeyPath, sources: list[Any]) -> Iterator[Finding]:
    """Ratios under base or cp, which have no vector."""
    settings = [_mapping(source, "parameters") for source in sources]
    chats = [i for i, own in enumerate(settings) if own.get("role") == "chat"]
    for i, own in enumerate(settings):
        if own.get("role") not in ("base", "cp") or "ratio" not in own:
            continue
        here = (*path, i, "parameters", "ratio")
        edits: tuple[Edit, ...] = (Edit(here, remove=True),)
        if len(chats) == 1 and "ratio" not in settings[chats[0]]:
            moved = Edit((*path, chats[0], "parameters", "ratio"), own["ratio"])
            edits = (moved, *edits)
        yield error(
            "misplaced-ratio",
            place_of(here),
            f"a ratio belongs to a chat vector, and the role here is {own['role']}.",
            "Write it under the chat model, as in `parameters: {role: chat, ratio: 1.0}`, or in "
            "the recipe's top-level `parameters:`.",
            edits,
        )
