"""All tensors of a recipe's models measured, one after the other."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial, reduce

import torch
from mergekit.common import ModelReference
from torch import Tensor

from chatvec_method.anatomy import largest
from chatvec_method.anatomy.passes import CPU_CHUNK, Passes, passes
from chatvec_method.anatomy.report import Anatomy, Pair, TensorAnatomy, pairs_of
from chatvec_method.anatomy.spectrum import leading_energy
from chatvec_method.anatomy.stream import Piece, Source, Stream
from chatvec_method.anatomy.sums import FOUND, Sums
from chatvec_method.anatomy.tokens import TokenMoves, token_moves
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.plan import MergePlan, PlannedTensor
from chatvec_method.facts.survey import ReadySurvey, Survey
from chatvec_method.weights.fetching import fetched
from chatvec_method.workers import torch_threads


def examine(
    survey: Survey,
    *,
    rank: int | None = None,
    on_bytes: Callable[[int, int], None] = lambda _done, _total: None,
) -> Anatomy:
    """Read all models of a recipe, one tensor of each at a time, and measure their vectors.

    Args:
        survey: A survey; its options say on which device.
        rank: How many singular directions of each matrix are looked at. None for none, which is
            much faster: all is then read once.
        on_bytes: Is told how many bytes have been read, and how many there are.

    Raises:
        ChatVecError: The survey has problems, or a tensor is missing, has another shape in one of
            the models, or has NaN or infinite elements.
    """
    return _examine(fetched(survey.ready()), rank, on_bytes)


def _examine(
    survey: ReadySurvey, rank: int | None, on_bytes: Callable[[int, int], None]
) -> Anatomy:
    plan = survey.plan
    stream = Stream(survey)
    all_bytes, done = _bytes_of(plan), 0

    def count(piece: Piece) -> None:
        nonlocal done
        done += sum(part.nbytes for part in piece.values())
        on_bytes(min(done, all_bytes), all_bytes)

    if stream.matching is not None:
        names = dict(enumerate(stream.matching.tokens))
    else:
        names = {i: token for token, i in survey.tokens.items()}
    tensors: list[TensorAnatomy] = []
    tokens: list[TokenMoves] = []
    with passes(survey.options.device) as in_passes:
        for planned in plan.tensors:
            if planned.has_no_vector:
                continue
            study = _Study(planned, stream.open(planned), in_passes, survey)
            sums, rows = study.measure(count)
            if rank is not None:
                sums = study.with_directions(sums, rank)
            tensors.append(TensorAnatomy(planned, study.rounded, sums))
            for chat, (base, vector, language) in rows.items():
                tokens.append(token_moves(planned.name, chat, base, vector, language, names))
    return Anatomy(survey, tuple(tensors), tuple(tokens), rank, done)


class _Study:
    """One tensor, looked at."""

    def __init__(
        self, planned: PlannedTensor, source: Source, passes: Passes, survey: ReadySurvey
    ) -> None:
        self.planned = planned
        self.roles = planned.roles
        self.source = source
        self.passes = passes
        self.rounded = survey.headers[planned.name].dtype

    def measure(
        self, count: Callable[[Piece], None]
    ) -> tuple[dict[Pair, Sums], dict[ModelReference, Tensor]]:
        """Read the tensor once.

        Returns:
            Its sums; and of embeddings and head, for each chat model, Σ b², Σ τ² and Σ λ² of each
            row, (3, rows).
        """
        roles = self.roles
        exact = self.source.elements <= largest.EXACT
        samples = {} if exact else {chat: self._sample(chat) for chat in roles.chats}
        found: dict[Pair, list[Tensor]] = defaultdict(list)
        energies: dict[ModelReference, list[Tensor]] = defaultdict(list)
        for piece in self.source.pieces():
            for chat, other in pairs_of(roles):
                level = samples[chat].level if samples else math.inf
                found[chat, other].append(self._pass(piece, chat, other, level))
            if exact:
                for chat in roles.chats:
                    energies[chat].append(_energy(piece[roles.base], piece[chat]).flatten())
            count(piece)
        by_row = {pair: torch.cat(parts, dim=1) for pair, parts in found.items()}
        self._check_finite(by_row)
        sums = {pair: self._sums(*pair, rows.sum(1)) for pair, rows in by_row.items()}
        for chat in roles.chats:
            energy = (
                largest.exactly(torch.cat(energies[chat]), largest.count(self.source.elements))
                if exact
                else self._largest(chat, samples[chat], by_row[chat, roles.cp])
            )
            sums[chat, roles.cp] = replace(sums[chat, roles.cp], largest=energy)
        in_rows = self.planned.weight.vocabulary_axis is not None
        rows = {chat: by_row[chat, roles.cp][:3] for chat in roles.chats} if in_rows else {}
        return sums, rows

    def with_directions(self, sums: Mapping[Pair, Sums], rank: int) -> dict[Pair, Sums]:
        """Return the sums of a measured tensor with the energy of its first directions."""
        completed = dict(sums)
        for chat in self.roles.chats if self.source.matrices else ():
            with torch_threads(self.passes.workers.count):  # products of matrices are long
                energy = sum(
                    leading_energy(partial(self._vector, chat, i), rank)
                    for i in range(self.source.matrices)
                )
            found = sums[chat, self.roles.cp]
            completed[chat, self.roles.cp] = replace(found, ranked=found.vector, directions=energy)
        return completed

    def _vector(self, chat: ModelReference, which: int) -> Iterator[Tensor]:
        """Yield one matrix of a chat vector in pieces, in float32."""
        for piece in self.source.matrix(which):
            tuned, base = (piece[m].to(self.passes.device).float() for m in (chat, self.roles.base))
            yield tuned - base

    def _pass(
        self, piece: Piece, chat: ModelReference, other: ModelReference, level: float
    ) -> Tensor:
        matrices = [piece[self.roles.base], piece[chat], piece[other]]
        if other != self.roles.cp:
            return self.passes(matrices)
        ratio = self.planned.ratios[chat]
        return self.passes(matrices, level, ratio, self.rounded)

    def _sums(self, chat: ModelReference, other: ModelReference, found: Tensor) -> Sums:
        by_name = dict(zip(FOUND, found.tolist(), strict=True))
        del by_name["above"], by_name["beyond"]
        opposed, moved, changed = (
            round(by_name.pop(name)) for name in ("opposed", "moved", "changed")
        )
        asked = moved if other == self.roles.cp and self.planned.ratios[chat] else 0
        return Sums(
            elements=self.source.elements,
            **by_name,
            opposed=opposed,
            moved=moved,
            asked=asked,
            swallowed=asked - changed if asked else 0,
        )

    def _sample(self, chat: ModelReference) -> largest.Sample:
        sample = self.source.sample(largest.SAMPLE, (self.roles.base, chat))
        return largest.sample_of(_energy(sample[self.roles.base], sample[chat]))

    def _largest(self, chat: ModelReference, sample: largest.Sample, rows: Tensor) -> float:
        """Return the energy of the largest elements, from what a pass found above a level."""
        elements = self.source.elements
        k = largest.count(elements)

        def estimated(level: float, rows: Tensor) -> tuple[largest.Estimate, bool]:
            found = dict(zip(FOUND, rows.sum(1).tolist(), strict=True))
            estimate = sample.estimate(level, found["above"], found["beyond"], k, elements)
            return estimate, estimate.doubt <= largest.TOLERANCE * found["vector"]

        estimate, good = estimated(sample.level, rows)
        if not good:
            estimate, good = estimated(estimate.level, self._again(chat, estimate.level))
        if good:
            return estimate.energy
        level = estimate.level
        while len(collected := self._collect(chat, level)) < k:
            level /= 4
        return largest.exactly(collected, k)

    def _again(self, chat: ModelReference, level: float) -> Tensor:
        """Return what a pass over the chat vector alone finds above another level."""
        base = self.roles.base
        found = [
            self.passes([piece[base], piece[chat], piece[base]], level)
            for piece in self.source.pieces()
        ]
        return torch.cat(found, dim=1)

    def _collect(self, chat: ModelReference, level: float) -> Tensor:
        """Return the energies from a level on, in a pass of their own."""
        kept = []
        for piece in self.source.pieces():
            rows = max(1, CPU_CHUNK // self.source.columns)
            for base, tuned in zip(
                *(piece[m].split(rows) for m in (self.roles.base, chat)), strict=True
            ):
                kept.append(largest.at_least(level, _energy(base, tuned)))
        return torch.cat(kept)

    def _check_finite(self, by_row: Mapping[Pair, Tensor]) -> None:
        for (chat, other), rows in by_row.items():
            squares = rows[:3].sum(1).tolist()
            for model, square in zip((self.roles.base, chat, other), squares, strict=True):
                if not math.isfinite(square):
                    raise ChatVecError(
                        f"model {model}: {self.planned.name} has NaN or infinite elements, so its "
                        "checkpoint is damaged.",
                        "Download or convert it again.",
                    )


def _energy(base: Tensor, chat: Tensor) -> Tensor:
    """Return τ² as `row_sums` has it."""
    wide = reduce(torch.promote_types, (base.dtype, chat.dtype), torch.float32)
    tau = chat.to(wide) - base.to(wide)
    return tau * tau


def _bytes_of(plan: MergePlan) -> int:
    """Return how much of the models is read."""
    headers = (t.header(model) for t in plan.tensors if not t.has_no_vector for model in t.sources)
    return sum(header.bytes for header in headers if header is not None)
