"""The ratios of recipes, as tables with bars for people and as data for `--json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import click
from mergekit.common import ModelReference
from rich.bar import Bar

from chatvec_method.cli.console import json_text, table
from chatvec_method.cli.layout import figures, prose
from chatvec_method.facts.plan import KINDS, MergePlan, ratio_table, slices_of

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

SHORTEST_BAR, LONGEST_BAR = 11, 24
BESIDE_BAR = 9
"""The width of a number before its bar, with the space around both."""
LABEL_WIDTH = 8


@dataclass(frozen=True)
class _Scale:
    """What bars are drawn to, so that all can be compared."""

    low: float
    high: float

    @classmethod
    def of(cls, ratios: Sequence[float]) -> _Scale:
        """Return a scale that has 0, 1 and all the ratios."""
        return cls(min(0.0, *ratios), max(1.0, *ratios))

    def bar(self, ratios: Sequence[float], width: int) -> RenderableType:
        """Return a bar from 0 to the ratio farthest from it."""
        end = max(ratios, key=abs, default=0.0)
        first, last = sorted((0.0 - self.low, end - self.low))
        return Bar(
            self.high - self.low, first, last, width=width, color="blue" if end >= 0 else "yellow"
        )


@dataclass(frozen=True)
class Vector:
    """A chat vector of a recipe, as shown."""

    recipe: str
    chat: ModelReference
    plan: MergePlan

    @property
    def ratios(self) -> Mapping[str, Mapping[int | None, list[float]]]:
        """The ratios by kind of tensor and layer."""
        return ratio_table(self.plan.language_model)[self.chat]

    @property
    def kinds(self) -> list[str]:
        """The kinds of tensors in its layers."""
        return [k for k in KINDS if any(layer is not None for layer in self.ratios.get(k, {}))]

    @property
    def outside(self) -> dict[str, float]:
        """The ratios of the tensors outside the layers."""
        tensors = self.plan.language_model
        return {t.name: t.ratios[self.chat] for t in tensors if t.layer is None}


def print_ratios(console: Console, plans: Sequence[tuple[str, MergePlan]]) -> None:
    """Print a table for each chat vector, those of two recipes side by side."""
    vectors = [[Vector(name, chat, plan) for chat in plan.roles.chats] for name, plan in plans]
    for i, row in enumerate(zip_longest(*vectors)):
        shown = [vector for vector in row if vector is not None]
        if i:
            console.print()
        _print_side_by_side(console, shown)


def print_json(plans: Sequence[tuple[str, MergePlan]]) -> None:
    """Print the ratios of recipes as JSON, by chat model, and by layer and kind of tensor."""
    data = [
        {
            "recipe": name,
            "layers": plan.layers,
            "vectors": [_vector_data(Vector(name, chat, plan)) for chat in plan.roles.chats],
        }
        for name, plan in plans
    ]
    click.echo(json_text(data))


def _vector_data(vector: Vector) -> dict[str, Any]:
    ratios = vector.ratios
    return {
        "chat": str(vector.chat),
        "outside": vector.outside,
        "layers": [
            {kind: ratios[kind][layer] for kind in vector.kinds if layer in ratios[kind]}
            for layer in range(vector.plan.layers)
        ],
    }


def _print_side_by_side(console: Console, vectors: Sequence[Vector]) -> None:
    letters = "AB" if len(vectors) > 1 else " "
    for letter, vector in zip(letters, vectors, strict=True):
        marked = f"{letter}: " if len(vectors) > 1 else ""
        prose(console, f"{marked}{vector.recipe}, ratio of {vector.chat}")
        named = ", ".join(f"{name} {ratio:.3g}" for name, ratio in vector.outside.items())
        prose(console, f"outside the layers: {named or 'nothing'}", indent=len(marked))
    _print_layers(console, list(zip(letters, vectors, strict=True)))


def _print_layers(console: Console, vectors: Sequence[tuple[str, Vector]]) -> None:
    columns = [(letter, vector, kind) for letter, vector in vectors for kind in vector.kinds]
    names = [f"{letter} {kind}".strip() for letter, _, kind in columns]
    layers = range(max(vector.plan.layers for _, vector in vectors))
    ends = {part.stop - 1 for _, vector in vectors for part in slices_of(vector.plan)}
    rows = [[vector.ratios[kind].get(layer, []) for _, vector, kind in columns] for layer in layers]
    room = (console.width - LABEL_WIDTH) // max(len(columns), 1) - BESIDE_BAR
    if room < SHORTEST_BAR or not _shows_bars(console):
        numbers = [[str(i), *map(_number, ratios)] for i, ratios in enumerate(rows)]
        figures(console, "", ["layer", *names], numbers, sorted(ends & set(layers)))
        return
    header = [part for name in names for part in ("", name)]
    drawn = table("", ["layer", *header], [], right=range(1, len(header) + 1, 2))
    scale = _Scale.of([r for _, v in vectors for by in v.ratios.values() for r in _all(by)])
    width = min(room, LONGEST_BAR)
    for layer, row in enumerate(rows):
        cells = [cell for ratios in row for cell in (_number(ratios), scale.bar(ratios, width))]
        drawn.add_row(str(layer), *cells, end_section=layer in ends)
    console.print(drawn)


def _shows_bars(console: Console) -> bool:
    return console.is_terminal and console.encoding.startswith("utf")


def _all(layers: Mapping[int | None, list[float]]) -> Iterator[float]:
    for ratios in layers.values():
        yield from ratios


def _number(ratios: Sequence[float]) -> str:
    if len(ratios) < 2:
        return "".join(f"{ratio:.3g}" for ratio in ratios)
    return f"{min(ratios):.3g}…{max(ratios):.3g}"
