"""The models' tensors, read piece by piece and matched: the same element of each at the same place.

Checkpoints are mapped, so a piece is read when it is looked at. What has been read counts as memory
of this process as long as it is mapped, so every now and then all is let go of and mapped again.
Embeddings and head are matched by token where the recipe has `tokenizer:`, as the merge does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

import torch
from mergekit.common import ModelReference
from torch import Tensor

from chatvec_method.anatomy.sums import ROW
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.plan import PlannedTensor
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.facts.vocabulary import Rows
from chatvec_method.weights.reading import Reader

PIECE = 1 << 24
"""Elements in a piece, at most."""
MAPPED_BYTES = 1 << 29
"""So much may be read before all is let go of."""
RUN, SAMPLED_ROWS = 512, 1024
"""Neighbours that a sample takes together, and rows of tokens that it looks at, at least."""
CHECK = "Run `chatvec check`, which tells what to write."

Piece: TypeAlias = Mapping[ModelReference, Tensor]
"""Matrices of one shape."""


@dataclass(frozen=True)
class Matching:
    """Where the rows that stand for the output's tokens are, in each model."""

    tokens: tuple[str, ...]
    """By id."""
    donors: Mapping[ModelReference, Tensor]
    """Whose row stands for a token in a model: an index of the models, -1 where none or several
    do."""
    indices: Mapping[ModelReference, Tensor]
    """And which one."""
    several: Mapping[ModelReference, Mapping[int, Rows]]
    """Tokens for which the mean of several rows stands, or zeros."""


def matching_of(survey: ReadySurvey, models: Sequence[ModelReference]) -> Matching | None:
    """Return where the tokens' rows are; None where a merge matches rows by position."""
    vocabulary = survey.vocabulary
    if vocabulary is None:
        return None
    tokens = tuple(sorted(vocabulary.ids, key=vocabulary.ids.__getitem__))
    ids = torch.tensor([vocabulary.ids[token] for token in tokens])
    config = survey.recipe.config.tokenizer
    named = set((config and config.tokens) or ())
    donors: dict[ModelReference, Tensor] = {}
    indices: dict[ModelReference, Tensor] = {}
    several: dict[ModelReference, dict[int, Rows]] = {}
    for place, model in enumerate(models):
        # Nearly all tokens are a model's own, and there may be hundreds of thousands.
        own = vocabulary.original_ids.get(model, {})
        several[model] = {}
        if own == vocabulary.ids and not named:
            donors[model] = torch.full((len(tokens),), place)
            indices[model] = ids
            continue
        found = [(place, own.get(token, -1)) for token in tokens]
        for i, token in enumerate(tokens):
            if token in named or token not in own:
                rows = vocabulary.sources(model, token)
                if len(rows) == 1:
                    found[i] = (models.index(rows[0].model), rows[0].index)
                else:
                    found[i], several[model][i] = (-1, -1), rows
        donors[model], indices[model] = torch.tensor(found).T
    return Matching(tokens, donors, indices, several)


class Stream:
    """Opens the tensors of a survey's models, one after the other."""

    def __init__(self, survey: ReadySurvey) -> None:
        self.survey = survey
        self.models = survey.plan.roles.all
        self.reader = Reader(survey.plan.checkpoints, lazy_unpickle=True)
        self.matching = matching_of(survey, self.models)
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
        base = self._tensors[planned.roles.base]
        in_rows = planned.weight.vocabulary_axis is not None
        self.columns = base[0].numel() if in_rows else ROW

    @property
    def elements(self) -> int:
        """How many there are in each model."""
        return self._tensors[self.planned.roles.base].numel()

    @property
    def dtypes(self) -> list[torch.dtype]:
        """The tensor's dtype in each model."""
        return [tensor.dtype for tensor in self._tensors.values()]

    @property
    def matrices(self) -> int:
        """Of how many matrices it consists: one for each expert, none if it is a vector."""
        shape = self._tensors[self.planned.roles.base].shape
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
        rows, columns = self._tensors[self.planned.roles.base].shape[-2:]
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
        base = self.planned.roles.base
        for model, shape in shapes.items():
            if shape != shapes[base]:
                raise ChatVecError(
                    f"{self.planned.name} has the shape {shape} in {model} and {shapes[base]} in "
                    f"{base}.",
                    CHECK,
                )

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
        rows = _some(len(self._matching.tokens), max(size // self.columns, SAMPLED_ROWS))
        stride = max(1, len(rows) * self.columns // size)
        columns = slice(None, None, stride)
        return {model: self._matched(model, rows, columns) for model in models}

    @property
    def _matching(self) -> Matching:
        assert self.stream.matching is not None
        return self.stream.matching

    def _compared(self, tensor: Tensor) -> Tensor:
        return tensor.select(self.planned.weight.vocabulary_axis or 0, 0)

    def _rows(self, rows: range) -> Piece:
        chosen = torch.arange(rows.start, rows.stop)
        return {model: self._matched(model, chosen) for model in self.stream.models}

    def _matched(
        self, model: ModelReference, chosen: Tensor, columns: slice = slice(None)
    ) -> Tensor:
        """Return the rows that stand for some tokens in a model, or some columns of them."""
        models, matching = self.stream.models, self._matching
        by_row = {m: self._by_row(tensor)[:, columns] for m, tensor in self._tensors.items()}
        donors, indices = matching.donors[model][chosen], matching.indices[model][chosen]
        if bool((donors == models.index(model)).all()):
            own, in_a_row = by_row[model], bool((indices.diff() == 1).all())
            return own[indices[0] : indices[-1] + 1] if in_a_row else own.index_select(0, indices)
        # As mergekit does it: in the dtype that all models' promote to, in the models' order.
        dtype = reduce(torch.promote_types, (tensor.dtype for tensor in by_row.values()))
        found = torch.zeros((len(chosen), by_row[model].shape[1]), dtype=dtype)
        for i, donor in enumerate(models):
            theirs = donors == i
            found[theirs] = by_row[donor][indices[theirs]].to(dtype)
        for place in (donors < 0).nonzero().flatten().tolist():
            rows = matching.several[model][int(chosen[place])]
            for row in rows:
                found[place] += by_row[row.model][row.index].to(dtype)
            found[place] /= max(len(rows), 1)
        return found

    def _by_row(self, tensor: Tensor) -> Tensor:
        return tensor.movedim(self.planned.weight.vocabulary_axis or 0, 0).flatten(1)


def _some(of: int, count: int) -> Tensor:
    """Return places at random, always the same; all of them if there are no more than asked for."""
    if count >= of:
        return torch.arange(of)
    return torch.randint(of, (count,), generator=torch.Generator().manual_seed(0)).sort().values
