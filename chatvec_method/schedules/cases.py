"""A schedule as the `ratio:` of a recipe: plain mergekit YAML, exact at every layer.

mergekit joins a list's numbers by straight lines over the depth, so a list has one number for each
layer. What stands outside the layers has no depth, and a list would give it its first number, so
embeddings, final norm and head have lines of their own above every list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from chatvec_method.errors import ChatVecError
from chatvec_method.schedules.shapes import Numbers
from chatvec_method.schedules.spec import Shape

DECIMALS = 6
ROWS = (12, 8, 6, 4)
"""How many numbers may stand in a row."""
ROW_WIDTH = 72
LONGEST_COMMENT = 50
MORE_PARTS = 3
"""Of how many parts of a name a filter may consist."""


@dataclass(frozen=True)
class Schedule:
    """A ratio for all tensors of a model."""

    rest: Shape
    """For all in the layers that has no shape of its own."""
    kinds: Mapping[str, Shape] = field(default_factory=dict)
    """For kinds of tensors in the layers: attention, MLP, norms."""
    embeddings: float | None = None
    """None for the number of the first layer."""
    head: float | None = None
    """None for the number of the last layer."""
    final_norm: float | None = None
    """None for the number of the last layer."""

    def ratio_of(self, layers: int) -> Callable[[Tensor], float]:
        """Return a function from a tensor to its ratio, in a model of so many layers."""
        rest = self.rest.numbers(layers)
        kinds = {kind: shape.numbers(layers) for kind, shape in self.kinds.items()}
        outside = {
            "embeddings": _first_known(self.embeddings, rest[0]),
            "head": _first_known(self.head, rest[-1]),
            "norms": _first_known(self.final_norm, rest[-1]),
        }

        def ratio(tensor: Tensor) -> float:
            if tensor.layer is None:
                return outside.get(tensor.kind, outside["embeddings"])
            return float(kinds.get(tensor.kind, rest)[tensor.layer])

        return ratio


@dataclass(frozen=True)
class Tensor:
    """What a ratio is for."""

    name: str
    """In the chat model."""
    kind: str
    """attention, MLP, norms, embeddings, head or other."""
    layer: int | None
    """Of the output; None for embeddings, head and final norm."""


@dataclass(frozen=True)
class Case:
    """One line of a `ratio:`."""

    filter: str | None
    """None for all that the lines above leave."""
    first: int | None
    """The first of the layers, of which each has a number; None if one number is for all."""
    numbers: tuple[str, ...]
    """As they are written."""
    comment: str

    def as_data(self) -> dict[str, object]:
        """Return what YAML reads of it."""
        numbers = [float(number) for number in self.numbers]
        named = {"filter": self.filter} if self.filter is not None else {}
        return {**named, "value": numbers[0] if self.first is None else numbers}

    def as_lines(self) -> Iterator[str]:
        """Yield it as YAML, rows of numbers with their layers."""
        width = len(max(self.numbers, key=len)) + 2
        count = next((n for n in ROWS if n * width <= ROW_WIDTH), ROWS[-1])
        if self.first is None or len(self.numbers) <= count:
            named = f"filter: {self.filter}, " if self.filter is not None else ""
            row = ", ".join(self.numbers)
            value = row if self.first is None else f"[{row}]"
            yield f"- {{{named}value: {value}}} # {self.comment}"
            return
        if self.filter is not None:
            yield f"- filter: {self.filter} # {self.comment}"
            yield "  value: ["
        else:
            yield f"- value: [ # {self.comment}"
        for start in range(0, len(self.numbers), count):
            numbers = self.numbers[start : start + count]
            first, last = self.first + start, self.first + start + len(numbers) - 1
            layers = f"layers {first} to {last}" if last > first else f"layer {first}"
            yield f"    {', '.join(numbers)}, # {layers}"
        yield "  ]"


def _llama() -> tuple[Tensor, ...]:
    inside = [(f"self_attn.{part}_proj", "attention") for part in "qkvo"]
    inside += [(f"mlp.{part}_proj", "MLP") for part in ("gate", "up", "down")]
    inside += [("input_layernorm", "norms"), ("post_attention_layernorm", "norms")]
    return (
        Tensor("model.embed_tokens.weight", "embeddings", None),
        *(Tensor(f"model.layers.0.{name}.weight", kind, 0) for name, kind in inside),
        Tensor("model.norm.weight", "norms", None),
        Tensor("lm_head.weight", "head", None),
    )


LLAMA = _llama()
"""The names in Llama, Mistral, Qwen, SOLAR and many others: those of one layer stand for all."""


def ratio_cases(
    schedule: Schedule, tensors: Sequence[Tensor], layers: int, part: range | None = None
) -> list[Case]:
    """Return the lines of a `ratio:` in which every tensor finds its number.

    Args:
        schedule: The numbers.
        tensors: Those that read the setting. One layer's may stand for all.
        layers: How many layers the output has.
        part: Those of them that the setting is for, if it is a slice's.

    Raises:
        ChatVecError: A shape does not fit, is for a kind of tensor that is not there, or for one
            that no filter can tell from the others.
    """
    part = range(layers) if part is None else part
    ratio_of = schedule.ratio_of(layers)
    inside = [tensor for tensor in tensors if tensor.layer is not None]
    cases = [
        Case(name, None, _written([ratio_of(tensor)]), _outside(tensor))
        for name, tensor in _outside_filters(tensors).items()
    ]
    left = inside
    for kind in sorted(schedule.kinds, key=("norms", "attention", "MLP").index):
        mine = [tensor.name for tensor in left if tensor.kind == kind]
        left = [tensor for tensor in left if tensor.kind != kind]
        if not mine:
            raise ChatVecError(
                f"the schedule has a shape for {kind}, and the models have no such tensors.",
                "Leave it out.",
            )
        shape = schedule.kinds[kind]
        for name in filters_of(kind, mine, [tensor.name for tensor in left]):
            cases.append(_over_layers(name, shape, layers, part, kind))
    rest = "the rest" if schedule.kinds else "all layers"
    cases.append(_over_layers(None, schedule.rest, layers, part, rest))
    return cases


def as_yaml(cases: Sequence[Case]) -> list[str]:
    """Return the lines of a `ratio:` as YAML, one number where all have the same."""
    if len({number for case in cases for number in case.numbers}) == 1:
        return [f"ratio: {cases[0].numbers[0]}"]
    return ["ratio:", *(f"  {line}" for case in cases for line in case.as_lines())]


def as_data(cases: Sequence[Case]) -> object:
    """Return what YAML reads of `as_yaml`'s lines behind `ratio:`."""
    if len({number for case in cases for number in case.numbers}) == 1:
        return float(cases[0].numbers[0])
    return [case.as_data() for case in cases]


def _over_layers(name: str | None, shape: Shape, layers: int, part: range, what: str) -> Case:
    numbers = _written(shape.numbers(layers)[part.start : part.stop])
    if len(set(numbers)) == 1:
        return Case(name, None, numbers[:1], what)
    text = shape.text if len(shape.text) <= LONGEST_COMMENT else shape.text.partition(":")[0]
    return Case(name, part.start, numbers, f"{what}, {text}")


def _written(numbers: Sequence[float] | Numbers) -> tuple[str, ...]:
    """Return numbers with as many decimals as the longest of them needs."""
    rounded = [round(float(number), DECIMALS) + 0.0 for number in numbers]  # -0.0 becomes 0.0
    texts = [np.format_float_positional(number, trim="0") for number in rounded]
    decimals = max(len(text.partition(".")[2]) for text in texts)
    return tuple(f"{number:.{decimals}f}" for number in rounded)


def _outside_filters(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return a filter for each module outside the layers: the shortest end of its name."""
    filters: dict[str, Tensor] = {}
    for tensor in tensors:
        if tensor.layer is not None:
            continue
        module, _, _ = tensor.name.rpartition(".")
        others = [t.name for t in tensors if t.name.rpartition(".")[0] != module]
        parts = module.split(".")
        ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        name = next((end for end in ends if not any(end in other for other in others)), tensor.name)
        filters.setdefault(name, tensor)
    return filters


def _outside(tensor: Tensor) -> str:
    return {"norms": "final norm", "other": "outside the layers"}.get(tensor.kind, tensor.kind)


def filters_of(kind: str, mine: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return filters that together match all of some names and none of others.

    Raises:
        ChatVecError: There are none; `kind` is what messages call these names.
    """
    possible = {
        ".".join(parts[start : start + count]): None
        for name in mine
        for parts in [name.removesuffix(".weight").split(".")]
        for count in range(1, MORE_PARTS + 1)
        for start in range(len(parts) - count + 1)
        if not any(part.isdigit() for part in parts[start : start + count])
    }
    safe = [part for part in possible if not any(part in other for other in others)]
    left, chosen = list(mine), []
    while left:
        best = max(safe, key=lambda part: sum(part in name for name in left), default="")
        covered = [name for name in left if best and best in name]
        if not covered:
            raise ChatVecError(
                f"the schedule has a shape for {kind}, and no filter tells {left[0]} from the "
                "other tensors.",
                "Leave it out.",
            )
        chosen.append(best)
        left = [name for name in left if name not in covered]
    return chosen


def _first_known(number: float | None, otherwise: float) -> float:
    return float(otherwise if number is None else number)
