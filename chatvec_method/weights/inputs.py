"""One tensor of a merge in all the models that its sum needs, a range of elements at a time."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from mergekit.common import ModelReference
from torch import Tensor

from chatvec_method.facts.checkpoint import Source
from chatvec_method.facts.plan import PlannedTensor
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.method.settings import weights_dtype
from chatvec_method.method.vector import added_of, base_of
from chatvec_method.weights.matching import Matching, TokenRows
from chatvec_method.weights.reading import Reader


class Inputs:
    """A tensor's elements, in the order in which the output has them.

    What is mapped is not read before it is asked for; rows that are dequantised or matched by token
    are never all in memory. What has to be converted is.
    """

    def __init__(
        self,
        survey: ReadySurvey,
        reader: Reader,
        matching: Matching | None,
        tensor: PlannedTensor,
    ) -> None:
        self.tensor = tensor
        self.shape = torch.Size(survey.headers[tensor.name].shape)
        cast = weights_dtype(tensor.weight.force_dtype or survey.recipe.config.dtype)
        axis = tensor.weight.vocabulary_axis
        self._elements: Mapping[ModelReference, _Elements]
        self.subtracted: dict[ModelReference, ModelReference] = {}
        """What is subtracted from vectors of which some rows are chat's own."""
        if matching is not None and axis is not None:
            for model in tensor.readers:
                if (base := matching.subtracted(model)) is not None:
                    self.subtracted[model] = base
            needed = [*tensor.readers, *self.subtracted.values()]
            rows = _MatchedRows(tensor, reader, matching, cast, needed)
            self._elements = {model: rows.of(model, self.shape) for model in needed}
        else:
            self._elements = {m: _elements(tensor, reader, m, cast) for m in tensor.readers}

    def part(self, elements: slice) -> dict[ModelReference, Tensor]:
        """Return some elements of each model that the sum needs, in a row.

        Args:
            elements: Which of them, from start to stop.
        """
        return {model: of_model(elements) for model, of_model in self._elements.items()}


_Elements: TypeAlias = Callable[[slice], Tensor]
"""Gives some elements of a tensor, in a row."""


def _elements(
    tensor: PlannedTensor, reader: Reader, model: ModelReference, cast: torch.dtype | None
) -> _Elements:
    source = tensor.sources[model]
    assert source is not None  # a model that lacks it is no reader
    if source.conversion is None and source.weights[0].quantised:
        return _in_rows(
            source.header.shape, lambda rows: _cast(reader.rows(model, source, rows), cast)
        )
    flat = reader.tensor(model, source).contiguous().view(-1)
    return lambda elements: _cast(flat[elements], cast)


def _cast(part: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return a part as mergekit loads it, where the recipe says in which dtype."""
    return part if dtype is None or not part.is_floating_point() else part.to(dtype)


def _in_rows(shape: tuple[int, ...], of_rows: Callable[[slice], Tensor]) -> _Elements:
    """Return what gives elements of a tensor of which only whole rows can be had.

    Each thread keeps the rows that it got last: those of an expert hold the next elements too.
    """
    width = math.prod(shape[1:])
    kept = threading.local()

    def elements(wanted: slice) -> Tensor:
        first, last = wanted.start // width, -(-wanted.stop // width)
        held: tuple[int, int, Tensor] | None = getattr(kept, "rows", None)
        if held is None or not held[0] <= first <= last <= held[1]:
            held = kept.rows = (first, last, of_rows(slice(first, last)).reshape(-1))
        start = held[0] * width
        return held[2][wanted.start - start : wanted.stop - start]

    return elements


@dataclass(frozen=True)
class _DequantisedRows:
    """The rows of packed embeddings or of a packed head, dequantised as they are asked for."""

    reader: Reader
    model: ModelReference
    source: Source
    cast: torch.dtype | None

    @property
    def dtype(self) -> torch.dtype:
        return self.cast or torch.float32

    @property
    def shape(self) -> torch.Size:
        return torch.Size(self.source.header.shape)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        return _cast(self.reader.rows(self.model, self.source, rows), self.cast)


class _MatchedRows:
    """The rows of embeddings or a head, matched by token."""

    def __init__(
        self,
        tensor: PlannedTensor,
        reader: Reader,
        matching: Matching,
        cast: torch.dtype | None,
        needed: Iterable[ModelReference],
    ) -> None:
        self.matching = matching
        self.axis = tensor.weight.vocabulary_axis or 0
        self._padding: dict[ModelReference, Tensor] = {}
        self._lock = threading.Lock()
        donors = frozenset[ModelReference]().union(*map(matching.donors, needed))
        self.tensors: dict[ModelReference, TokenRows] = {}
        for model, source in tensor.sources.items():
            if source is None:
                continue
            if model not in donors:  # it only says to which dtype the rows are promoted
                self.tensors[model] = torch.empty(0, dtype=cast or source.header.dtype)
            elif self.axis == 0 and reader.rows_stand_alone(model, source):
                self.tensors[model] = _DequantisedRows(reader, model, source, cast)
            else:
                whole = _cast(reader.tensor(model, source), cast)
                self.tensors[model] = whole.movedim(self.axis, 0)
            if matching.subtracted(model) is not None:
                self._note_vector(reader, model, source, cast)

    def _note_vector(
        self, reader: Reader, vector: ModelReference, source: Source, cast: torch.dtype | None
    ) -> None:
        """Note the rows that a vector adds, and its base's, which are filled in or zeros."""
        added = _cast(reader.added_rows(vector, source), cast).movedim(self.axis, 0)
        self.tensors[added_of(vector)] = added
        self.tensors[base_of(vector)] = added.new_zeros((1, *added.shape[1:]))

    def of(self, model: ModelReference, shape: torch.Size) -> _Elements:
        """Return what gives a model's elements, in the order of the output's tensor."""
        if self.axis == 0:
            return _in_rows(tuple(shape), lambda rows: self._rows(model, rows.start, rows.stop))
        whole = self._rows(model, 0, shape[self.axis])
        flat = whole.movedim(0, self.axis).contiguous().view(-1)
        return lambda elements: flat[elements]

    def _rows(self, model: ModelReference, first: int, last: int) -> Tensor:
        tokens = len(self.matching.tokens)
        rows = self.matching.matched(
            model, self.tensors, slice(first, max(first, min(last, tokens)))
        )
        if last <= tokens:
            return rows
        with self._lock:
            if model not in self._padding:
                self._padding[model] = self.matching.padding(model, self.tensors)
        pad = self._padding[model].expand(last - max(first, tokens), *rows.shape[1:])
        return torch.cat([rows, pad])
