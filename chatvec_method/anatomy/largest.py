"""The energy of a vector's largest elements, without sorting it.

The sum of the k largest of some numbers is the least value over u of k·u + Σ max(x − u, 0), and the
slope there is k less the number of x above u (Rockafellar and Uryasev, 2000). So a pass over the
numbers with a few levels u near the right one, which a sample tells, leaves little to guess. Where
it leaves too much, the numbers above a level are collected and sorted after all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
SPREAD = 2.0
"""How far apart the outer levels are from the middle, in standard deviations of the sample."""
JUST_BELOW = 1 - 1e-6


def count(elements: int) -> int:
    """Return how many elements are the largest 1 %, at least one."""
    return max(1, round(SHARE * elements))


def exactly(energies: Tensor, k: int) -> float:
    """Return the sum of the k largest of some numbers."""
    numbers = energies.reshape(-1).cpu().numpy()
    return float(np.partition(numbers, len(numbers) - k)[-k:].sum(dtype=np.float64))


def at_least(level: float, energies: Tensor) -> Tensor:
    """Return the numbers from a level on; numpy does it several times as fast as torch."""
    numbers = energies.cpu().numpy()
    return torch.from_numpy(numbers[numbers >= level])


def levels_of(sample: Tensor) -> tuple[float, ...]:
    """Return levels around the one that 1 % of a sample's numbers lie above, highest first.

    Weights are coarse, so a number may be that of thousands of elements, and the curve then has a
    corner there. The commonest number is a level, and so is what is just below.
    """
    numbers = sample.reshape(-1).cpu().numpy()
    k = SHARE * len(numbers)
    step = SPREAD * math.sqrt(k)
    low, high = (len(numbers) - 1 - max(0, round(k + i * step)) for i in (1, -1))
    ordered = np.partition(numbers, (low, high))
    between, counts = np.unique(ordered[low : high + 1], return_counts=True)
    from_middle = np.abs(np.cumsum(counts) - counts / 2 - step)
    point = between[np.lexsort((from_middle, -counts))[0]]
    levels = (ordered[high], point, JUST_BELOW * point, JUST_BELOW * ordered[low])
    return tuple(sorted(map(float, levels), reverse=True))


def estimate(
    levels: Sequence[float], excess: Sequence[float], above: Sequence[float], k: int
) -> tuple[float, float] | None:
    """Return the sum of the k largest of some numbers x.

    It is where the curve k·u + Σ max(x − u, 0) is lowest. Of this, values and slopes are known at
    each level, so between two levels it lies above both tangents.

    Args:
        levels: From the highest down.
        excess: Σ max(x − level, 0) for each.
        above: The number of x > level for each.
        k: How many.

    Returns:
        The sum and how far off it may be at most; None if the levels are all too high or too low.
    """
    values = [k * u + e for u, e in zip(levels, excess, strict=True)]
    slopes = [k - n for n in above]
    if slopes[-1] == 0 or (slopes[-1] > 0 and levels[-1] <= 0):
        return values[-1], 0.0
    for i in range(len(levels) - 1):
        if slopes[i] >= 0 > slopes[i + 1]:
            width = levels[i] - levels[i + 1]
            falling, rising = slopes[i + 1] * width, slopes[i] * width
            left, right = values[i + 1], values[i]
            tangents_meet = left + falling * (right - left - rising) / (falling - rising)
            lowest = min(left, right)
            return (tangents_meet + lowest) / 2, (lowest - tangents_meet) / 2
    return None
