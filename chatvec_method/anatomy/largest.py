"""The energy of a vector's largest elements, without sorting it.

A sample tells about how large the smallest of the k largest numbers is. A pass over all of them
then counts those above that level and sums them up, which is the answer but for a few numbers next
to the level; what these are like, the sample tells again. Where too much is left to guess, another
pass takes a better level, and if that does not help, the numbers above it are sorted after all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SHARE = 0.01
EXACT = 1 << 18
"""Up to so many elements, they are simply sorted."""
TOLERANCE = 1e-5
"""How far off the result may be, as a share of all energy."""
SAMPLE = 1 << 16
"""Elements in a sample."""
EVERY = 16
"""One in so many tells where to cut a sample; it is several times as fast as to part all."""
DEVIATIONS = 2
"""By so many standard deviations a sample may misplace a number."""


def count(elements: int) -> int:
    """Return how many elements are the largest 1 %, at least one."""
    return max(1, round(SHARE * elements))


def exactly(energies: Tensor, k: int) -> float:
    """Return the sum of the k largest of some numbers."""
    return float(_top(energies.reshape(-1).cpu().numpy(), k).sum(dtype=np.float64))


def at_least(level: float, energies: Tensor) -> Tensor:
    """Return the numbers from a level on; numpy does it several times as fast as torch."""
    numbers = energies.cpu().numpy()
    return torch.from_numpy(numbers[numbers >= level])


@dataclass(frozen=True)
class Sample:
    """Some of many numbers."""

    largest: np.ndarray
    """The largest 3 % of them, about, in descending order."""
    size: int

    @property
    def level(self) -> float:
        """The number that 1 % of them reach."""
        return self.at(count(self.size) - 1)

    def at(self, place: float) -> float:
        """Return about how large the number is that so many of the sample are larger than."""
        return float(np.interp(place, np.arange(len(self.largest)), self.largest))

    def estimate(
        self, level: float, above: float, beyond: float, k: int, elements: int
    ) -> Estimate:
        """Return the sum of the k largest of all numbers.

        Args:
            level: A number near the smallest of them.
            above: How many of all numbers are larger.
            beyond: Their sum.
            k: How many.
            elements: How many numbers there are.
        """
        missing = k - above  # below 0, there are too many
        # How large these are tell the next ones in the sample. There may be more or fewer of them;
        # missing ones do not lie above the level, though, and those that are too many not below.
        nearby = abs(missing) * self.size / elements
        doubt = DEVIATIONS * math.sqrt(nearby + 1)
        first = float((self.largest > level).sum())
        bound = np.minimum if missing > 0 else np.maximum
        sums = np.concatenate([[0.0], np.cumsum(bound(self.largest, level, dtype=np.float64))])

        def mean(numbers: float) -> float:
            last = first + math.copysign(numbers, missing)
            if not 0 <= last <= len(self.largest):
                return math.inf
            start, end = np.interp([first, last], np.arange(len(sums)), sums)
            return float(end - start) / (last - first) if last != first else level

        near, mid, far = (mean(max(nearby + by, 0.0)) for by in (-doubt, 0, doubt))
        return Estimate(
            energy=beyond + missing * mid,
            doubt=abs(missing * (near - far)) / 2,
            level=self.at(first + math.copysign(nearby, missing)),
        )


@dataclass(frozen=True)
class Estimate:
    """What is known after a pass."""

    energy: float
    doubt: float
    """How far off it may be."""
    level: float
    """A level with less doubt, to look again."""


def sample_of(energies: Tensor) -> Sample:
    """Return what is to be known of a sample's numbers."""
    numbers = energies.reshape(-1).cpu().numpy()
    few = numbers[::EVERY]
    largest = numbers[numbers > _top(few, 3 * count(len(few)))[0]]
    k = count(len(numbers))
    if len(largest) < 2 * k:  # many are equal, or these few not like the others
        largest = _top(numbers, 3 * k)
    return Sample(np.sort(largest)[::-1], len(numbers))


def _top(numbers: np.ndarray, k: int) -> np.ndarray:
    """Return the k largest of some numbers, or all if there are no more, the smallest first."""
    k = min(k, len(numbers))
    return np.partition(numbers, -k)[-k:]
