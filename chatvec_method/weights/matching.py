"""Rows of embeddings matched by token: the one place where it is done for whole tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Protocol

import torch
from mergekit.common import ModelReference
from torch import Tensor

from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.facts.vocabulary import Rows, Vocabulary
from chatvec_method.method.vector import added_of, base_of


class TokenRows(Protocol):
    """A model's rows for its tokens, of which some are asked for at a time, as of a tensor."""

    @property
    def dtype(self) -> torch.dtype:
        """In which they come."""

    @property
    def shape(self) -> torch.Size:
        """Of all of them."""

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor:
        """Return some rows, by their numbers or from the first to the last."""


NOBODY, SEVERAL = -1, -2
"""In place of the model whose row it is: a row of zeros, and the mean of several."""


class Matching:
    """Which row of which model stands for each token of the output, in each model.

    What mergekit does token by token (tokenizer/embed.py) is done here for ranges of rows, with the
    same results to the bit: in the dtype that all models' embeddings promote to, means summed up in
    the models' order, and rows that only pad filled with the mean of all others.
    """

    def __init__(self, vocabulary: Vocabulary, models: Sequence[ModelReference]) -> None:
        """Match the output's tokens.

        Args:
            vocabulary: The output's, whose tokens are numbered from 0 on.
            models: All models, in the recipe's order. Each vector among them is followed by the
                rows that it adds and by its base, as if those were models, too.
        """
        self.vectors = frozenset(vocabulary.added)
        self._adding = {vector for vector, tokens in vocabulary.added.items() if tokens}
        self.models = tuple(
            each
            for model in models
            for each in (
                (model, added_of(model), base_of(model)) if model in self._adding else (model,)
            )
        )
        self.rows = vocabulary.rows
        self.tokens = tuple(sorted(vocabulary.ids, key=vocabulary.ids.__getitem__))
        self._owners: dict[ModelReference, Tensor] = {}
        self._indices: dict[ModelReference, Tensor] = {}
        self._several: dict[ModelReference, dict[int, Rows]] = {}
        places = {model: place for place, model in enumerate(self.models)}
        for place, model in enumerate(self.models):
            if model in map(added_of, self._adding):  # gives rows, and is asked for none
                continue
            owners, indices, several = [], [], {}
            own = vocabulary.own(model)
            for i, token in enumerate(self.tokens):
                if token in own:  # as nearly all are, and there may be hundreds of thousands
                    owners.append(place)
                    indices.append(own[token])
                    continue
                rows = vocabulary.sources(model, token)
                if len(rows) == 1:
                    owners.append(places[rows[0].model])
                    indices.append(rows[0].index)
                else:
                    owners.append(SEVERAL if rows else NOBODY)
                    indices.append(0)
                    if rows:
                        several[i] = rows
            self._owners[model] = torch.tensor(owners)
            self._indices[model] = torch.tensor(indices)
            self._several[model] = several

    def subtracted(self, chat: ModelReference) -> ModelReference | None:
        """Return what stands for the base of a vector that adds tokens; None for other chats."""
        return base_of(chat) if chat in self._adding else None

    def donors(self, model: ModelReference) -> frozenset[ModelReference]:
        """Return the models whose rows stand for some token in a model."""
        single = {self.models[i] for i in self._owners[model].unique().tolist() if i >= 0}
        mean = {row.model for rows in self._several[model].values() for row in rows}
        return frozenset(single | mean)

    def matched(
        self, model: ModelReference, tensors: Mapping[ModelReference, TokenRows], rows: slice
    ) -> Tensor:
        """Return some rows that stand for the output's tokens in a model.

        Args:
            model: The model.
            tensors: Of all models that have it, each (rows, ...), their vocabulary's axis first.
            rows: Which rows of the output; those beyond its tokens are `padding`'s.

        Returns:
            A tensor (rows, ...) in the dtype that all of `tensors` promote to, vectors apart; a
            vector's in one that holds it, too.
        """
        dtype = reduce(
            torch.promote_types, (t.dtype for m, t in tensors.items() if m not in self.vectors)
        )
        if model in self.vectors:
            dtype = torch.promote_types(dtype, tensors[model].dtype)
        owners, indices = self._owners[model][rows], self._indices[model][rows]
        own = tensors[model]
        place = self.models.index(model)
        if bool((owners == place).all()):
            return self._own(own, indices).to(dtype)
        out = torch.zeros((len(owners), *own.shape[1:]), dtype=dtype)
        for donor in owners.unique().tolist():
            if donor >= 0 and self.models[donor] in tensors:
                theirs = owners == donor
                out[theirs] = tensors[self.models[donor]][indices[theirs]].to(dtype)
        for i in (owners == SEVERAL).nonzero().flatten().tolist():
            out[i] = self._mean(self._several[model][rows.start + i], tensors, dtype)
        return out

    def padding(self, model: ModelReference, tensors: Mapping[ModelReference, TokenRows]) -> Tensor:
        """Return the row that fills up a model's rows beyond the output's tokens.

        Holds all matched rows of that model for a moment, as their mean is rounded as one.
        """
        return self.matched(model, tensors, slice(0, len(self.tokens))).mean(dim=0)

    def _own(self, rows: TokenRows, indices: Tensor) -> Tensor:
        if len(indices) and bool((indices.diff() == 1).all()):
            first, last = int(indices[0]), int(indices[-1])
            if last < rows.shape[0]:
                return rows[first : last + 1]
        return rows[indices]

    def _mean(
        self, rows: Rows, tensors: Mapping[ModelReference, TokenRows], dtype: torch.dtype
    ) -> Tensor:
        # In mergekit's order, which decides how sums in half precision are rounded.
        ordered = sorted(rows, key=lambda row: self.models.index(row.model))
        held = [row for row in ordered if row.model in tensors]
        parts = [tensors[row.model][row.index : row.index + 1][0].to(dtype) for row in held]
        total = torch.zeros(next(iter(tensors.values())).shape[1:], dtype=dtype)
        for part in parts:
            total = total + part
        return total / max(len(parts), 1)


def matching_of(survey: ReadySurvey) -> Matching | None:
    """Return how rows are matched by token; None where they go by their number."""
    if survey.vocabulary is None:
        return None
    order = list(survey.plan.tensors[0].inputs)
    return Matching(survey.vocabulary, order)
