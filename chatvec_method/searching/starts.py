"""Where a search begins: ratios that people would try first.

One ratio everywhere, in coarse steps, then more closely beside the best one; what anatomy proposes;
and the middle of the network alone, as Layer Swapping has it. The best ratio that is the same
everywhere is what the rest is held against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from chatvec_method import anatomy
from chatvec_method.facts.survey import Survey
from chatvec_method.schedules.shapes import middle
from chatvec_method.searching.space import PARTS, Space
from chatvec_method.searching.trials import Start

COARSE, FINE, FINER = 0.25, 0.125, 0.06
"""Steps of a ratio that is the same everywhere: the first ones, and beside the best one so far."""
MIDDLE, ANATOMY = "middle", "anatomy"
MOST_THAT_FOLLOW = 6
"""Starts that follow from the coarse ones."""
Agreements = Mapping[str, Sequence[float]]
"""By part of the layers, and by what is outside of them, a factor for each layer, or one."""


def coarse_starts(space: Space) -> list[Start]:
    """Return one ratio everywhere, in coarse steps within the bounds."""
    steps = int((space.high - space.low) / COARSE + 1e-9)
    return [_uniform(space, space.low + COARSE * i) for i in range(steps + 1)]


def uniform_beside(space: Space, best: float, step: float) -> list[Start]:
    """Return one ratio everywhere, a step below and above the best one so far."""
    ratios = (round(best - step, 6), round(best + step, 6))
    return [_uniform(space, ratio) for ratio in ratios if space.low <= ratio <= space.high]


def other_starts(
    space: Space, best: float, agreements: Callable[[], Agreements | None]
) -> Iterator[Start]:
    """Yield what is not the same everywhere.

    Args:
        space: What is searched.
        best: The best ratio of the coarse steps.
        agreements: Finds out where chat and language vector pull apart, which reads all weights;
            None where that cannot be.
    """
    if len(space.numbers) == 1:
        return
    bump = middle(space.layers, high=best).tolist()
    yield Start(MIDDLE, space.nearest(dict.fromkeys(PARTS, bump), {"embeddings": 0, "head": 0}))
    if (factors := agreements()) is not None:
        inside = {part: [best * f for f in factors[part]] for part in PARTS if part in factors}
        outside = {
            part: best * factors[part][0] for part in ("embeddings", "head") if part in factors
        }
        yield Start(ANATOMY, space.nearest(inside, outside))


def agreements_of(survey: Survey) -> Agreements | None:
    """Return by what anatomy's heuristic multiplies the ratio, of the first chat vector.

    None where a chat vector is a file, so that there is no base.
    """
    if survey.ready().plan.roles.vectors:
        return None
    examined = anatomy.examine(survey)
    by_kind = examined.by_layer_and_kind(examined.pairs[0])
    found: dict[str, list[float]] = {}
    for part, kind in PARTS.items():
        factors = [
            anatomy.agreement(by_kind[layer, kind]) if (layer, kind) in by_kind else np.nan
            for layer in examined.layers
        ]
        if not np.isnan(factors).any():
            found[part] = [float(factor) for factor in factors]
    for part in ("embeddings", "head"):
        if (None, part) in by_kind:
            found[part] = [anatomy.agreement(by_kind[None, part])]
    return found if any(part in found for part in PARTS) else None


def _uniform(space: Space, ratio: float) -> Start:
    return Start(f"uniform {ratio:g}", space.uniform(ratio), ratio)
