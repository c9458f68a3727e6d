"""All tensors of a recipe's models measured, one after the other."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch
from mergekit.common import ModelReference
from torch import Tensor

from chatvec_method.anatomy import largest
from chatvec_method.anatomy.largest import Largest
from chatvec_method.anatomy.passes import Passes, passes_on
from chatvec_method.anatomy.report import Anatomy, Pair, TensorAnatomy, pairs_of
from chatvec_method.anatomy.spectrum import leading_energy
from chatvec_method.anatomy.stream import Piece, Source, Stream
from chatvec_method.anatomy.sums import BASE, OPPOSED, OTHER, ROW_SUMS, Sums, squares
from chatvec_method.anatomy.tokens import TokenMoves, token_moves
from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.facts.plan import MergePlan, PlannedTensor
from chatvec_method.facts.survey import ReadySurvey, Survey
from chatvec_method.method.vector import vector_facts
from chatvec_method.progress import Progress
from chatvec_method.weights.fetching import fetched
from chatvec_method.weights.fingerprint import fingerprint_of, is_base_of
from chatvec_method.workers import torch_threads


def examine(
    survey: Survey,
    *,
    rank: int | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Anatomy:
    """Read all models of a recipe, one tensor of each at a time, and measure their vectors.

    Args:
        survey: A survey; its options say on which device.
        rank: How many singular directions of each matrix are looked at. None for none, which is
            much faster: all is then read once.
        on_progress: Is told how much has been downloaded, and how much has been read.

    Raises:
        ChatVecError: The survey has problems, or a tensor is missing, has another shape in one of
            the models, or has NaN or infinite elements.
    """
    try:
        return _examine(fetched(survey.ready(), on_progress), rank, on_progress)
    except ChatVecError:
        raise
    except Exception as error:  # of files that are not what their headers or tokenizers say
        raise ChatVecError(
            f"the models cannot be measured: {first_line(error)} ({type(error).__name__})"
            f"{_unreadable_tokenizers(survey)}.",
            "Run `chatvec check --deep` on the recipe, which tells what is wrong with them.",
        ) from error


def _unreadable_tokenizers(survey: Survey) -> str:
    """Return of which models nobody knows the tokens, as words that follow others."""
    unknown = [
        f"; the tokenizer of model {model} does not load ({model.tokenizer_problem})"
        for model in survey.models.values()
        if model.tokenizer is None
    ]
    return "".join(unknown)


def _examine(
    survey: ReadySurvey, rank: int | None, on_progress: Callable[[Progress], None]
) -> Anatomy:
    plan = survey.plan
    stream = Stream(survey)
    alone = {
        vector: reason
        for vector in plan.roles.vectors
        if (reason := _why_alone(vector, survey, stream))
    }
    all_bytes, done = _bytes_of(plan), 0

    def count(piece: Piece) -> None:
        nonlocal done
        done += sum(part.nbytes for part in piece.values())
        on_progress(Progress("read", min(done, all_bytes), all_bytes))

    if stream.matching is not None:
        names = dict(enumerate(stream.matching.tokens))
    else:
        names = {i: token for token, i in survey.tokens.items()}
    tensors: list[TensorAnatomy] = []
    tokens: list[TokenMoves] = []
    with passes_on(survey.options.device) as passes:
        for planned in plan.tensors:
            if planned.has_no_vector:
                continue
            study = _Study(planned, stream.open(planned), passes, survey, alone)
            sums, rows = study.measure(count)
            if rank is not None:
                sums = study.with_directions(sums, rank)
            tensors.append(TensorAnatomy(planned, study.rounded, sums))
            for chat, (reference, vector, language) in rows.items():
                by_cp = None if chat in alone else language
                tokens.append(token_moves(planned.name, chat, reference, vector, by_cp, names))
    return Anatomy(survey, tuple(tensors), tuple(tokens), rank, done, alone)


def _why_alone(vector: ModelReference, survey: ReadySurvey, stream: Stream) -> str:
    """Return why a vector cannot be compared with what cp has changed; empty where it can."""
    base, model = survey.plan.roles.base, survey.models[vector]
    facts = vector_facts(model.config)
    own = facts.base if facts is not None and facts.base else "the base model"
    if base is None:
        return (
            "that takes the vector's base; add "
            f"`- {{model: {own}, parameters: {{role: base}}}}` to `models:`"
        )
    if not fingerprint_of(model):
        return f"it keeps no rows of its base, {own}, by which {base} could be known for it"
    if not is_base_of(base, model, survey.plan, stream.reader):
        return f"it was extracted with another base, {own}, than {base}: their rows differ"
    return ""


class _Study:
    """One tensor, looked at."""

    def __init__(
        self,
        planned: PlannedTensor,
        source: Source,
        passes: Passes,
        survey: ReadySurvey,
        alone: Collection[ModelReference],
    ) -> None:
        self.planned = planned
        self.alone = alone
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
        largest_of = {chat: Largest(self._k, self._level(chat)) for chat in roles.chats}
        parts: dict[Pair, list[Tensor]] = defaultdict(list)
        for piece in self.source.pieces():
            for chat, other in pairs_of(roles):
                matrices = self._operands(piece, chat, other)
                if other == roles.cp:
                    level, ratio = largest_of[chat].level, self.planned.ratios[chat]
                    rows, large = self.passes(matrices, level, ratio, self.rounded)
                    largest_of[chat].add(large)
                else:
                    rows, _ = self.passes(matrices)
                parts[chat, other].append(rows)
            count(piece)
        by_row = {pair: torch.cat(rows, dim=1) for pair, rows in parts.items()}
        self._check_finite(by_row)
        for pair, rows in by_row.items():
            self._refer(pair, rows, by_row)
        sums = {pair: self._sums(*pair, rows.sum(1)) for pair, rows in by_row.items()}
        for chat in roles.chats:
            energy = largest_of[chat].sum
            if energy is None:
                energy = self._read_again(chat)
            sums[chat, roles.cp] = replace(sums[chat, roles.cp], largest=energy)
        in_rows = self.planned.weight.vocabulary_axis is not None
        rows_of = {chat: by_row[chat, roles.cp][:3] for chat in roles.chats} if in_rows else {}
        return sums, rows_of

    def with_directions(self, sums: Mapping[Pair, Sums], rank: int) -> dict[Pair, Sums]:
        """Return the sums of a measured tensor with the energy of its first directions."""
        completed = dict(sums)
        for chat in self.roles.chats if self.source.matrices else ():
            with torch_threads(self.passes.workers.count):  # products of matrices are long
                energy = sum(
                    leading_energy(partial(self._vector, chat, i), rank)
                    for i in range(self.source.matrices)
                )
            pair = (chat, self.roles.cp)
            completed[pair] = replace(sums[pair], ranked=sums[pair].vector, directions=energy)
        return completed

    def _vector(self, chat: ModelReference, which: int) -> Iterator[Tensor]:
        """Yield one matrix of a chat vector in pieces, in float32."""
        for piece in self.source.matrix(which):
            base, tuned = (m.to(self.passes.device).float() for m in self._ends(piece, chat))
            yield tuned - base

    def _ends(self, piece: Piece, chat: ModelReference) -> tuple[Tensor, Tensor]:
        """Return two matrices whose difference is a chat vector: base and chat, or 0 and it."""
        if chat in self.roles.vectors:
            return piece[chat].new_zeros(1).expand_as(piece[chat]), piece[chat]
        return piece[self.roles.base], piece[chat]

    def _operands(self, piece: Piece, chat: ModelReference, other: ModelReference) -> list[Tensor]:
        """Return what stands for base, chat and other.

        A vector is base + vector, where its base is here; else there is 0 in base's place, and
        where two vectors are compared, in that of both.
        """
        vectors = self.roles.vectors
        if not vectors.intersection((chat, other)):
            return [piece[self.roles.base], piece[chat], piece[other]]
        if other != self.roles.cp:
            one, two = (_difference(*self._ends(piece, each)) for each in (chat, other))
            return [one.new_zeros(1).expand_as(one), one, two]
        if chat in self.alone:
            return [*self._ends(piece, chat), piece[other]]
        base = piece[self.roles.base]
        return [base, _wide(base) + _wide(piece[chat]), piece[other]]

    def _refer(self, pair: Pair, rows: Tensor, by_row: Mapping[Pair, Tensor]) -> None:
        """Put Σ b², or Σ cp² where base is not here, in the place of 0; and drop what 0 made."""
        chat, other = pair
        if other != self.roles.cp:
            rows[BASE] = by_row[chat, self.roles.cp][BASE]
        elif chat in self.alone:
            rows[BASE] = rows[OTHER]
            rows[OTHER : OPPOSED + 1] = 0

    def _sums(self, chat: ModelReference, other: ModelReference, totals: Tensor) -> Sums:
        by_name = dict(zip(ROW_SUMS, totals.tolist(), strict=True))
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

    @property
    def _k(self) -> int:
        return largest.count(self.source.elements)

    def _level(self, chat: ModelReference) -> float:
        """Return a level that hardly more than the largest elements are above."""
        if self.source.elements <= largest.UNSAMPLED:
            return 0.0
        models = (chat,) if chat in self.roles.vectors else (self.roles.base, chat)
        return largest.level(squares(*self._ends(self.source.sample(largest.SAMPLE, models), chat)))

    def _read_again(self, chat: ModelReference) -> float:
        """Return the energy of the largest elements, in a pass of its own from level 0 on."""
        again = Largest(self._k)
        for piece in self.source.pieces():
            base, tuned = self._ends(piece, chat)
            again.add(self.passes([base, tuned, base], again.level)[1])
        assert again.sum is not None
        return again.sum

    def _check_finite(self, by_row: Mapping[Pair, Tensor]) -> None:
        for (chat, other), rows in by_row.items():
            energies = rows[:3].sum(1).tolist()
            first = self.roles.base or self.roles.cp
            for model, energy in zip((first, chat, other), energies, strict=True):
                if not math.isfinite(energy):
                    raise ChatVecError(
                        f"model {model}: {self.planned.name} has NaN or infinite elements, so its "
                        "checkpoint is damaged.",
                        "Download or convert it again.",
                    )


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _difference(base: Tensor, tuned: Tensor) -> Tensor:
    return _wide(tuned) - _wide(base)


def _bytes_of(plan: MergePlan) -> int:
    """Return how much of the models is read."""
    headers = (t.header(model) for t in plan.tensors if not t.has_no_vector for model in t.sources)
    return sum(header.bytes for header in headers if header is not None)
