"""What a vector's folder says of itself: from which models, how it is stored, how exact it is."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.facts.models import Model
from chatvec_method.intake import read_json

DESCRIPTION_FILE = "chat_vector.json"
BLOB = re.compile("[0-9a-f]{64}")
"""The name that the hub's cache gives a large file: its sha256."""
CHUNK = 1 << 22


@dataclass(frozen=True)
class ModelFacts:
    """One of the two models."""

    name: str
    commit: str | None
    """Of the hub's repository; None for a folder."""
    licence: str | None
    sha256: Mapping[str, str]
    """Of each file of weights."""

    @classmethod
    def of(cls, model: Model, sha256: Mapping[str, str]) -> ModelFacts:
        """Return what there is to say of a model."""
        licence = model.card.license
        if licence == "other":
            licence = model.card.license_name or licence
        if isinstance(licence, list):
            licence = " and ".join(map(str, licence))
        return cls(str(model), model.commit, str(licence) if licence else None, sha256)


@dataclass(frozen=True)
class KindFacts:
    """The tensors of one kind."""

    kind: str
    tensors: int
    bits: tuple[int, ...]
    bytes: int
    relative_error: float
    """‖stored − exact‖ / ‖exact‖, of a sample of rows."""
    changed: float
    """The share of a bfloat16 merge's elements that are another for it: of base + vector, which is
    chat, in the same sample."""


@dataclass(frozen=True)
class Description:
    """What there is to say of a vector."""

    bits: int
    base: ModelFacts
    chat: ModelFacts
    added_tokens: tuple[str, ...]
    bytes: int
    """Of all tensors."""
    kinds: tuple[KindFacts, ...]

    def as_json(self) -> str:
        """Return the text of `DESCRIPTION_FILE`."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def read_description(folder: Path) -> Description:
    """Return what a vector's folder says of itself.

    Raises:
        ChatVecError: It says nothing, or something else than a vector's folder does.
    """
    file = folder / DESCRIPTION_FILE
    try:
        return TypeAdapter(Description).validate_python(read_json(file))
    except FileNotFoundError:
        raise ChatVecError(
            f"{folder} has no {DESCRIPTION_FILE}, so it is not a chat vector that "
            "`chatvec vector extract` wrote.",
            "Write the folder of one.",
        ) from None
    except (OSError, ValidationError) as error:
        raise ChatVecError(
            f"{file} cannot be read ({first_line(error)}).", "Download or extract it again."
        ) from error


def hashes_of_files(model: Model) -> dict[str, str]:
    """Return the sha256 of each file of a model's weights."""
    assert model.folder is not None
    names = sorted({header.file for header in (model.tensors or {}).values()})
    return {name: _sha256(model.folder / name) for name in names}


def _sha256(file: Path) -> str:
    blob = file.resolve().name
    if file.is_symlink() and BLOB.fullmatch(blob):
        return blob
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
