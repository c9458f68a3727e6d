"""The sliders as a recipe: of each chat vector a ratio, parts of the model, a shape over depth.

The ratio of a tensor is the product of three numbers: the ratio itself, which scales all; that of
its part (attention, MLP, norms, embeddings, head); and that of its layer's depth. A product of
numbers other than 1 is rounded to 12 digits, so that 0.1 × 3 is 0.3; a number that somebody typed
stays what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from mergekit.common import ModelReference

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.models import without_commits
from chatvec_method.facts.plan import MergePlan, PlannedTensor
from chatvec_method.pictures.style import short, shown
from chatvec_method.recipe.file import Recipe
from chatvec_method.recipe.ratios import Reworded
from chatvec_method.schedules.any_ratio import with_ratio
from chatvec_method.schedules.cases import Schedule
from chatvec_method.schedules.shapes import Numbers, depths
from chatvec_method.schedules.spec import FORMS, Shape, names_a_file, parse_shape

PARTS = ("attention", "MLP", "norms", "embeddings", "head")
IN_LAYERS = ("attention", "MLP", "norms")
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Where the knots are: 0 is the first layer, 1 the last."""
RECIPE, FLAT, KNOTS = "recipe", "constant:1", "knots"
SHAPES = tuple(
    FORMS[name].example for name in ("linear", "cosine", "gaussian", "trapezoid", "middle")
)
"""Examples; their numbers can be written anew."""
DIGITS = 12
LONGEST_SHAPE = 2000
"""Characters."""
LONGEST_NAME = 28
REMEMBERED = 64
"""Settings."""


@dataclass(frozen=True)
class Knobs:
    """The sliders of one chat vector."""

    ratio: float
    """Which scales all."""
    shape: str = FLAT
    """Over the depth: as `chatvec schedule` takes it, RECIPE for the recipe's own, or KNOTS."""
    parts: Mapping[str, float] = field(default_factory=dict, hash=False)
    """What the ratio is times in parts of the model; 1 where none is given."""
    knots: tuple[float, ...] = (1.0,) * len(DEPTHS)
    """What it is times at DEPTHS, with straight lines between; for the shape KNOTS."""

    @property
    def label(self) -> str:
        """The sliders in a few characters: `0.625`, `1 × linear:1:0.3, MLP × 0.5`."""
        text = f"{self.ratio:.12g}"
        if self.shape == KNOTS:
            text += f" × [{', '.join(f'{knot:g}' for knot in self.knots)}]"
        elif self.shape != FLAT:
            text += f" × {short(self.shape, LONGEST_NAME)}"
        changed = [f"{part} × {times:g}" for part, times in self.parts.items() if times != 1]
        return ", ".join([text, *changed])


class Board:
    """All sliders of a recipe's merge."""

    def __init__(self, recipe: Recipe, plan: MergePlan) -> None:
        """Look at a recipe.

        Args:
            recipe: As it is written.
            plan: Of it.
        """
        self._recipe = recipe
        self._plan = plan
        self.chats: tuple[ModelReference, ...] = tuple(plan.roles.chats)
        self.parts = tuple(p for p in PARTS if any(t.kind == p for t in plan.language_model))
        self._has_others = any(
            t.kind == "other" and t.layer is not None for t in plan.language_model
        )
        self.first: tuple[Knobs, ...] = tuple(_first(plan, chat) for chat in self.chats)
        """Where the sliders stand for the recipe as it is written."""
        # One move of a slider asks several times, and a schedule over many layers takes a while.
        self._reworded = lru_cache(REMEMBERED)(self._computed)

    @property
    def names(self) -> tuple[str, ...]:
        """The chat models and vectors, as people call them."""
        return tuple(short(without_commits(chat)) for chat in self.chats)

    def label(self, board: Sequence[Knobs]) -> str:
        """Return a setting of all sliders in a few characters."""
        return " + ".join(knobs.label for knobs in board)

    def plan(self, reworded: Reworded) -> MergePlan:
        """Return the plan of the merge that the recipe then is."""
        return self._plan.with_ratios(reworded.config)

    def reworded(self, board: Sequence[Knobs]) -> Reworded:
        """Return the recipe with what the sliders say.

        Args:
            board: Of each chat vector, in the order of `chats`.

        Raises:
            ChatVecError: A shape is none, or does not fit these models.
        """
        return self._reworded(tuple(board))

    def _computed(self, board: tuple[Knobs, ...]) -> Reworded:
        if board == self.first:
            return Reworded(self._recipe)
        ratios = {
            str(chat): self._ratio(chat, knobs)
            for chat, knobs in zip(self.chats, board, strict=True)
        }
        return with_ratio(self._recipe, ratios, self._plan)

    def _ratio(self, chat: ModelReference, knobs: Knobs) -> float | Schedule:
        layers = self._plan.layers
        own = self._own(chat) if knobs.shape == RECIPE else None
        shape = _over_depth(knobs, layers) if own is None else None

        def times(part: str, depth: Numbers | float | None) -> Any:
            return _product(knobs.ratio, knobs.parts.get(part, 1.0), depth)

        def inside(part: str) -> Numbers:
            numbers: Numbers = times(part, own[part] if own is not None else shape)
            return numbers

        def outside(part: str, layer: int, name: str) -> float:
            depth = own[name][0] if own is not None else shape[layer]  # type: ignore[index]
            return float(times(part, float(depth)))

        kinds = {part: inside(part) for part in IN_LAYERS if part in self.parts}
        rest = inside("") if own is None and self._has_others else next(iter(kinds.values()))
        ends = {
            "embeddings": outside("embeddings", 0, "embeddings"),
            "head": outside("head", layers - 1, "head"),
            "final_norm": outside("norms", layers - 1, "final norm"),
        }
        everywhere = {*rest.tolist(), *ends.values()}
        everywhere.update(*(numbers.tolist() for numbers in kinds.values()))
        if len(everywhere) == 1:
            return float(everywhere.pop())
        varied = {p: _shape(each) for p, each in kinds.items() if not np.array_equal(each, rest)}
        return Schedule(_shape(rest), varied, **ends)

    def _own(self, chat: ModelReference) -> dict[str, Numbers]:
        """Return the recipe's own ratios: of each part in the layers, and of what is outside.

        Raises:
            ChatVecError: Tensors of one part have several in one layer, so no slider can be theirs.
        """
        layers = self._plan.layers
        seen: dict[tuple[str, int | None], set[float]] = {}
        for tensor in self._plan.language_model:
            seen.setdefault((_part(tensor), tensor.layer), set()).add(tensor.ratios[chat])
        for (part, layer), ratios in seen.items():
            if len(ratios) > 1:
                raise ChatVecError(
                    f"the recipe gives the {part} of layer {layer} several ratios, and a slider "
                    "has one.",
                    "Choose another shape.",
                )
        own = {}
        for part in {part for part, _ in seen}:
            at = {layer: ratios for (name, layer), ratios in seen.items() if name == part}
            where = [None] if None in at else range(layers)
            nearest = next(iter(at.values()))
            own[part] = np.array([next(iter(at.get(layer, nearest))) for layer in where])
        anywhere = next(own[part] for part in IN_LAYERS if part in own)
        ends = {"embeddings": anywhere[:1], "head": anywhere[-1:], "final norm": anywhere[-1:]}
        return {**ends, **own}


def knobs_of(
    ratio: float, shape: str, parts: Mapping[str, float], knots: tuple[float, ...]
) -> Knobs:
    """Return sliders without those that change nothing, so that settings that are one are equal."""
    changed = {part: times for part, times in parts.items() if times != 1}
    return Knobs(ratio, shape, changed, knots) if shape == KNOTS else Knobs(ratio, shape, changed)


def checked_shape(text: str) -> str:
    """Return a shape as somebody wrote it.

    Raises:
        ChatVecError: It is none, or it would have a file of this machine read.
    """
    text = text.strip()
    if text in (RECIPE, KNOTS):
        return text
    if len(text) > LONGEST_SHAPE:
        raise ChatVecError("the shape is too long.", f"Write {LONGEST_SHAPE} characters at most.")
    if names_a_file(text):
        raise ChatVecError(
            "no files are read here.", "Write the numbers: `per-layer:1,0.8,0.6,…`, one a layer."
        )
    parse_shape(text)
    return text


def _first(plan: MergePlan, chat: ModelReference) -> Knobs:
    ratios = {tensor.ratios[chat] for tensor in plan.tensors if chat in tensor.ratios}
    return Knobs(ratios.pop()) if len(ratios) == 1 else Knobs(1.0, RECIPE)


def _over_depth(knobs: Knobs, layers: int) -> Numbers:
    if knobs.shape == KNOTS:
        return np.interp(depths(layers), DEPTHS, knobs.knots)
    return parse_shape(checked_shape(knobs.shape)).numbers(layers)


def _product(ratio: float, part: float, depth: Numbers | float | None) -> Any:
    """Return a product, in which a factor of 1 changes no bit of the other ones."""
    product = ratio * part * np.asarray(depth, dtype=np.float64)
    others = np.count_nonzero(np.array([ratio != 1, part != 1])) + (np.asarray(depth) != 1)
    exact = np.where(others <= 1, product, np.vectorize(_rounded)(product))
    return exact if exact.ndim else float(exact)


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def _shape(numbers: Numbers) -> Shape:
    values = numbers.copy()
    return Shape(", ".join(shown(each) for each in values), lambda _: values)


def _part(tensor: PlannedTensor) -> str:
    return "final norm" if tensor.kind == "norms" and tensor.layer is None else tensor.kind
