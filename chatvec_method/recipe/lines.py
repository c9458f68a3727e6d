"""In which line of a recipe something stands."""

from __future__ import annotations

from functools import lru_cache

import yaml

from chatvec_method.recipe.file import KeyPath, place_of


def line_of(text: str, place: str) -> int | None:
    """Return the line, from 1 on, of a place such as `models[1].parameters.ratio`, or of a model.

    Of a place that the recipe does not have yet, that is where the nearest part around it stands;
    None where that is the recipe as a whole.
    """
    lines = _lines(text)
    while place:
        if place in lines:
            return lines[place]
        place = place[: max(place.rfind("."), place.rfind("["), 0)]
    return None


@lru_cache(maxsize=4)
def _lines(text: str) -> dict[str, int]:
    """Return the line of every place, read once for all findings; {} of what is no YAML."""
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError:
        return {}
    lines: dict[str, int] = {}
    if root is not None:
        _collect(root, (), lines, set())
    return lines


def _collect(node: yaml.Node, path: KeyPath, lines: dict[str, int], seen: set[int]) -> None:
    """Note the line of everything, of what an alias repeats once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, key.value)
            lines.setdefault(place_of(here), key.start_mark.line + 1)
            if key.value == "model" and isinstance(value, yaml.ScalarNode):
                lines.setdefault(value.value, key.start_mark.line + 1)
            _collect(value, here, lines, seen)
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            lines.setdefault(place_of((*path, i)), value.start_mark.line + 1)
            _collect(value, (*path, i), lines, seen)
