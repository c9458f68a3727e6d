"""A chat vector as a file: what its folder says of the models that it is the difference of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mergekit.common import ModelPath, ModelReference
from transformers import PretrainedConfig

CONFIG_KEY = "chat_vector"
"""Of a vector's config.json."""
FORMAT = 1
ADDED_ROWS_FILE = "added_rows.safetensors"
"""chat's own rows of the tokens that base lacks, under the names of the embeddings and the head."""
KEPT_ROWS_FILE = "kept_rows.safetensors"
"""The rows of embeddings and head that tuning moved most, in full: their differences under the
tensors' names, and which rows they are under the same with `KEPT_INDEX`."""
KEPT_INDEX = ".rows"
FINGERPRINT_FILE = "fingerprint.safetensors"
"""Some rows of base, by which a cp of another base is told."""
LARGEST_FINGERPRINT_BYTES = 1 << 26
"""They have a hundredth of that."""
ADAPTER_FOLDER = "adapter"
"""A PEFT adapter, in a folder of its own, as transformers takes a folder that holds one for nothing
else; no merge reads it."""


@dataclass(frozen=True)
class VectorFacts:
    """What a vector's config says of it."""

    base: str
    chat: str
    bits: int
    """Of an element: 32, 16, 8, 4 or 2; embeddings and norms may have more."""
    added_tokens: tuple[str, ...]
    """chat's tokens that base lacks, in the order of their rows in `ADDED_ROWS_FILE`."""
    moved_tokens: tuple[str, ...] = ()
    """chat's tokens that base has under another number, whose rows were subtracted by number."""


def vector_facts(config: PretrainedConfig) -> VectorFacts | None:
    """Return what a config says of a vector that `chatvec vector extract` wrote; else None."""
    held: Any = config.to_dict().get(CONFIG_KEY)
    if not isinstance(held, Mapping) or held.get("format") != FORMAT:
        return None
    bits = held.get("bits")
    return VectorFacts(
        base=str(held.get("base") or ""),
        chat=str(held.get("chat") or ""),
        bits=bits if isinstance(bits, int) else 0,
        added_tokens=_tokens(held.get("added_tokens")),
        moved_tokens=_tokens(held.get("moved_tokens")),
    )


def _tokens(held: Any) -> tuple[str, ...]:
    return tuple(map(str, held)) if isinstance(held, list) else ()


def base_of(vector: ModelReference) -> ModelReference:
    """Return a name for the base of a vector, which nobody has: its rows are nothing but zeros."""
    return ModelReference(model=ModelPath(path=f"{vector} (its base)"))


def added_of(vector: ModelReference) -> ModelReference:
    """Return a name for the rows in a vector's `ADDED_ROWS_FILE`."""
    return ModelReference(model=ModelPath(path=f"{vector} (tokens that it adds)"))
