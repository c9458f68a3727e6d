"""The recipes that come with the package: their names, and what they say of themselves.

Nothing here needs mergekit: a shell that completes a name asks for the names too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from chatvec_method.errors import ChatVecError
from chatvec_method.shipped import shipped

FOLDER = "recipes"
ENDING = ".yaml"
ADDED = ("chat", "vector")
"""The roles of what is added, with a ratio."""
LONGEST = 300
"""Characters of a cell."""


@dataclass(frozen=True)
class Entry:
    """What a recipe says of itself, in words for a table."""

    name: str
    title: str
    language: str
    base: str
    chats: tuple[str, ...]
    cp: str
    ratio: str
    """A number, several, or in words: "by part", "by layer"."""
    measured: str | None
    """What was measured on its output; None if nothing was."""


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the package, in order."""
    return sorted(file.stem for file in shipped(FOLDER).glob(f"*{ENDING}"))


def recipe_file(name: str) -> Path:
    """Return the file of a recipe that comes with the package.

    Args:
        name: As the catalogue has it, with or without `.yaml`.

    Raises:
        ChatVecError: There is none of that name.
    """
    stem = name.removesuffix(ENDING)
    if stem not in recipe_names():
        raise ChatVecError(
            f"the catalogue has no recipe {name}.",
            f"It has these: {', '.join(recipe_names())}.",
            code="no-such-recipe",
        )
    return shipped(FOLDER) / f"{stem}{ENDING}"


def catalogue() -> list[Entry]:
    """Return what the recipes that come with the package say of themselves."""
    files = [recipe_file(name) for name in recipe_names()]
    return [entry_of(f.stem, yaml.safe_load(f.read_text(encoding="utf-8"))) for f in files]


def entry_of(name: str, raw: Mapping[str, Any]) -> Entry:
    """Return what a recipe says of itself.

    Args:
        name: What the table calls it.
        raw: All that its YAML says, of whoever wrote it: what is missing or of no use is "?".
    """
    about = _mapping(raw.get("chatvec"))
    models = _models(raw)
    shared = _mapping(raw.get("parameters")).get("ratio")
    roles: dict[Any, list[str]] = {"base": [], "chat": [], "cp": []}
    ratios = []
    for model in models:
        parameters = _mapping(model.get("parameters"))
        roles.setdefault(str(parameters.get("role")), []).append(str(model.get("model", "?")))
        if parameters.get("role") in ADDED:
            ratios.append(in_words(parameters.get("ratio", shared)))
    measured = about.get("measured")
    return Entry(
        name=name,
        title=_text(about.get("title")),
        language=_text(about.get("language")),
        base=_text(", ".join(roles["base"])),
        chats=tuple(_text(name) for role in ADDED for name in roles.get(role, ())) or ("?",),
        cp=_text(", ".join(roles["cp"])),
        ratio=", ".join(ratios) or "?",
        measured=_text(measured) if isinstance(measured, str) else None,
    )


def in_words(ratio: Any) -> str:
    """Return a recipe's ratio as a table has it: a number, or that it differs by part or layer."""
    if isinstance(ratio, (int, float)) and not isinstance(ratio, bool):
        return str(float(ratio))
    if not isinstance(ratio, list) or not ratio:
        return "?"
    if not isinstance(ratio[0], dict):
        return "by layer"
    by_layer = any(isinstance(_mapping(entry).get("value"), list) for entry in ratio)
    return "by part and layer" if by_layer else "by part"


def _models(raw: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the models with their parameters, of the first slice where there are slices."""
    listed = raw.get("models")
    slices = raw.get("slices")
    if not isinstance(listed, list) and isinstance(slices, list) and slices:
        listed = _mapping(slices[0]).get("sources")
    return (
        [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    """Return what a stranger wrote as it may stand in a cell, without control characters."""
    if not isinstance(value, str) or not value:
        return "?"
    return "".join(character for character in value if character.isprintable())[:LONGEST]
