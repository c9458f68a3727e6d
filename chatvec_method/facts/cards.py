"""What a model's card says of its licence, its languages and what it was made of.

A card is free text with YAML at its top, by whoever made the model. Of that only what is used is
kept, and only where it is what it should be: words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData

from chatvec_method.errors import ChatVecError
from chatvec_method.intake import read_bytes
from chatvec_method.recipe.yaml_text import load_yaml

CARD_FILE = "README.md"
METADATA = re.compile(r"\A\s*---\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
WORDS = ("license", "license_name", "license_link", "base_model_relation", "quantized_by")
LISTS = ("license", "language", "language_bcp47", "base_model")
LONGEST, MOST = 200, 100
"""Characters of a word, and words."""


def card_in(folder: Path) -> ModelCardData:
    """Return what the card in a folder says; nothing where there is none that can be read."""
    try:
        text = read_bytes(folder / CARD_FILE).decode("utf-8-sig")
        metadata = METADATA.search(text)
        said = load_yaml(metadata[1]) if metadata else None
    except (OSError, ValueError, yaml.YAMLError, ChatVecError):
        return ModelCardData()  # nothing but our own card depends on it
    return _card(said if isinstance(said, dict) else {})


def as_used(card: ModelCardData | None) -> ModelCardData:
    """Return of the hub's account of a card what is used here."""
    return _card(vars(card) if card else {})


def _card(said: Mapping[Any, Any]) -> ModelCardData:
    kept: dict[str, Any] = {}
    for name in {*WORDS, *LISTS}:
        value = said.get(name)
        if isinstance(value, list) and name in LISTS:
            kept[name] = [each for one in value[:MOST] for each in _words(one, name)] or None
        elif value is not None:
            kept[name] = next(_words(value, name), None)
    return ModelCardData(**kept)


def _words(value: Any, name: str) -> Iterator[Any]:
    """Yield a word as it stands; of the language `no`, Norwegian, YAML makes False."""
    if value is False and name == "language":
        yield value
    elif isinstance(value, str) and (word := _on_one_line(value)):
        yield word[:LONGEST]


def _on_one_line(text: str) -> str:
    """Return a text without line ends and signs that nobody sees: recipes have it in comments."""
    return "".join(sign for sign in " ".join(text.split()) if sign.isprintable())
