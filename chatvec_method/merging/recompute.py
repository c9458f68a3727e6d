"""An output's elements computed again from the models, a block at a time, and compared bit by bit.

The inputs and the formula are the merge's own (`weights.sums.Sum`): equal bits are due whoever
wrote the output, `chatvec merge` or stock mergekit. What stock mergekit writes joined, experts for
one, is joined here by transformers' own operations, a tensor at a time.
"""

from __future__ import annotations

import math
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from mergekit.common import ModelReference
from torch import Tensor

from chatvec_method.errors import DIFFERS, ChatVecError
from chatvec_method.facts.layout import Conversion
from chatvec_method.facts.models import TensorHeader
from chatvec_method.facts.plan import PlannedTensor
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.merging.streaming import merges_of, part_length
from chatvec_method.weights.matching import matching_of
from chatvec_method.weights.read_ahead import read_ahead
from chatvec_method.weights.reading import Reader
from chatvec_method.weights.stored import StoredTensors
from chatvec_method.weights.sums import Sum
from chatvec_method.workers import Workers, workers

INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By size, to look at the bits of an element."""
NUMBER = re.compile(r"\d+")
FIX = (
    "Merge again; if it is wrong again, report it with the recipe and the versions of "
    "chatvec-method, mergekit and torch."
)
ADAPTER_FIX = (
    "Stock mergekit rounds a model with its adapter before it subtracts; `chatvec merge` does not."
)


@dataclass(frozen=True)
class Piece:
    """A tensor that lies in an output, and what of the plan is in it."""

    name: str
    header: TensorHeader
    """What it should be."""
    planned: tuple[PlannedTensor, ...]
    """One, or several that stock mergekit joins."""
    conversion: Conversion | None = None
    """How they are joined."""
    parameter: str = ""
    """Which of the conversion's results it is."""


def pieces(stored: Mapping[str, TensorHeader], survey: ReadySurvey) -> tuple[Piece, ...]:
    """Return what a recipe's output consists of, by the names that it has in these files.

    Tensors that are in none of them are left out.

    Args:
        stored: The tensors of the output.
        survey: Of the recipe.
    """
    whole: dict[str, Piece] = {}
    joined: dict[str, list[PlannedTensor]] = defaultdict(list)
    for tensor in survey.plan.tensors:
        if tensor.name in stored:
            header = survey.headers[tensor.name]
            whole[tensor.name] = Piece(tensor.name, header, (tensor,))
        elif tensor.in_stock is not None and tensor.in_stock in stored:
            joined[tensor.in_stock].append(tensor)
    for name, planned in joined.items():
        whole[name] = _joined(name, planned, survey)
    return tuple(whole.values())


def _joined(name: str, planned: list[PlannedTensor], survey: ReadySurvey) -> Piece:
    header = survey.headers[planned[0].name]
    checkpoint = survey.plan.checkpoints[survey.plan.roles.cp]
    source = planned[0].sources[survey.plan.roles.cp]
    assert source is not None
    assert checkpoint.layout is not None  # without it, stock mergekit renames nothing
    like = NUMBER.sub("", name)
    for parameter in checkpoint.parameters_of(source):
        conversion = checkpoint.layout.conversions.get(parameter)
        if conversion is not None and NUMBER.sub("", parameter) == like:
            shape, _ = checkpoint.layout.shapes[parameter]
            whole = TensorHeader(header.dtype, shape, "")
            return Piece(name, whole, tuple(planned), conversion, parameter)
    return Piece(name, header, (planned[0],))


def recompute(
    stored: StoredTensors,
    survey: ReadySurvey,
    reader: Reader,
    tokens: Mapping[str, int],
    *,
    elements_per_tensor: int | None = None,
    on_bytes: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Compute elements of an output again, and return how many: each of them is the same.

    Args:
        stored: The output.
        survey: Of the recipe, with all models' files here.
        reader: Of the models' files.
        tokens: The output's, by which rows are matched.
        elements_per_tensor: How many of each tensor, in a row, from a place by chance; None for
            all of them.
        on_bytes: Is told how many bytes of the output have been compared, and how many there are.

    Raises:
        ChatVecError: An element is another, of which tensor, and how far off; or a model's weights
            are at fault.
    """
    parts = pieces(stored.headers, survey)
    planned = [tensor for piece in parts for tensor in piece.planned]
    total = sum(stored.headers[piece.name].bytes for piece in parts)
    merges = merges_of(survey, planned, reader, matching_of(survey), [_device(survey)])
    done = compared = 0
    with ExitStack() as opened:
        at_work = opened.enter_context(workers())
        reading: Callable[[str], None] = lambda _: None  # noqa: E731
        if elements_per_tensor is None:
            reading = opened.enter_context(read_ahead(survey, planned))
        for piece in parts:
            reading(piece.planned[0].name)
            sums = [next(merges) for _ in piece.planned]
            elements = _some(piece, elements_per_tensor)
            _compare(_Comparison(piece, sums, stored, at_work, tokens), elements)
            compared += elements.stop - elements.start
            done += stored.headers[piece.name].bytes
            on_bytes(done, total)
    return compared


def _device(survey: ReadySurvey) -> torch.device:
    """Return where sums are computed again: not where they were, unless that knows no float64."""
    device = torch.device(survey.options.device)
    return device if device.type == "mps" else torch.device("cpu")


def _some(piece: Piece, count: int | None) -> slice:
    size = math.prod(piece.header.shape)
    if count is None or size <= count:
        return slice(0, size)
    start = random.Random(piece.name).randrange(size - count)
    return slice(start, start + count)


@dataclass(frozen=True)
class _Comparison:
    """A tensor of an output, and what it should be."""

    piece: Piece
    sums: list[Sum]
    stored: StoredTensors
    at_work: Workers
    tokens: Mapping[str, int]

    def expected(self, elements: slice) -> Callable[[slice], Tensor]:
        """Return what computes a part of some elements."""
        if self.piece.conversion is None:
            return lambda part: _part(self.sums[0], part)
        cp = self.sums[0].cp
        tensors: dict[str, Tensor] = {}
        for tensor, merge in zip(self.piece.planned, self.sums, strict=True):
            source = tensor.sources[cp]
            assert source is not None
            parts = self.at_work.pool.map(
                lambda part, merge=merge: _part(merge, part).clone(),
                _parts(slice(0, merge.shape.numel()), merge.dtype),
            )
            tensors[source.weights[0].name] = torch.cat([*parts]).view(merge.shape)
        whole = self.piece.conversion.parameters(tensors)[self.piece.parameter]
        flat = whole.to(self.piece.header.dtype).contiguous().view(-1)
        return lambda part: flat[part]


@dataclass(frozen=True)
class _Difference:
    """Elements of a part that are not what they should be."""

    first: int
    count: int
    largest: float
    """The largest distance of one from what it should be."""


def _compare(of: _Comparison, elements: slice) -> None:
    expected = of.expected(elements)

    def difference(part: slice) -> _Difference | None:
        here = of.stored.elements(of.piece.name, part)
        due = expected(part)
        wrong = _bits(here) != _bits(due)
        if not wrong.any():
            return None
        off = (here[wrong].double() - due[wrong].double()).abs()
        return _Difference(part.start + int(wrong.nonzero()[0]), int(wrong.sum()), float(off.max()))

    parts = list(_parts(elements, of.piece.header.dtype))
    differences = [each for each in of.at_work.pool.map(difference, parts) if each is not None]
    if differences:
        raise _is_wrong(of, differences, expected)


def _parts(elements: slice, dtype: torch.dtype) -> Iterator[slice]:
    length = part_length(dtype)
    for start in range(elements.start, elements.stop, length):
        yield slice(start, min(start + length, elements.stop))


def _part(merge: Sum, part: slice) -> Tensor:
    out = torch.empty(part.stop - part.start, dtype=merge.dtype, device=merge.device)
    return merge.part(part, out).cpu()


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(INTEGERS[tensor.itemsize])


def _ordered(element: Tensor) -> int:
    """Return integers in the order of the floating-point numbers, neighbours one apart."""
    bits = int(_bits(element))
    return bits if bits >= 0 else -(1 << (8 * element.itemsize - 1)) - bits


def _is_wrong(
    of: _Comparison, differences: list[_Difference], expected: Callable[[slice], Tensor]
) -> ChatVecError:
    """Say which element is wrong, by how much, and what of."""
    first = differences[0].first
    element = slice(first, first + 1)
    here, due = of.stored.elements(of.piece.name, element), expected(element)
    digits = 9 if here.itemsize > 2 else 6
    values = f"the output has {float(here):.{digits}g}, and the recipe says {float(due):.{digits}g}"
    steps = ""
    if here.is_floating_point() and here.itemsize > 1 and here.isfinite():
        apart = abs(_ordered(here) - _ordered(due))  # of 0 and -0 none
        steps = f", {apart} rounding step{'s' if apart != 1 else ''} away" if apart else ""
    calculation = "" if of.piece.conversion else f", from {_calculation(of, element)}"
    count = sum(each.count for each in differences)
    largest = max(each.largest for each in differences)
    of_all = f" {count} elements of the tensor differ, by up to {largest:.3g}."
    return ChatVecError(
        f"{of.piece.name}, {_place(of, first)}: {values}{steps}{calculation}."
        f"{of_all if count > 1 else ''}",
        ADAPTER_FIX if any(model.lora for model in of.sums[0].inputs(element)) else FIX,
        DIFFERS,
    )


def _place(of: _Comparison, element: int) -> str:
    shape = of.piece.header.shape or (1,)
    where = [int(i) for i in torch.unravel_index(torch.tensor(element), shape)]
    axis = of.piece.planned[0].weight.vocabulary_axis
    if axis is not None and not of.piece.conversion:
        row = where[axis]
        token = next((token for token, i in of.tokens.items() if i == row), None)
        if token is not None:
            return f"the row of token {token!r}, element {where[1 - axis] if len(where) > 1 else 0}"
    return f"element {where}"


def _calculation(of: _Comparison, element: slice) -> str:
    (tensor,), (merge,) = of.piece.planned, of.sums
    inputs = merge.inputs(element)

    def value(model: ModelReference) -> str:
        return f"{float(inputs[model]):.6g} of {model}"

    roles = tensor.roles
    vectors = [
        f"{tensor.ratios[chat]:g} · {value(chat)}"
        if chat in roles.vectors
        else f"{tensor.ratios[chat]:g} · ({value(chat)} − {value(roles.base)})"
        for chat in roles.chats
        if chat in inputs
    ]
    return " + ".join([value(roles.cp), *vectors])
