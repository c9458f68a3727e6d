"""A few rows of a model's weights, read by where its headers say they are.

Some kilobytes of each model tell what it is, in milliseconds. On the hub nothing is read, nor of
pickles, whose headers do not say where a row is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def read_row(model: Model, header: TensorHeader, row: int) -> Tensor | None:
    """Return one row of a model's tensor, flat, in float64; None if it cannot be read.

    Args:
        model: The model.
        header: Of one of its tensors, which has more than one axis.
        row: Which of those along the first axis.
    """
    if model.folder is None or header.start is None or len(header.shape) < 2:
        return None
    if header.dtype not in SUPPORTED:
        return None
    length = math.prod(header.shape[1:])
    if not 0 <= row < header.shape[0] or not length:
        return None
    size = length * header.dtype.itemsize
    try:
        with (model.folder / header.file).open("rb") as stream:
            stream.seek(header.start + row * size)
            data = stream.read(size)
    except OSError:
        return None
    if len(data) < size:  # the file was cut short
        return None
    return torch.frombuffer(bytearray(data), dtype=header.dtype).to(torch.float64)


def likeness(rows: Sequence[tuple[Tensor, Tensor]]) -> Likeness | None:
    """Return how the first of each pair lies to the second; None where these are all zeros."""
    own = sum(float(one.square().sum()) for one, _ in rows)
    others = sum(float(other.square().sum()) for _, other in rows)
    if not others:
        return None
    product = sum(float(one @ other) for one, other in rows)
    cosine = product / math.sqrt(own * others) if own else 0.0
    return Likeness(math.sqrt(own / others), cosine)
