"""The revisions of a recipe's models, written into its text: `owner/name@commit`.

A name alone means what the hub has today. With a commit behind the @, a recipe means the same next
year.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from chatvec_method.recipe.edits import Edit, edited
from chatvec_method.recipe.file import METADATA, KeyPath
from chatvec_method.recipe.yaml_text import load_yaml

MODEL_KEYS = ("model", "base_model", "source", "tokenizer_source")
"""The keys of a recipe under which the name of a model stands."""
WORDS = ("union", "base")
"""What may stand there for a tokenizer, and is no model."""
COMMIT = re.compile(r"[0-9a-f]{40}")


def pinned(text: str, commits: Mapping[str, str]) -> str:
    """Return a recipe's text with the models' commits, comments kept.

    Args:
        text: The recipe.
        commits: By a model's name as the recipe has it, without adapter, with its revision if it
            has one: `owner/name` or `owner/name@branch`.

    Raises:
        ChatVecError: The text is written in a way that cannot be changed without damage.
    """
    edits = []
    for path, written in model_names(load_yaml(text)):
        name = "+".join(_pinned(part, commits) for part in written.split("+"))
        if name != written:
            edits.append(Edit(path, name))
    return edited(text, edits)


def commits_in(raw: Mapping[str, Any]) -> dict[str, str]:
    """Return the commits that a recipe says, by the models' names without them."""
    parts = (part for _, written in model_names(raw) for part in written.split("+"))
    told = (name_and_revision(part) for part in parts)
    return {name: commit for name, commit in told if commit and COMMIT.fullmatch(commit)}


def model_names(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Yield the places of a recipe at which a model is named, and what is written there."""
    parts: Any = ()
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    for key, part in parts:
        here = (*path, key)
        if here == (METADATA,):
            continue
        if key in MODEL_KEYS and isinstance(part, str) and part not in WORDS:
            yield here, part
        else:
            yield from model_names(part, here)


def name_and_revision(part: str) -> tuple[str, str | None]:
    """Return a model's name and its revision, None without one."""
    name, _, revision = part.partition("@")
    return name, revision or None


def _pinned(part: str, commits: Mapping[str, str]) -> str:
    name, _ = name_and_revision(part)
    commit = commits.get(part)
    return f"{name}@{commit}" if commit else part
