"""The models' tensors, read piece by piece and matched: the same element of each at the same place.

Checkpoints are mapped, so a piece is read when it is looked at. What has been read counts as memory
of this process as long as it is mapped, so every now and then all is let go of and mapped again.
Embeddings and head are matched by token where the recipe has `tokenizer:`, as the merge does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import torch
from mergekit.common import ModelReference
from torch import Tensor

from chatvec_method.anatomy.sums import ROW
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.plan import PlannedTensor
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.method.roles import Roles
from chatvec_method.method.vector import added_of
from chatvec_method.weights.matching import Matching
from chatvec_method.weights.reading import Reader

PIECE = 1 << 24
"""Elements in a piece, at most."""
MAPPED_BYTES = 1 << 29
"""So much may be read before all is let go of."""
RUN = 512
"""Neighbours that a sample takes together."""
SAMPLED_ROWS, ROW_RUN = 1024, 16
"""Rows of tokens that a sample looks at, at least, and how many of them are neighbours."""
CHECK = "Run `chatvec check`, which tells what to write."

Piece: TypeAlias = Mapping[ModelReference, Tensor]
"""Matrices of one shape."""


def reference_of(roles: Roles) -> ModelReference:
    """Return the model by whose norms vectors are measured: base, or cp where there is no base."""
    reference: ModelReference = next(iter(roles.bases), roles.cp)
    return reference


class Stream:
    """Opens the tensors of a survey's models, one after the other."""

    def __init__(self, survey: ReadySurvey) -> None:
        self.survey = survey
        self.models = survey.plan.roles.all
        self.reader = Reader(survey.plan.checkpoints, lazy_unpickle=True)
        vocabulary = survey.vocabulary
        self.matching = Matching(vocabulary, self.models) if vocabulary is not None else None
        self.read_since_mapped = 0

    def open(self, planned: PlannedTensor) -> Source:
        """Return a tensor of all models.

        Raises:
            ChatVecError: It is missing in a model, or has another shape there.
        """
        by_token = self.matching is not None and planned.weight.vocabulary_axis is not None
        return (_ByToken if by_token else Source)(self, planned)


class Source:
    """One tensor of all models."""

    def __init__(self, stream: Stream, planned: PlannedTensor) -> None:
        self.stream = stream
        self.planned = planned
        self._tensors = self._load()
        self._check_shapes()
        in_rows = planned.weight.vocabulary_axis is not None
        self.columns = self._first[0].numel() if in_rows else ROW

    @property
    def elements(self) -> int:
        """How many there are in each model."""
        return self._first.numel()

    @property
    def matrices(self) -> int:
        """Of how many matrices it consists: one for each expert, none if it is a vector."""
        shape = self._first.shape
        return math.prod(shape[:-2]) if len(shape) > 1 else 0

    def pieces(self) -> Iterator[Piece]:
        """Yield all of it, in pieces with rows of `columns` elements; the last may be shorter."""
        rows = self.elements // self.columns
        step = max(1, PIECE // self.columns)
        for start in range(0, rows, step):
            self._let_go()
            yield self._noted(self._rows(range(start, min(start + step, rows))))
        if rest := self.elements % self.columns:
            yield {m: tensor.reshape(-1)[-rest:][None] for m, tensor in self._tensors.items()}

    def matrix(self, which: int) -> Iterator[Piece]:
        """Yield one of its matrices, in pieces of whole rows."""
        rows, columns = self._first.shape[-2:]
        step = max(1, PIECE // columns)
        for start in range(0, rows, step):
            self._let_go()
            part = slice(start, start + step)
            yield self._noted(
                {m: t.reshape(-1, rows, columns)[which, part] for m, t in self._tensors.items()}
            )

    def sample(self, size: int, models: Sequence[ModelReference]) -> Piece:
        """Return some `size` elements of some models, from all over; all if there are no more."""
        flat = {model: self._tensors[model].reshape(-1) for model in models}
        count = self.elements // RUN
        chosen = _some(count, size // RUN)
        runs = {model: part[: count * RUN].view(count, RUN) for model, part in flat.items()}
        return {model: part.index_select(0, chosen) for model, part in runs.items()}

    def _load(self) -> dict[ModelReference, Tensor]:
        tensors = {}
        for model in self.stream.models:
            source = self.planned.sources.get(model)
            if source is None:
                raise ChatVecError(
                    f"model {model} has no tensor {self.planned.inputs[model].name}.", CHECK
                )
            tensors[model] = self.stream.reader.tensor(model, source)
        return tensors

    def _check_shapes(self) -> None:
        shapes = {model: list(self._compared(t).shape) for model, t in self._tensors.items()}
        first = reference_of(self.planned.roles)
        for model, shape in shapes.items():
            if shape != shapes[first]:
                raise ChatVecError(
                    f"{self.planned.name} has the shape {shape} in {model} and {shapes[first]} in "
                    f"{first}.",
                    CHECK,
                )

    @property
    def _first(self) -> Tensor:
        return self._tensors[reference_of(self.planned.roles)]

    def _compared(self, tensor: Tensor) -> Tensor:
        return tensor

    def _rows(self, rows: range) -> Piece:
        part = slice(rows.start * self.columns, rows.stop * self.columns)
        return {m: t.reshape(-1)[part].view(-1, self.columns) for m, t in self._tensors.items()}

    def _noted(self, piece: Piece) -> Piece:
        self.stream.read_since_mapped += sum(part.nbytes for part in piece.values())
        return piece

    def _let_go(self) -> None:
        """Map the files anew, if much has been read of them."""
        if self.stream.read_since_mapped >= MAPPED_BYTES and self._is_mapped:
            self._tensors.clear()
            self.stream.reader.let_go()
            self._tensors = self._load()
            self.stream.read_since_mapped = 0

    @property
    def _is_mapped(self) -> bool:
        """Whether to load it again costs nothing: no pickle, no experts that have to be joined."""
        models = [self.stream.survey.models[model] for model in self.stream.models]
        sources = [self.planned.sources[model] for model in self.stream.models]
        mapped = all(source is not None and source.mapped for source in sources)
        return mapped and not any(model.pickled for model in models)


class _ByToken(Source):
    """Embeddings or head, with a row for each of the output's tokens."""

    @property
    def elements(self) -> int:
        return len(self._matching.tokens) * self.columns

    def matrix(self, which: int) -> Iterator[Piece]:
        yield from self.pieces()

    def sample(self, size: int, models: Sequence[ModelReference]) -> Piece:
        runs = max(size // self.columns, SAMPLED_ROWS) // ROW_RUN
        chosen = _some(-(-len(self._matching.tokens) // ROW_RUN), runs).tolist()
        stride = max(1, len(chosen) * ROW_RUN * self.columns // size)
        some_columns = {model: rows[:, ::stride] for model, rows in self._by_row().items()}
        ranges = [slice(start * ROW_RUN, (start + 1) * ROW_RUN) for start in chosen]
        return {
            model: torch.cat([self._matched(model, some_columns, r) for r in ranges])
            for model in models
        }

    @property
    def _matching(self) -> Matching:
        assert self.stream.matching is not None
        return self.stream.matching

    def _compared(self, tensor: Tensor) -> Tensor:
        return tensor.select(self.planned.weight.vocabulary_axis or 0, 0)

    def _rows(self, rows: range) -> Piece:
        tensors, part = self._by_row(), slice(rows.start, rows.stop)
        return {m: self._matched(m, tensors, part) for m in self.stream.models}

    def _matched(
        self, model: ModelReference, tensors: Mapping[ModelReference, Tensor], rows: slice
    ) -> Tensor:
        """Return a model's rows; of a vector with tokens of its own, what chat's row adds there."""
        own = self._matching.matched(model, tensors, rows)
        base = self._matching.subtracted(model)
        if base is None:
            return own
        wide = torch.promote_types(own.dtype, torch.float32)
        return own.to(wide) - self._matching.matched(base, tensors, rows).to(wide)

    def _by_row(self) -> dict[ModelReference, Tensor]:
        axis = self.planned.weight.vocabulary_axis or 0
        by_row = {model: t.movedim(axis, 0).flatten(1) for model, t in self._tensors.items()}
        for vector in self.planned.roles.vectors:
            base, source = self._matching.subtracted(vector), self.planned.sources[vector]
            if base is not None and source is not None:
                added = self.stream.reader.added_rows(vector, source).movedim(axis, 0).flatten(1)
                by_row[added_of(vector)] = added
                by_row[base] = added.new_zeros((1, added.shape[1]))
        return by_row


def _some(of: int, count: int) -> Tensor:
    """Return places at random, always the same; all of them if there are no more than asked for."""
    if count >= of:
        return torch.arange(of)
    return torch.randint(of, (count,), generator=torch.Generator().manual_seed(0)).sort().values
