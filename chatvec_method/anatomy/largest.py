"""The sum of a vector's largest squares, without sorting all of them.

A sample tells a level that somewhat more than the largest 1 % reach. Those above it are collected
while the tensor is read, and of these few the largest are taken. Should there be too few above the
level, the tensor is read once more, from level 0 on; so the sum is exact whatever the sample was.
A histogram of all squares needs no sample, but takes twice as long to fill as the few to collect.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

SHARE, SAMPLED_SHARE = 0.01, 0.015
"""Of the elements: how many are the largest, and how many of a sample are to be above the level."""
SAMPLE = 1 << 16
"""Elements in a sample."""
UNSAMPLED = 1 << 18
"""Up to so many elements, all are collected."""
SPARE = 4
"""So many times what is asked for may be collected before the rest is dropped."""


def count(elements: int) -> int:
    """Return how many elements are the largest 1 %, at least one."""
    return max(1, round(SHARE * elements))


def level(sample: Tensor) -> float:
    """Return a level, 0 or more, that somewhat more than 1 % of all squares are above.

    Args:
        sample: Squares of some elements.
    """
    squares = sample.reshape(-1).cpu().numpy()
    place = max(1, round(SAMPLED_SHARE * len(squares)))
    # Just below it, as many may be equal to it.
    return float(max(np.nextafter(_top(squares, place)[0], -np.inf), 0))


class Largest:
    """The largest of many squares that come some at a time, from 0 on or above a level.

    Attributes:
        level: Squares up to it need not be added.
    """

    def __init__(self, count: int, level: float = 0.0) -> None:
        self.level = level
        self._count = count
        self._parts: list[np.ndarray] = []

    def add(self, squares: Tensor) -> None:
        """Add squares; those that cannot be among the largest are dropped now and then."""
        self._parts.append(squares.numpy())
        if sum(map(len, self._parts)) > SPARE * self._count:
            self._parts = [_top(np.concatenate(self._parts), self._count)]
            self.level = float(self._parts[0][0])

    @property
    def sum(self) -> float | None:
        """Their sum; None if the level was too high for it to be known."""
        squares = np.concatenate(self._parts)
        if len(squares) < self._count and self.level > 0:
            return None
        return float(_top(squares, self._count).sum(dtype=np.float64))


def _top(numbers: np.ndarray, k: int) -> np.ndarray:
    """Return the k largest of some numbers, or all if there are no more, the smallest first."""
    k = min(k, len(numbers))
    return np.partition(numbers, len(numbers) - k)[len(numbers) - k :] if k else numbers
