"""The anatomy of a recipe's vectors: figures for every tensor, layer and kind of tensor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from mergekit.common import ModelReference

from chatvec_method.anatomy.sums import Sums, total
from chatvec_method.anatomy.tokens import TokenMoves
from chatvec_method.facts.plan import KINDS, PlannedTensor
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.method.roles import Roles

Pair: TypeAlias = tuple[ModelReference, ModelReference]
"""A chat model, and what its vector is compared with: cp, or another chat model."""


@dataclass(frozen=True)
class TensorAnatomy:
    """One tensor of the output."""

    planned: PlannedTensor
    rounded: torch.dtype
    """Its dtype in the output."""
    sums: Mapping[Pair, Sums]


@dataclass(frozen=True, repr=False)
class Anatomy:
    """What the vectors of a recipe look like."""

    survey: ReadySurvey
    tensors: tuple[TensorAnatomy, ...]
    tokens: tuple[TokenMoves, ...]
    """Of the embeddings and the head, for each chat vector."""
    rank: int | None
    """How many singular directions were looked at; None if none."""
    bytes_read: int
    alone: Mapping[ModelReference, str]
    """The vectors that are not compared with the language vector, and why."""

    def __repr__(self) -> str:
        return f"<Anatomy of {self.survey.recipe.name}: {len(self.tensors)} tensors>"

    @property
    def roles(self) -> Roles:
        """Who is who."""
        return self.tensors[0].planned.roles

    def reference(self, chat: ModelReference) -> ModelReference:
        """Return the model by whose norm a chat vector is measured: base, or cp for one alone."""
        reference: ModelReference = self.roles.cp if chat in self.alone else self.roles.base
        return reference

    @property
    def compared(self) -> list[ModelReference]:
        """The chat vectors that are compared with the language vector."""
        return [chat for chat in self.roles.chats if chat not in self.alone]

    @property
    def pairs(self) -> list[Pair]:
        """What was compared: each chat vector with the language vector, then with each other."""
        return pairs_of(self.roles)

    @property
    def layers(self) -> list[int]:
        """The output's layers."""
        return sorted({t.planned.layer for t in self.tensors if t.planned.layer is not None})

    @property
    def rounded(self) -> torch.dtype:
        """The output's dtype; that of most of its elements, if there are several."""
        elements: dict[torch.dtype, int] = defaultdict(int)
        for tensor in self.tensors:
            elements[tensor.rounded] += next(iter(tensor.sums.values())).elements
        return max(elements, key=elements.__getitem__)

    def whole(self, pair: Pair) -> Sums:
        """Return the sums over all tensors."""
        return total([tensor.sums[pair] for tensor in self.tensors])

    def by_layer(self, pair: Pair) -> dict[int, Sums]:
        """Return the sums over each layer; embeddings, head and final norm are in none."""
        grouped = self._grouped(pair, lambda planned: planned.layer)
        return {layer: grouped[layer] for layer in self.layers}

    def by_kind(self, pair: Pair) -> dict[str, Sums]:
        """Return the sums over each kind of tensor that there is, in the order of KINDS."""
        grouped = self._grouped(pair, lambda planned: planned.kind)
        return {kind: grouped[kind] for kind in KINDS if kind in grouped}

    def by_layer_and_kind(self, pair: Pair) -> dict[tuple[int | None, str], Sums]:
        """Return the sums over each kind of tensor in each layer, and outside (None)."""
        return self._grouped(pair, lambda planned: (planned.layer, planned.kind))

    def _grouped(self, pair: Pair, key: Callable[[PlannedTensor], Any]) -> dict[Any, Sums]:
        groups: dict[Any, list[Sums]] = defaultdict(list)
        for tensor in self.tensors:
            groups[key(tensor.planned)].append(tensor.sums[pair])
        return {name: total(sums) for name, sums in groups.items()}


def pairs_of(roles: Roles) -> list[Pair]:
    """Return what is compared with what."""
    chats = roles.chats
    among = [(one, two) for i, one in enumerate(chats) for two in chats[i + 1 :]]
    return [*((chat, roles.cp) for chat in chats), *among]
