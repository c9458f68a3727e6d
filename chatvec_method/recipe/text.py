"""A recipe's text, and what it says as YAML: all that can be known of it without mergekit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.intake import read_bytes
from chatvec_method.recipe.yaml_text import load_yaml


def read_text(file: Path) -> str:
    """Return what a recipe's file holds.

    Raises:
        ChatVecError: The file cannot be read.
    """
    address = re.match(r"(https?):/+(.*)", str(file))
    if address:  # of which a path has lost a slash
        raise ChatVecError(
            f"{address[1]}://{address[2]} is an address, and recipes are read from files.",
            "Download it, and write the file's name.",
        )
    try:
        return read_bytes(file).decode("utf-8").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ChatVecError(
            f"the recipe {file} cannot be read ({reason}).", "Write the path of a YAML file."
        ) from error


def parse_yaml(text: str, name: str) -> dict[str, Any]:
    """Return what a recipe's text says as YAML, whatever its method; `name` is for messages.

    Raises:
        ChatVecError: It is not YAML, or its top level is not one of a recipe.
    """
    try:
        raw = load_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ChatVecError(
            f"{name} is not YAML ({line}{error.problem or error}).", "Write it as recipes/ has it."
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ChatVecError(
            f"{name} is not YAML ({first_line(error)}).",
            "Write one recipe in the file, as recipes/ has it.",
        ) from error
    if raw is None:
        raise ChatVecError(
            f"{name} is empty.",
            "If a `>` of the shell emptied it, restore it, and write `-o FILE` in place of `>`.",
        )
    if not isinstance(raw, dict):
        raise ChatVecError(
            f"{name} is not a recipe: it has no `merge_method:` and `models:` at its top level.",
            "Write it as recipes/ has it.",
        )
    return raw
