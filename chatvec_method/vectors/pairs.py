"""The tensors of a chat model beside those of its base, and the differences between them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from mergekit.common import ModelReference
from torch import Tensor

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.checkpoint import Checkpoint, Source
from chatvec_method.facts.completion import EMBEDDINGS
from chatvec_method.facts.models import Model
from chatvec_method.facts.plan import kind_of
from chatvec_method.kernel import HALF_PRECISION
from chatvec_method.method.computed import is_computed
from chatvec_method.weights.reading import Reader

FEW = 256
"""More tokens than these under other numbers are another order of all."""
LACKING = -1
"""In place of a row of base, where base has none."""


@dataclass(frozen=True)
class Pair:
    """A tensor of the chat model, and what is subtracted from it."""

    name: str
    kind: str
    """One of `facts.plan.KINDS`."""
    chat: Source
    base: Source | None
    """None for numbers that are no weights, of positions for one, which a vector does not have."""
    rows: Tensor | None = None
    """Of embeddings and heads: for each row of chat which row of base is subtracted, LACKING for
    none; None where they are the same rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the chat model's tensor, and so of the difference."""
        return self.chat.header.shape

    @property
    def of_tokens(self) -> bool:
        """Whether it has a row for each token."""
        return self.kind in ("embeddings", "head")

    @property
    def width(self) -> int:
        """Elements in a row; 1 in a vector. Of joined experts, a row is one of an expert's."""
        return self.shape[-1] if len(self.shape) > 1 else 1

    @property
    def count(self) -> int:
        """How many rows there are."""
        return math.prod(self.shape) // max(self.width, 1)

    @property
    def dtype(self) -> torch.dtype:
        """In which differences are formed, rounded once: exact for nearly all of half precision.

        float32 holds the difference of two halves unless one is 2^13 (float16) or 2^16 (bfloat16)
        times the other; float64 that of two float32, to 2^29.
        """
        dtypes = [source.header.dtype for source in (self.chat, self.base) if source is not None]
        halves = all(dtype in HALF_PRECISION for dtype in dtypes)
        return torch.float32 if halves else torch.float64


class Pairs:
    """All tensors of a chat model that have a difference."""

    def __init__(self, base: Model, chat: Model, trust_remote_code: bool = False) -> None:
        """Look for every tensor of the chat model in its base, by name or by what it is.

        Args:
            base: The pretrained model, with its files here.
            chat: That model after instruction tuning, likewise.
            trust_remote_code: Whether models may be built by code of their own.

        Raises:
            ChatVecError: They are not a model and its base: a tensor is missing or has another
                shape.
        """
        self.base, self.chat = base, chat
        of_base = Checkpoint(base, trust_remote_code)
        of_chat = Checkpoint(chat, trust_remote_code, (of_base,))
        self.checkpoints: Mapping[ModelReference, Checkpoint] = {
            base.reference: of_base,
            chat.reference: of_chat,
        }
        for checkpoint in self.checkpoints.values():
            checkpoint.check_quantisation()
        self.pairs = tuple(self._pairs(of_base, of_chat))

    def _pairs(self, of_base: Checkpoint, of_chat: Checkpoint) -> Iterator[Pair]:
        for name, weight in of_chat.weights.items():
            source = of_chat.stored([name])
            assert source is not None
            if not weight.header.dtype.is_floating_point or is_computed(name, weight.header.shape):
                continue
            parameters = of_chat.parameters_of(source)
            other = of_base.stored([name]) or next(
                (s for p in parameters if (s := of_base.parameter(p))), None
            )
            axes = of_chat.layout.vocabulary_axes if of_chat.layout else {}
            has_rows = any(axes.get(p) == 0 for p in parameters) or bool(EMBEDDINGS.search(name))
            if other is None and has_rows:
                other = _tied(of_base)
            if other is None:
                raise ChatVecError(
                    f"{name}: model {self.chat} has this tensor, and {self.base} has not, so that "
                    "there is no difference.",
                    f"Write the model that {self.chat} was tuned from.",
                )
            yield self._pair(name, source, other, has_rows)

    def _pair(self, name: str, chat: Source, base: Source, has_rows: bool) -> Pair:
        kind = kind_of(name, of_vocabulary=has_rows)
        own, other = chat.header.shape, base.header.shape
        if has_rows and own[1:] == other[1:]:
            return Pair(name, kind, chat, base, self._rows(own[0], other[0]))
        if own != other:
            raise ChatVecError(
                f"{name}: model {self.chat} has the shape {list(own)}, and {self.base} has "
                f"{list(other)}: they are not a model and its base.",
                f"Write the model that {self.chat} was tuned from.",
            )
        return Pair(name, kind, chat, base)

    def _rows(self, own: int, others: int) -> Tensor | None:
        """Return which row of base goes with each row of chat.

        That of the same number, which stands for the same token but for a few; or, where the two
        models number their tokens otherwise, that of the same token.
        """
        rows = torch.arange(own)
        rows[others:] = LACKING
        if not self.moved_tokens:
            chat, base = self.chat.tokenizer, self.base.tokenizer
            for token, i in chat.ids.items() if chat and base else ():
                if base is not None and i < own and (j := base.ids.get(token)) is not None:
                    rows[i] = j if j < others else LACKING
        return None if own == others and bool((rows == torch.arange(own)).all()) else rows

    @cached_property
    def moved_tokens(self) -> tuple[str, ...]:
        """The chat model's tokens that base has under another number, if they are few.

        R1's tokenizer on a Qwen model has some: there rows are added up by their number.
        """
        chat, base = self.chat.tokenizer, self.base.tokenizer
        if chat is None or base is None:
            return ()
        moved = [t for t, i in chat.ids.items() if base.ids.get(t, i) != i]
        return tuple(sorted(moved)) if len(moved) <= FEW else ()

    @cached_property
    def added_tokens(self) -> tuple[str, ...]:
        """The chat model's tokens that base lacks, in the order of their rows."""
        chat, base = self.chat.tokenizer, self.base.tokenizer
        if chat is None or base is None:
            return ()
        lengths = [pair.shape[0] for pair in self.pairs if pair.of_tokens]
        added = {t: i for t, i in chat.ids.items() if t not in base.ids and i < min(lengths)}
        return tuple(sorted(added, key=added.__getitem__))

    def added_rows(self, reader: Reader, pair: Pair) -> Tensor:
        """Return the chat model's own rows of `added_tokens`, as its file has them."""
        assert self.chat.tokenizer is not None
        ids = [self.chat.tokenizer.ids[token] for token in self.added_tokens]
        parts = [reader.rows(self.chat.reference, pair.chat, slice(i, i + 1)) for i in ids]
        return torch.cat(parts).contiguous()


class Differences:
    """The difference of one pair, any of its elements."""

    def __init__(self, pairs: Pairs, pair: Pair, reader: Reader) -> None:
        self.pair = pair
        self._pairs = pairs
        self._reader = reader
        self._whole: dict[ModelReference, Tensor] = {}
        for model, source in self._sources:
            if source.conversion is not None:
                self._whole[model] = reader.tensor(model, source)

    @property
    def _sources(self) -> Sequence[tuple[ModelReference, Source]]:
        assert self.pair.base is not None
        return (
            (self._pairs.chat.reference, self.pair.chat),
            (self._pairs.base.reference, self.pair.base),
        )

    def rows(self, first: int, last: int) -> Tensor:
        """Return rows of the difference, in `pair.dtype`; of a vector or scalar, elements of it.

        Args:
            first: The first row.
            last: The one behind the last.
        """
        (chat, chats), (base, bases) = self._sources
        own = self._read(chat, chats, slice(first, last)).to(self.pair.dtype, copy=True)
        if self.pair.rows is None:
            # Wider before they are subtracted: to subtract what is narrower takes twice as long.
            return own.sub_(self._read(base, bases, slice(first, last)).to(self.pair.dtype))
        wanted = self.pair.rows[first:last]
        held = wanted != LACKING
        if bool(held.any()):
            low, high = int(wanted[held].min()), int(wanted[held].max()) + 1
            theirs = self._read(base, bases, slice(low, high))
            own[held] -= theirs[wanted[held] - low]
        return own

    def base_rows(self, first: int, last: int) -> Tensor:
        """Return the same rows of base's tensor, where `pair.rows` is None."""
        _, (base, source) = self._sources
        return self._read(base, source, slice(first, last))

    def elements(self, start: int, stop: int) -> Tensor:
        """Return some elements of the difference, in a row."""
        width = self.pair.width
        first, last = start // width, -(-stop // width)
        flat = self.rows(first, last).reshape(-1)
        return flat[start - first * width : stop - first * width]

    def _read(self, model: ModelReference, source: Source, rows: slice) -> Tensor:
        shape = source.header.shape
        if not shape:
            return self._reader.tensor(model, source)
        inside = max(math.prod(shape[1:-1]), 1)  # rows of an expert
        outer = slice(rows.start // inside, -(-rows.stop // inside))
        if model in self._whole:
            part = self._whole[model][outer]
        else:
            part = self._reader.rows(model, source, outer)
        if len(shape) < 3:
            return part
        before = outer.start * inside
        return part.reshape(-1, shape[-1])[rows.start - before : rows.stop - before]


def _tied(checkpoint: Checkpoint) -> Source | None:
    """Return the embeddings of a model whose head they are, too."""
    if not getattr(checkpoint.model.config, "tie_word_embeddings", False):
        return None
    names = [name for name in checkpoint.weights if EMBEDDINGS.search(name)]
    return checkpoint.stored(names)
