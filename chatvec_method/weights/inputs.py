"""One tensor of a merge in all the models that its sum needs, a range of elements at a time."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import torch
from mergekit.common import ModelReference
from torch import Tensor

from chatvec_method.facts.plan import PlannedTensor
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.method.settings import weights_dtype
from chatvec_method.weights.matching import Matching
from chatvec_method.weights.reading import Reader


class Inputs:
    """A tensor's elements, in the order in which the output has them.

    What is mapped is not read before it is asked for, and rows that are matched by token are never
    all in memory; what has to be dequantised or converted is.
    """

    def __init__(
        self,
        survey: ReadySurvey,
        reader: Reader,
        matching: Matching | None,
        tensor: PlannedTensor,
    ) -> None:
        self.tensor = tensor
        self.readers = tensor.readers
        self.shape = torch.Size(survey.headers[tensor.name].shape)
        axis = tensor.weight.vocabulary_axis
        self._matching = matching if axis is not None else None
        self._cast = weights_dtype(tensor.weight.force_dtype or survey.recipe.config.dtype)
        self._tensors: dict[ModelReference, Tensor] = {}
        for model in self._needed():
            source = tensor.sources.get(model)
            if source is not None:
                self._tensors[model] = reader.tensor(model, source)
        if self._matching is None:
            self._flat = {m: self._tensors[m].contiguous().view(-1) for m in self.readers}
        else:
            # The vocabulary's axis comes first here, and goes back where all of it is asked for.
            self._tensors = {
                model: tensor_.movedim(axis or 0, 0) for model, tensor_ in self._tensors.items()
            }
            if self._cast is not None:
                self._tensors = {m: t.to(self._cast) for m, t in self._tensors.items()}
            self._padding: dict[ModelReference, Tensor] = {}
            self._lock = threading.Lock()
            if axis:
                whole = {m: self._rows(m, 0, self.shape[axis]) for m in self.readers}
                self._flat = {
                    model: rows.movedim(0, axis).contiguous().view(-1)
                    for model, rows in whole.items()
                }
                self._matching = None

    def part(self, elements: slice) -> Mapping[ModelReference, Tensor]:
        """Return some elements of each model that the sum needs, in a row.

        Args:
            elements: Which of them, from start to stop.
        """
        if self._matching is None:
            parts = {model: flat[elements] for model, flat in self._flat.items()}
            return (
                parts if self._cast is None else {m: self._as_loaded(p) for m, p in parts.items()}
            )
        width = self.shape[1:].numel()
        first, last = elements.start // width, -(-elements.stop // width)
        inside = slice(elements.start - first * width, elements.stop - first * width)
        return {model: self._rows(model, first, last).reshape(-1)[inside] for model in self.readers}

    def _as_loaded(self, part: Tensor) -> Tensor:
        return part.to(self._cast) if part.is_floating_point() else part

    def _needed(self) -> list[ModelReference]:
        """Return the models whose tensor is read, those included that only give some rows."""
        if self._matching is None:
            return list(self.readers)
        donors = frozenset[ModelReference]().union(*map(self._matching.donors, self.readers))
        # All of them say to which dtype the rows are promoted, which costs nothing to know.
        return [m for m in self._matching.models if m in donors or m in self.tensor.sources]

    def _rows(self, model: ModelReference, first: int, last: int) -> Tensor:
        assert self._matching is not None
        tokens = len(self._matching.tokens)
        rows = self._matching.matched(model, self._tensors, slice(first, min(last, tokens)))
        if last <= tokens:
            return rows
        with self._lock:
            if model not in self._padding:
                self._padding[model] = self._matching.padding(model, self._tensors)
        pad = self._padding[model].expand(last - max(first, tokens), *rows.shape[1:])
        return torch.cat([rows, pad])
