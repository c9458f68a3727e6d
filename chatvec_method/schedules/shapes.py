"""A ratio for every layer, as pure functions from a shape and the number of layers to an array.

The shapes are functions of a layer's depth x, which is mergekit's: x = i / (N − 1) for layer i of
N, from 0 at the first layer to 1 at the last, and 1 where there is only one. Every function returns
N numbers in float64 and refuses what has no meaning with a ValueError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.float64]
"""One number for each layer, the first layer's first."""


def depths(layers: int) -> Numbers:
    """Return the depth of every layer, from 0 to 1.

    Raises:
        ValueError: There is not even one layer.
    """
    if layers < 1:
        raise ValueError(f"a model has one layer or more, not {layers}")
    return np.linspace(0, 1, layers) if layers > 1 else np.ones(1)


def constant(layers: int, value: float = 1) -> Numbers:
    """Return the same number for every layer: r(x) = value."""
    return np.full_like(depths(layers), value)


def linear(layers: int, start: float = 1, end: float = 0) -> Numbers:
    """Return a straight line over the depth: r(x) = start + (end − start) · x."""
    return _between(start, end, depths(layers))


def cosine(layers: int, start: float = 1, end: float = 0) -> Numbers:
    """Return half a wave, which leaves and arrives gently.

    r(x) = start + (end − start) · (1 − cos πx) / 2
    """
    return _between(start, end, (1 - np.cos(np.pi * depths(layers))) / 2)


def gaussian(
    layers: int, center: float = 0.5, width: float = 0.2, low: float = 0, high: float = 1
) -> Numbers:
    """Return a bump at a depth: r(x) = low + (high − low) · exp(−(x − center)² / (2 · width²)).

    Args:
        layers: How many layers there are.
        center: The depth of the peak; may lie outside of the model.
        width: The standard deviation, as a share of the depth.
        low: The number far from the peak; `high` below it makes a dip.
        high: The number at the peak.

    Raises:
        ValueError: The width is not positive.
    """
    if width <= 0:
        raise ValueError(f"the width of a bump is more than 0, not {width:g}")
    return _between(low, high, np.exp(-(((depths(layers) - center) / width) ** 2) / 2))


def trapezoid(
    layers: int, up: float = 0.25, down: float = 0.75, low: float = 0, high: float = 1
) -> Numbers:
    """Return a ramp up from the first layer, a plateau, and a ramp down to the last.

    r(x) = low + (high − low) · min(x / up, 1, (1 − x) / (1 − down))

    Args:
        layers: How many layers there are.
        up: The depth at which the plateau begins; 0 for no ramp up.
        down: The depth at which it ends; 1 for no ramp down.
        low: The number at both ends.
        high: The number on the plateau.

    Raises:
        ValueError: Not 0 ≤ up ≤ down ≤ 1.
    """
    if not 0 <= up <= down <= 1:
        raise ValueError(
            f"a plateau lies between two depths from 0 to 1, not from {up:g} to {down:g}"
        )
    x = depths(layers)
    rising = np.divide(x, up, out=np.ones_like(x), where=x < up)
    falling = np.divide(1 - x, 1 - down, out=np.ones_like(x), where=x > down)
    return _between(low, high, np.minimum(rising, falling))


def middle(layers: int, ends: float = 0.2, ramp: float = 0.1, high: float = 1) -> Numbers:
    """Return nothing at both ends of the depth, a ramp beyond each, and one number between them.

    r(x) = high · min(max((min(x, 1 − x) − ends) / ramp, 0), 1). It is the form of Layer Swapping
    (Bandarkar et al., ICLR 2025, arXiv 2410.01335): the middle of the network from one model, both
    ends from another, with zones of transition.

    Args:
        layers: How many layers there are.
        ends: The share of the depth at either end that gets nothing.
        ramp: The share of the depth of either ramp; 0 for none.
        high: The number between them.

    Raises:
        ValueError: A share is below 0, or nothing is left between the ends and ramps.
    """
    if ends < 0 or ramp < 0 or ends + ramp > 0.5:
        raise ValueError(
            f"an end and a ramp take shares of the depth that come to half of it at most, not "
            f"{ends:g} and {ramp:g}"
        )
    x = depths(layers)
    mirrored = x[::-1] if layers > 1 else 1 - x  # alike on either side, where 1 − x is rounded
    inside = np.minimum(x, mirrored) - ends
    rising = np.divide(inside, ramp, out=(inside >= 0).astype(np.float64), where=ramp > 0)
    return high * np.clip(rising, 0, 1)


def step(layers: int, ranges: Sequence[tuple[int, int, float]]) -> Numbers:
    """Return one number for each range of layers: r = value from layer `first` to layer `last`.

    Args:
        layers: How many layers there are.
        ranges: Of each range its first layer, its last layer and its number.

    Raises:
        ValueError: A layer is in no range, in two, or not in the model.
    """
    numbers = np.full_like(depths(layers), np.nan)
    for first, last, value in ranges:
        if not 0 <= first <= last < layers:
            raise ValueError(
                f"there are no layers {first} to {last}, only 0 to {layers - 1}, counted upwards"
            )
        part = numbers[first : last + 1]
        if not np.isnan(part).all():
            raise ValueError(f"layer {first + int(np.argmin(np.isnan(part)))} has two numbers")
        part[:] = value
    if np.isnan(numbers).any():
        raise ValueError(f"layer {int(np.argmax(np.isnan(numbers)))} has no number")
    return numbers


def points(layers: int, pairs: Sequence[tuple[float, float]]) -> Numbers:
    """Return the straight lines between points, level before the first and after the last.

    r(x) = v₁ + (v₂ − v₁) · (x − x₁) / (x₂ − x₁) between neighbours (x₁, v₁) and (x₂, v₂)

    Args:
        layers: How many layers there are.
        pairs: Of each point its depth and its number, in any order.

    Raises:
        ValueError: There is no point, one lies outside of the model, or two at the same depth.
    """
    at = [depth for depth, _ in sorted(pairs)]
    if not at:
        raise ValueError("a line needs one point or more")
    if not 0 <= at[0] <= at[-1] <= 1:
        outside = at[0] if at[0] < 0 else at[-1]
        raise ValueError(f"depths go from 0 to 1, and {outside:g} is outside")
    if len(set(at)) < len(at):
        raise ValueError("two points have the same depth")
    return np.interp(depths(layers), at, [value for _, value in sorted(pairs)])


def per_layer(layers: int, values: Sequence[float]) -> Numbers:
    """Return numbers that are given one by one: r = values[i] in layer i.

    Raises:
        ValueError: There are not as many as layers.
    """
    if len(values) != len(depths(layers)):
        raise ValueError(f"there are {len(values)} numbers for {layers} layers")
    return np.array(values, dtype=np.float64)


def _between(zero: float, one: float, share: Numbers) -> Numbers:
    """Return the numbers that lie a share of the way between two; exact at both ends."""
    return zero * (1 - share) + one * share
