"""The sums over elements from which all figures of the anatomy follow.

With b = base, τ = chat − base and λ = other − base, where other is cp, or another chat model. Each
element is read once; the arithmetic is float32, which differences of half-precision weights fit
into, and what is summed up is float64 from a row of a thousand elements on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import reduce

import torch
from torch import Tensor

ROW = 2048
"""Elements that are summed up in float32: few enough to be exact to six digits."""


@dataclass(frozen=True)
class Sums:
    """What was summed up over some elements; sums over others can be added."""

    elements: int = 0
    base: float = 0.0
    """Σ b²; of a vector whose base is not here, Σ cp²."""
    vector: float = 0.0
    """Σ τ², called the energy of τ."""
    other: float = 0.0
    """Σ λ²."""
    product: float = 0.0
    """Σ τλ."""
    overlap: float = 0.0
    """Σ |τλ|."""
    opposed: int = 0
    """Elements where τλ < 0."""
    moved: int = 0
    """Elements where τ ≠ 0."""
    asked: int = 0
    """Those of them where the recipe's ratio is not 0."""
    swallowed: int = 0
    """Those of them that the merge, once it is rounded, has as cp has them."""
    largest: float = 0.0
    """Σ τ² over the largest 1 % of elements of each tensor."""
    ranked: float = 0.0
    """Σ τ² over the matrices whose directions were looked at."""
    directions: float = 0.0
    """Σ σ² over the first singular values of each of them."""

    def __add__(self, more: Sums) -> Sums:
        return Sums(*(getattr(self, f.name) + getattr(more, f.name) for f in fields(self)))

    @property
    def base_norm(self) -> float:
        """‖b‖, the Euclidean norm over all elements; ‖cp‖ where base is not here."""
        return math.sqrt(self.base)

    @property
    def vector_norm(self) -> float:
        """‖τ‖."""
        return math.sqrt(self.vector)

    @property
    def other_norm(self) -> float:
        """‖λ‖."""
        return math.sqrt(self.other)

    @property
    def vector_relative(self) -> float:
        """‖τ‖ / ‖b‖; ‖τ‖ / ‖cp‖ where base is not here."""
        return _ratio(self.vector_norm, self.base_norm)

    @property
    def other_relative(self) -> float:
        """‖λ‖ / ‖b‖."""
        return _ratio(self.other_norm, self.base_norm)

    @property
    def cosine(self) -> float:
        """Σ τλ / (‖τ‖ ‖λ‖): 1 where both point the same way, 0 at right angles."""
        return _ratio(self.product, self.vector_norm * self.other_norm)

    @property
    def conflict(self) -> float:
        """The share of elements where both move and in opposite directions (sign conflict)."""
        return _ratio(self.opposed, self.elements)

    @property
    def weighted_conflict(self) -> float:
        """Σ |τλ| where τλ < 0, over Σ |τλ|: 0.5 by chance, 1 where all pull apart."""
        return _ratio((self.overlap - self.product) / 2, self.overlap)

    @property
    def moved_share(self) -> float:
        """The share of elements where τ is not 0."""
        return _ratio(self.moved, self.elements)

    @property
    def largest_share(self) -> float:
        """The share of τ's energy in the largest 1 % of elements of each tensor: 0.01 at least."""
        return _ratio(self.largest, self.vector)

    @property
    def swallowed_share(self) -> float:
        """Of the elements that τ should move, the share that rounding leaves as cp has them."""
        return _ratio(self.swallowed, self.asked)

    @property
    def directions_share(self) -> float:
        """The share of τ's energy in the first singular directions of each matrix."""
        return _ratio(self.directions, self.ranked)


def total(sums: list[Sums]) -> Sums:
    """Return the sums over all elements."""
    return reduce(Sums.__add__, sums, Sums())


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


ROW_SUMS = "base vector other product overlap opposed moved changed".split()
"""What `row_sums` sums up, in order."""
BASE, OTHER, OPPOSED = (ROW_SUMS.index(name) for name in ("base", "other", "opposed"))
FAR = 2.0**64
"""Times this, a product of tiny numbers is not 0, and that of weights does not overflow."""


def row_sums(
    base: Tensor, chat: Tensor, other: Tensor, level: float, ratio: float, rounded: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the sums over each row of three matrices, and the largest squares of τ.

    `changed` is the number of elements of `round(other + ratio · τ)` that are not `round(other)`.
    A merge forms that sum in `kernel.py`; where that takes float64, one element in millions may
    be rounded the other way here.

    Args:
        base: (rows, columns), floating point.
        chat: The same.
        other: The same.
        level: Some value of τ².
        ratio: Of the chat vector in the merge.
        rounded: The dtype of the merge's output.

    Returns:
        The sums, (len(ROW_SUMS), rows); and all τ² above the level, in any order.
    """
    wide = reduce(torch.promote_types, (base.dtype, chat.dtype, other.dtype), torch.float32)
    kept = other.to(rounded).to(wide)
    base, other = base.to(wide), other.to(wide)
    tau, lam = chat.to(wide) - base, other - base
    energy, product = tau * tau, tau * (lam * FAR)
    changed = (other + ratio * tau).to(rounded).to(wide) != kept
    sums = [part.sum(1) for part in (base * base, energy, lam * lam)]
    sums += [part.sum(1) / FAR for part in (product, product.abs())]
    sums += [torch.where(c, 1.0, 0.0).sum(1) for c in (product < 0, tau != 0, changed)]
    return torch.stack(sums), energy[energy > level]


def squares(base: Tensor, chat: Tensor) -> Tensor:
    """Return τ² as `row_sums` has it."""
    wide = reduce(torch.promote_types, (base.dtype, chat.dtype), torch.float32)
    tau = chat.to(wide) - base.to(wide)
    return tau * tau
