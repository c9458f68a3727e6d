"""The numbers that are searched, and the schedule that they mean.

A schedule per layer has as many numbers as there are layers, of which a search with tens of trials
learns nothing. Here they are 4 to 8: knots over the depth with straight lines between them, apart
for attention and MLP, and numbers of their own for embeddings and head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from optuna.distributions import FloatDistribution

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.plan import MergePlan
from chatvec_method.schedules.cases import Schedule
from chatvec_method.schedules.shapes import depths
from chatvec_method.schedules.spec import Shape, parse_shape

SPACES = {
    "global": "one ratio for all",
    "parts": "a ratio for attention, MLP, norms, embeddings and head each",
    "depth": "three knots over the depth for all in the layers; embeddings and head apart",
    "parts+depth": "three knots over the depth for attention and for MLP, norms between the two; "
    "embeddings and head apart",
    "layers": "a ratio for each layer; embeddings and head apart",
}
DEFAULT = "parts+depth"
STEP = 0.005
"""Between two ratios that are told apart: less is nothing that anybody could measure."""
LOW, HIGH = 0.0, 1.25
KNOTS = (("early", 0.0), ("middle", 0.5), ("late", 1.0))
ALL = "all"
PARTS = {"attention": "attention", "mlp": "MLP", "norms": "norms"}
"""Parts of the layers as they are written here, and what plans call them."""
OUTSIDE = ("embeddings", "head")


@dataclass(frozen=True)
class Part:
    """Tensors whose ratio has numbers of its own."""

    name: str
    """`all`, `attention`, `mlp`, `norms`, `embeddings` or `head`."""
    knots: tuple[tuple[str, float], ...]
    """The name of each number, and its depth; one alone is for all depths."""


@dataclass(frozen=True)
class Space:
    """Numbers with bounds, and what they mean for a recipe's models."""

    name: str
    parts: tuple[Part, ...]
    chats: tuple[str, ...]
    """The chat vectors. Of each but the first, one number says by what it multiplies the schedule
    that is the first one's."""
    layers: int
    low: float = LOW
    high: float = HIGH
    fixed: tuple[tuple[str, float], ...] = ()
    """Parts that are not searched, with their ratio."""

    @property
    def numbers(self) -> tuple[str, ...]:
        """Return the names of what is searched."""
        fixed = dict(self.fixed)
        knots = [name for part in self.parts if part.name not in fixed for name, _ in part.knots]
        return (*knots, *(f"share of {chat}" for chat in self.chats[1:]))

    @property
    def ranges(self) -> dict[str, FloatDistribution]:
        """Return what each number is drawn from."""
        return {name: FloatDistribution(self.low, self.high, step=STEP) for name in self.numbers}

    def ratios(self, values: Mapping[str, float]) -> dict[str, Schedule]:
        """Return the schedule of every chat vector.

        Args:
            values: One for each of the numbers.
        """
        shares = [1.0, *(values[f"share of {chat}"] for chat in self.chats[1:])]
        return {
            chat: self._schedule(values, share)
            for chat, share in zip(self.chats, shares, strict=True)
        }

    def uniform(self, ratio: float) -> dict[str, float]:
        """Return the values with which everything that is searched has one ratio."""
        return {
            name: 1.0 if name.startswith("share of ") else self._in_bounds(ratio)
            for name in self.numbers
        }

    def nearest(
        self, inside: Mapping[str, Sequence[float]], outside: Mapping[str, float]
    ) -> dict[str, float]:
        """Return the values that come nearest to ratios given layer by layer.

        Args:
            inside: By part of the layers, a ratio for each layer.
            outside: The ratio of embeddings and head.
        """
        values = self.uniform(1.0)
        for part in self.parts:
            if part.name in OUTSIDE:
                numbers: Sequence[float] = [outside.get(part.name, 1.0)] * self.layers
            elif part.name in inside:
                numbers = inside[part.name]
            else:
                numbers = [float(each) for each in np.mean(list(inside.values()), axis=0)]
            for name, depth in part.knots:
                if name in values:
                    at = float(np.interp(depth, depths(self.layers), numbers))
                    values[name] = self._in_bounds(
                        at if len(part.knots) > 1 else float(np.mean(numbers))
                    )
        return values

    def _in_bounds(self, ratio: float) -> float:
        inside = min(max(ratio, self.low), self.high)
        return round(self.low + round((inside - self.low) / STEP) * STEP, 6)

    def _schedule(self, values: Mapping[str, float], share: float) -> Schedule:
        fixed = dict(self.fixed)
        shapes: dict[str, list[float]] = {}
        for part in self.parts:
            own = fixed.get(part.name)
            shapes[part.name] = [
                round(share * (values[name] if own is None else own), 6) for name, _ in part.knots
            ]
        inside = {part.name: part for part in self.parts if part.name not in OUTSIDE}
        if ALL in inside:
            rest = self._shape(inside[ALL], shapes[ALL])
            kinds = {}
        else:
            kinds = {PARTS[name]: self._shape(part, shapes[name]) for name, part in inside.items()}
            between = [name for name in inside if name != "norms"] or list(inside)
            means = np.mean([shapes[name] for name in between], axis=0)
            rest = self._shape(inside[between[0]], [round(float(each), 6) for each in means])
        ends = {name: shapes[name][0] for name in OUTSIDE if name in shapes}
        if "norms" in inside:
            ends["final_norm"] = shapes["norms"][-1]
        return Schedule(rest, kinds, **ends)

    def _shape(self, part: Part, values: Sequence[float]) -> Shape:
        if len(values) == 1:
            return parse_shape(f"{values[0]:g}")
        if self.name == "layers":
            return parse_shape("per-layer:" + ",".join(f"{value:g}" for value in values))
        pairs = zip(part.knots, values, strict=True)
        return parse_shape("points:" + ",".join(f"{at:g}:{value:g}" for (_, at), value in pairs))


def space_of(
    plan: MergePlan,
    name: str = DEFAULT,
    *,
    low: float = LOW,
    high: float = HIGH,
    fixed: Mapping[str, float] | None = None,
) -> Space:
    """Return a space for the models of a recipe.

    Args:
        plan: Of the recipe.
        name: One of SPACES.
        low: The lowest ratio.
        high: The highest one.
        fixed: Parts that are not searched, with their ratio.

    Raises:
        ChatVecError: There is no such space, the bounds are none, or a part is not in the space.
    """
    if name not in SPACES:
        raise ChatVecError(f"there is no space `{name}`.", f"Write one of {', '.join(SPACES)}.")
    low, high = (round(round(end / STEP) * STEP, 6) for end in (low, high))
    if not low < high:
        raise ChatVecError(
            f"there is nothing to search from {low:g} to {high:g}.", "Write `--bounds 0:1.25`."
        )
    kinds = {tensor.kind for tensor in plan.language_model}
    present = [part for part, kind in PARTS.items() if kind in kinds]
    layers = plan.layers
    if name == "global":
        parts = [Part(ALL, ((ALL, 0.0),))]
    elif name == "parts":
        parts = [Part(part, ((part, 0.0),)) for part in present]
    elif name == "parts+depth":
        parts = [
            Part(part, tuple((f"{part} {knot}", at) for knot, at in KNOTS))
            for part in present
            if part != "norms"
        ]
    elif name == "depth":
        parts = [Part(ALL, KNOTS)]
    else:
        at = depths(layers)
        parts = [Part(ALL, tuple((f"layer {i}", float(x)) for i, x in enumerate(at)))]
    if name != "global":
        parts += [Part(part, ((part, 0.0),)) for part in OUTSIDE if part in kinds]
    for part in fixed or {}:
        if part not in [each.name for each in parts]:
            raise ChatVecError(
                f"the space {name} has no part `{part}` to be fixed.",
                f"It has {', '.join(each.name for each in parts)}.",
            )
    chats = tuple(map(str, plan.roles.chats))
    space = Space(name, tuple(parts), chats, layers, low, high, tuple((fixed or {}).items()))
    if not space.numbers:
        raise ChatVecError("nothing is left to be searched.", "Fix fewer parts.")
    return space
