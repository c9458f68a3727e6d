"""A recipe with one ratio for all of it, whatever it said before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chatvec_method.recipe.edits import Edit, edited
from chatvec_method.recipe.file import KeyPath

WITH_RATIO = ("chat", "vector")
"""The roles of what a ratio belongs to."""


def with_one_ratio(text: str, raw: dict[str, Any], ratio: float) -> str:
    """Return a recipe's text with a ratio under every chat model and vector, and nowhere else.

    What stands under a model counts before all that stands above it, in every slice and module.

    Args:
        text: The recipe's.
        raw: What its YAML says.
        ratio: For every tensor, and every chat model or vector.

    Raises:
        ChatVecError: The text cannot be changed with all comments kept.
    """
    edits = []
    for path, parameters in all_parameters(raw, ()):
        if parameters.get("role") in WITH_RATIO:
            edits.append(Edit((*path, "ratio"), ratio))
        elif "ratio" in parameters:
            edits.append(Edit((*path, "ratio"), remove=True))
    return edited(text, edits)


def all_parameters(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """Yield every `parameters:` of a recipe, with the path to it."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, part in items:
        if key == "parameters" and isinstance(part, dict):
            yield (*path, key), part
        else:
            yield from all_parameters(part, (*path, key))
