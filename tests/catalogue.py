"""What a recipe of the catalogue must have: the opening comment's sections, the schema's keys."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from zoo import RECIPES

SECTIONS = ["Makes", "Models", "Needs", "Run", "Vary", "From"]


def schema() -> dict[str, Any]:
    return json.loads((RECIPES / "recipe.schema.json").read_text(encoding="utf-8"))


def opening_comment(file: Path) -> dict[str, str]:
    """The sections of the comment a recipe opens with: their label and their text."""
    sections: dict[str, str] = {}
    label = ""
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        start = re.match(rf"# ({'|'.join(SECTIONS)}):\s*(.*)", line)
        if start:
            label = start[1]
            sections[label] = start[2]
        elif line == "#":
            label = ""
        elif label:
            sections[label] += "\n" + line[1:].strip()
    return sections
