"""What a vector's folder says of itself: from which models, how it is stored, how exact it is."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
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
LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")
"""In a module's name, the number of its layer."""


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
    share: float
    """Of the vector's energy: their ‖exact‖² by that of all tensors."""
    relative_error: float
    """‖stored − exact‖ / ‖exact‖, of a sample of rows."""
    changed: float
    """The share of a bfloat16 merge's elements that are another for it: of base + vector, which is
    chat, in the same sample."""


@dataclass(frozen=True)
class LayerFacts:
    """The tensors of one layer, or those outside all layers."""

    layer: str | None
    """As its tensors' names begin: `model.layers.0`; None outside the layers."""
    bytes: int
    share: float
    """Of the vector's energy."""


@dataclass(frozen=True)
class AdapterFacts:
    """The PEFT adapter beside a vector."""

    rank: int
    bytes: int
    kept: Mapping[str, float]
    """By linear layer, the share of ‖difference‖² that the adapter's product keeps."""
    share: float
    """Of the energy of the whole vector, that which the adapter keeps."""
    left_out: Mapping[str, int]
    """Of how many tensors of each kind it has nothing."""

    @property
    def lacks(self) -> str:
        """Return what it has nothing of, in words: `embeddings (1), norms (5)`."""
        return ", ".join(f"{kind} ({number})" for kind, number in self.left_out.items())

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return what is kept of every matrix: the names of columns, and a row for each layer.

        Where a layer has several of one name, as experts are, it is the least of them.
        """
        rows: dict[str, dict[str, float]] = {}
        for module, share in self.kept.items():
            row = rows.setdefault(layer_of(module) or module, {})
            last = module.rpartition(".")[2]
            row[last] = min(share, row.get(last, share))
        columns = list(dict.fromkeys(name for row in rows.values() for name in row))
        cells = [[f"{row[c]:.1%}" if c in row else "" for c in columns] for row in rows.values()]
        return ["layer", *columns], [[n, *row] for n, row in zip(short(rows), cells, strict=True)]


@dataclass(frozen=True)
class Description:
    """What there is to say of a vector."""

    bits: int
    base: ModelFacts
    chat: ModelFacts
    added_tokens: tuple[str, ...]
    bytes: int
    """Of all tensors, without the adapter's."""
    kinds: tuple[KindFacts, ...]
    layers: tuple[LayerFacts, ...]
    adapter: AdapterFacts | None

    def as_json(self) -> str:
        """Return the text of `DESCRIPTION_FILE`."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def layer_of(name: str) -> str | None:
    """Return how the names of a tensor's layer begin; None if it is in none."""
    number = LAYER.search(name)
    return name[: number.end(1)] if number else None


def short(layers: Iterable[str]) -> list[str]:
    """Return the names of layers, or their numbers alone where that tells them apart."""
    names = list(layers)
    one = len({name.rpartition(".")[0] for name in names}) == 1
    return [name.rpartition(".")[2] if one else name for name in names]


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
