"""A few rows of a model's weights, read where they lie.

Some kilobytes of each model tell what it is, in milliseconds. On the hub nothing is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from chatvec_method.facts.models import Model, TensorHeader
from chatvec_method.kernel import SUPPORTED


@dataclass(frozen=True)
class Likeness:
    """How some numbers lie to others of the same place."""

    size: float
    """Their length, measured by that of the others."""
    cosine: float


class Rows:
    """Single rows of a model's tensors."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._pickles: dict[str, Mapping[str, Tensor]] = {}

    @property
    def readable(self) -> bool:
        """Whether there is anything to read."""
        return self.model.folder is not None and bool(self.model.tensors)

    def middle(self, name: str) -> Tensor | None:
        """Return the middle row of a stored tensor, flat, in float64; None if it cannot be read."""
        header = (self.model.tensors or {}).get(name)
        if self.model.folder is None or header is None or len(header.shape) < 2:
            return None
        if header.dtype not in SUPPORTED or not math.prod(header.shape):
            return None
        row = header.shape[0] // 2
        try:
            if self.model.pickled:
                return self._pickle(header)[name][row].reshape(-1).to(torch.float64)
            return self._stored(header, row)
        except Exception:  # whatever keeps a file from being read is told elsewhere
            return None

    def _stored(self, header: TensorHeader, row: int) -> Tensor | None:
        if self.model.folder is None or header.start is None:
            return None
        size = math.prod(header.shape[1:]) * header.dtype.itemsize
        with (self.model.folder / header.file).open("rb") as stream:
            stream.seek(header.start + row * size)
            data = bytearray(stream.read(size))
        if len(data) < size:  # the file was cut short
            return None
        return torch.frombuffer(data, dtype=header.dtype).to(torch.float64)

    def _pickle(self, header: TensorHeader) -> Mapping[str, Tensor]:
        """Return a shard of pickles, mapped, so that only what is used is read."""
        if header.file not in self._pickles and self.model.folder is not None:
            file = self.model.folder / header.file
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            self._pickles[header.file] = state.get("state_dict", state)
        return self._pickles[header.file]


def likeness(rows: Sequence[tuple[Tensor, Tensor]]) -> Likeness | None:
    """Return how the first of each pair lies to the second; None where these are all zeros."""
    own = sum(float(one.square().sum()) for one, _ in rows)
    others = sum(float(other.square().sum()) for _, other in rows)
    if not others:
        return None
    product = sum(float(one @ other) for one, other in rows)
    cosine = product / math.sqrt(own * others) if own else 0.0
    return Likeness(math.sqrt(own / others), cosine)
