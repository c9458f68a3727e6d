"""A value put into a recipe's text as a block of lines of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from chatvec_method.errors import ChatVecError
from chatvec_method.recipe.edits import Edit, edited
from chatvec_method.recipe.file import KeyPath
from chatvec_method.recipe.yaml_text import load_yaml

MARK = "the-schedule-goes-here"


def with_block(text: str, path: KeyPath, lines: Sequence[str]) -> str | None:
    """Return a text with lines as a value, None if that would stand in brackets or lose a comment.

    Comments inside an old ratio are about its numbers and go with it.
    """
    head, _, tail = with_value(text, path, MARK).partition(MARK)
    replaced = text[len(head) : len(text) - len(tail)]
    before = head[head.rfind("\n") + 1 :]
    behind, newline, rest = tail.partition("\n")
    behind = behind.strip()
    if (behind and not behind.startswith("#")) or (path[-1] != "ratio" and "#" in replaced):
        return None
    if not before.strip():  # the old value was a block below its key
        block = f"\n{before}".join(lines)
        return f"{head}{block}{newline}{rest}"
    indent = " " * (len(before) - len(before.lstrip(" -")) + 2)
    block = "".join(f"\n{indent}{line}" for line in lines)
    return f"{head.rstrip()}{behind and ' ' + behind}{block}{newline}{rest}"


def with_value(text: str, path: KeyPath, value: object) -> str:
    """Return a recipe's text with a value put in one place, comments elsewhere kept."""
    try:
        return edited(text, [Edit(path, value)])
    except ChatVecError:  # a list that is not indented below its key has no place for a scalar
        return edited(text, [Edit(path, remove=True), Edit(path, value)])


def loaded_or_none(text: str) -> Any:
    """Return what a text says as YAML; None where it is not YAML."""
    try:
        return load_yaml(text)
    except yaml.YAMLError:
        return None
