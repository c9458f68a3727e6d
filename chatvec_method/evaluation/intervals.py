"""How sure a figure is: the interval in which it would lie with other prompts of the same kind.

95 % intervals by the bootstrap: a thousand times, as many prompts are drawn (with replacement) as
there are, and the figure is computed of those; the interval leaves out the lowest and the highest
25. Draws are the same every time. Where all prompts have the same mark, the interval is that mark.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

RESAMPLES = 1000
DRAWN_AT_ONCE = 1 << 20
"""Numbers, which bounds the memory."""


def resampled(
    values: Sequence[float], weights: Sequence[float] | None = None, *, of: str = ""
) -> Floats:
    """Return Σ values / Σ weights of each drawn set of prompts; without weights, the mean.

    Args:
        values: One for each prompt.
        weights: The same; by default 1 each.
        of: What the prompts are called: sets of another name are drawn independently.

    Returns:
        RESAMPLES numbers, float64.
    """
    top = np.asarray(values, dtype=np.float64)
    bottom = np.ones_like(top) if weights is None else np.asarray(weights, dtype=np.float64)
    draws = np.random.default_rng(zlib.crc32(of.encode()))
    at_once = max(1, DRAWN_AT_ONCE // len(top))
    ratios = []
    for start in range(0, RESAMPLES, at_once):
        places = draws.integers(0, len(top), (min(at_once, RESAMPLES - start), len(top)))
        ratios.append(top[places].sum(axis=1) / bottom[places].sum(axis=1))
    return np.concatenate(ratios)


def interval(replicates: Any) -> tuple[float, float]:
    """Return the interval in which 95 % of a figure's replicates lie."""
    low, high = np.quantile(np.asarray(replicates), [0.025, 0.975])
    return float(low), float(high)
