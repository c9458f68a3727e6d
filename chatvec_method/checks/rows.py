"""A few rows of a model's weights, read where they lie.

Some kilobytes of each model tell what it is, in milliseconds. On the hub nothing is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

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
        """Return the middle row of a stored matrix, or a whole vector, flat and in float64.

        None if it cannot be read.
        """
        header = (self.model.tensors or {}).get(name)
        if self.model.folder is None or header is None or not math.prod(header.shape):
            return None
        if header.dtype not in SUPPORTED:
            return None
        rows = header.shape[0] if len(header.shape) > 1 else 1
        try:
            if self.model.pickled:
                tensor = self._pickle(header)[name].reshape(rows, -1)
                return tensor[rows // 2].to(torch.float64)
            return self._stored(header, rows)
        except Exception:  # whatever keeps a file from being read is told elsewhere
            return None

    def _stored(self, header: TensorHeader, rows: int) -> Tensor | None:
        if self.model.folder is None or header.start is None:
            return None
        size = header.bytes // rows
        with (self.model.folder / header.file).open("rb") as stream:
            stream.seek(header.start + rows // 2 * size)
            data = bytearray(stream.read(size))
        if len(data) < size:  # the file was cut short
            return None
        return torch.frombuffer(data, dtype=header.dtype).to(torch.float64)

    def _pickle(self, header: TensorHeader) -> Mapping[str, Tensor]:
        """Return a shard of pickles, mapped, so that only what is used is read."""
        if header.file not in self._pickles and self.model.folder is not None:
            file = self.model.folder / header.file
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
            self._pickles[header.file] = state
        return self._pickles[header.file]


def likeness(pairs: Sequence[tuple[Tensor, Tensor]]) -> Likeness | None:
    """Return how the first of most pairs lies to the second; None where these are all zeros.

    Most are what counts (the median): single tensors may be of another size, or not trained.
    """
    sizes, cosines = [], []
    for one, other in pairs:
        own, length = float(one.norm()), float(other.norm())
        if length:
            sizes.append(own / length)
            cosines.append(float(one @ other) / (own * length) if own else 0.0)
    return Likeness(median(sizes), median(cosines)) if sizes else None
