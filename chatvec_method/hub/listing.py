"""Models on the hub: those that carry our tag, and those that were trained from another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from huggingface_hub import HfApi, ModelInfo

from chatvec_method.errors import ChatVecError
from chatvec_method.hub.asking import answers_as_errors
from chatvec_method.hub.named import named_text
from chatvec_method.recipe.catalogue import Entry, entry_of
from chatvec_method.recipe.text import parse_yaml

TAG = "chat-vector"
"""Which our model card puts on a merge."""
MOST = 20
PROPERTIES: Any = ["cardData", "downloads", "gated", "tags"]
CONVERSATIONAL = "conversational"
"""The hub's own tag for models with a chat template."""


@dataclass(frozen=True)
class Child:
    """A model that was fine-tuned from another, as the hub tells."""

    name: str
    licence: str
    gated: bool
    downloads: int
    conversational: bool
    """It has a chat template."""


def shared_recipes(query: str, most: int = MOST) -> list[Entry]:
    """Return the models with our tag that the hub finds, the most downloaded first.

    Each recipe is read, to tell its models and ratio; where it cannot be, these are "?".

    Raises:
        ChatVecError: The hub cannot be reached.
    """
    with answers_as_errors(f"models for {query!r}", "Write another query."):
        models = list(
            HfApi().list_models(
                filter=TAG, search=query or None, sort="downloads", limit=most, expand=PROPERTIES
            )
        )
    return [_entry(model) for model in models]


def _entry(model: ModelInfo) -> Entry:
    try:
        entry = entry_of(model.id, parse_yaml(*named_text(model.id)))
    except ChatVecError:  # somebody else's repository: it is listed with what its card tells
        entry = entry_of(model.id, {})
    if entry.language != "?":
        return entry
    languages = model.card_data.language if model.card_data else None
    listed = [languages] if isinstance(languages, str) else languages or []
    return Entry(**{**vars(entry), "language": ", ".join(map(str, listed)) or "?"})


def children_of(name: str, most: int = MOST) -> list[Child]:
    """Return the models that the hub knows as fine-tuned from one, the most downloaded first.

    Raises:
        ChatVecError: The hub cannot be reached.
    """
    with answers_as_errors(f"children of {name}", "Write another model."):
        models = HfApi().list_models(
            filter=f"base_model:finetune:{name}", sort="downloads", limit=most, expand=PROPERTIES
        )
        return list(_children(models))


def _children(models: Any) -> Iterator[Child]:
    for model in models:
        card = model.card_data
        licence = card.license if card else None
        if licence == "other":
            licence = card.license_name or licence
        yield Child(
            name=model.id,
            licence=", ".join(licence) if isinstance(licence, list) else licence or "?",
            gated=bool(model.gated),
            downloads=model.downloads or 0,
            conversational=CONVERSATIONAL in (model.tags or ()),
        )
