"""Elements of an output computed again, in float64 and without the kernel, for a sample of rows."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from mergekit.common import ModelReference
from torch import Tensor

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.models import Model, TensorHeader
from chatvec_method.facts.plan import PlannedTensor
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.facts.vocabulary import Row, Rows
from chatvec_method.method.settings import weights_dtype
from chatvec_method.method.vector import added_of, base_of
from chatvec_method.weights.read_ahead import Ask
from chatvec_method.weights.reading import Reader

HALF_PRECISION = (torch.bfloat16, torch.float16)


FLOAT32_SLACK = 2.0**-22
"""What a sum formed in float32 may be off by, as a share of its summands, before it is rounded."""


INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By size, to look at the bits of an element."""


AGAIN = (
    "Merge again; if it is wrong again, report it with the recipe and the versions of "
    "chatvec-method, mergekit and torch."
)


@dataclass(frozen=True)
class Sample:
    """Some rows of a tensor."""

    rows: Sequence[int]
    """Which ones: the first axes count as one; of embeddings, the vocabulary's axis alone."""
    where: tuple[Tensor, ...]
    """Indices of them along the first axes, the vocabulary's moved to the front."""
    tokens: tuple[str, ...] | None = None
    """Whose they are, if rows are matched by token."""

    def of(self, tensor: Tensor, axis: int | None) -> Tensor:
        """Return these rows of a tensor, (rows, elements); no others are read."""
        rows = (tensor if axis is None else tensor.movedim(axis, 0))[self.where]
        return rows.reshape(len(self.rows), -1)


class RowReader:
    """Loads sampled rows, and lets the system read them and not what lies around them."""

    def __init__(self, survey: ReadySurvey, reader: Reader, ask: Ask) -> None:
        self.survey = survey
        self.reader = reader
        self.ask = ask

    def ask_for(
        self, model: Model, header: TensorHeader | None, rows: Sequence[int], axis: int | None
    ) -> None:
        """Ask for rows of a stored tensor; those of another axis than the first are scattered."""
        if header is None or axis:
            return
        in_all = math.prod(header.shape[:-1] if axis is None else header.shape[:1])
        size = header.bytes // max(in_all, 1)
        for row in rows:
            self.ask(model, header, row * size, size)

    def of_input(
        self, tensor: PlannedTensor, reference: ModelReference, sample: Sample
    ) -> Tensor | None:
        """Return rows of a model's tensor as the merge loads it; None if it lacks the tensor."""
        axis = tensor.weight.vocabulary_axis
        for vector in tensor.roles.vectors:
            if reference == added_of(vector) and (stored := tensor.sources.get(vector)) is not None:
                return sample.of(self.reader.added_rows(vector, stored), axis)
        source = tensor.sources.get(reference)
        if source is None:
            return None
        if source.mapped:
            self.ask_for(self.survey.models[reference], source.header, sample.rows, axis)
        rows = sample.of(self.reader.tensor(reference, source), axis)
        dtype = weights_dtype(tensor.weight.force_dtype or self.survey.recipe.config.dtype)
        return rows if dtype is None or not rows.is_floating_point() else rows.to(dtype)


def sample_rows(
    survey: ReadySurvey,
    tensor: PlannedTensor,
    shape: tuple[int, ...],
    tokens: Mapping[str, int],
    count: int,
    chance: random.Random,
) -> Sample:
    """Return which rows of a tensor are computed again: by chance, and those that matter most."""
    axis = tensor.weight.vocabulary_axis
    if axis is None:
        lengths = shape[:-1]
        chosen = _some(range(math.prod(lengths)), count, chance)
        where = torch.unravel_index(torch.tensor(chosen), lengths) if lengths else ()
        return Sample(chosen, where)
    named = {tokens[token] for token in _named_tokens(survey) if token in tokens}
    if survey.vocabulary is None:
        rows = range(shape[axis])
        chosen = _some(rows, count, chance, [i for i in named if i in rows])
        return Sample(chosen, (torch.tensor(chosen),))
    by_id = {i: token for token, i in tokens.items()}
    chosen = _some(sorted(by_id), count, chance, named)
    return Sample(chosen, (torch.tensor(chosen),), tuple(by_id[i] for i in chosen))


def _named_tokens(survey: ReadySurvey) -> Iterator[str]:
    """Yield the tokens whose rows matter most: those that the recipe or the chat format names."""
    settings = survey.recipe.config.tokenizer
    yield from (settings and settings.tokens) or ()
    if survey.format is not None:
        yield from survey.format.markers
        yield from (stop.token for stop in survey.format.stops)


def _some(
    of: Sequence[int], count: int, chance: random.Random, named: Iterable[int] = ()
) -> list[int]:
    chosen = chance.sample(of, min(count, len(of)))
    return sorted({*chosen, *named, *of[:1], *of[-1:]})


def sampled_inputs(
    reader: RowReader,
    tensor: PlannedTensor,
    sample: Sample,
) -> dict[ModelReference, Tensor]:
    """Return the sampled rows of the models that have the tensor and whose part in it is not 0."""
    if sample.tokens is not None:
        return _aligned_inputs(reader, tensor, sample.tokens)
    rows = {model: reader.of_input(tensor, model, sample) for model in tensor.readers}
    return {model: part for model, part in rows.items() if part is not None}


def _aligned_inputs(
    reader: RowReader, tensor: PlannedTensor, tokens: Sequence[str]
) -> dict[ModelReference, Tensor]:
    """Return the rows that stand for tokens in each model, with the roundings of mergekit's means.

    mergekit matches rows in the dtype that all models' embeddings promote to.
    """
    vocabulary = reader.survey.vocabulary
    assert vocabulary is not None
    adding = {v: base_of(v) for v in tensor.readers if vocabulary.added.get(v)}
    needed = (*tensor.readers, *adding.values())
    sources = {m: [vocabulary.sources(m, t) for t in tokens] for m in needed}
    order = [
        each
        for model in tensor.inputs
        for each in ((model, added_of(model)) if model in adding else (model,))
    ]
    wanted: dict[ModelReference, set[int]] = {model: set() for model in order}
    for row in (row for each in sources.values() for rows in each for row in rows):
        wanted[row.model].add(row.index)
    found: dict[Row, Tensor] = {}
    dtypes, width = [], 0
    for model, indices in wanted.items():
        chosen = [0, *sorted(indices)]
        sample = Sample(chosen, (torch.tensor(chosen),))
        part = reader.of_input(tensor, model, sample)
        if part is None:
            sources.pop(model, None)
            continue
        found |= {Row(model, i): row for i, row in zip(chosen, part, strict=True)}
        if model not in vocabulary.added:  # a difference's own dtype does not count
            dtypes.append(part.dtype)
        width = part.shape[1]
    promoted = reduce(torch.promote_types, dtypes)

    def mean(rows: Rows, dtype: torch.dtype) -> Tensor:
        # In mergekit's order, which decides how sums in half precision are rounded.
        ordered = sorted(rows, key=lambda row: order.index(row.model))
        parts = [found[row].to(dtype) for row in ordered if row in found]
        return (
            sum(parts[1:], start=parts[0]) / len(parts) if parts else torch.zeros(width).to(dtype)
        )

    return {
        model: torch.stack(
            [mean(rows, torch.float64 if model in vocabulary.added else promoted) for rows in each]
        )
        for model, each in sources.items()
    }


def compare(
    found: Tensor,
    inputs: Mapping[ModelReference, Tensor],
    survey: ReadySurvey,
    tensor: PlannedTensor,
    sample: Sample,
) -> int:
    """Return how many elements are off by one rounding step.

    Raises:
        ChatVecError: One is off by more; or by any, where it should be cp's own.
    """
    roles = tensor.roles
    cp = inputs[roles.cp]
    chats = [chat for chat in roles.chats if chat in inputs]
    if not chats:
        own = cp.to(found.dtype)
        wrong = _bits(found) != _bits(own)
        off = 0
    else:
        vectors = {
            chat: tensor.ratios[chat] * _vector(inputs, roles.base_of(chat), chat) for chat in chats
        }
        total = sum(vectors.values(), start=torch.zeros(())) + cp.double()
        if torch.equal(found, total.to(found.dtype)):
            return 0
        slack = _slack(survey, found.dtype) * sum(
            (v.abs() for v in vectors.values()), start=cp.double().abs()
        )
        steps = _ordered(found)
        low, high = (_ordered((total + sign * slack).to(found.dtype)) for sign in (-1, 1))
        wrong = (steps < low - 1) | (steps > high + 1)
        own = total.to(found.dtype)
        off = int((steps != _ordered(own)).sum())
    if wrong.any():
        row, column = (int(i) for i in wrong.nonzero()[0])
        raise _is_wrong(tensor, sample, row, column, found, own, inputs)
    return off


def _vector(
    inputs: Mapping[ModelReference, Tensor], base: ModelReference | None, chat: ModelReference
) -> Tensor:
    """Return chat − base in float64; of a vector, what is subtracted from it, if anything is."""
    subtracted = inputs.get(base_of(chat) if base is None else base)
    own = inputs[chat].double()
    return own if subtracted is None else own - subtracted.double()


def _slack(survey: ReadySurvey, dtype: torch.dtype) -> float:
    """Return what the method's own roundings, before the last, may come to."""
    on_mps = str(survey.options.device).startswith("mps")  # which has no float64
    return FLOAT32_SLACK if dtype in HALF_PRECISION or on_mps else 0.0


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(INTEGERS[tensor.itemsize]).long()


def _ordered(tensor: Tensor) -> Tensor:
    """Return integers in the order of the floating-point numbers, neighbours one apart."""
    bits = _bits(tensor)
    lowest = -(1 << (8 * tensor.itemsize - 1))
    return torch.where(bits < 0, lowest - bits, bits)


def _is_wrong(
    tensor: PlannedTensor,
    sample: Sample,
    row: int,
    column: int,
    found: Tensor,
    expected: Tensor,
    inputs: Mapping[ModelReference, Tensor],
) -> ChatVecError:
    """Say which element is wrong, and what of."""
    if sample.tokens is not None:
        place = f"the row of token {sample.tokens[row]!r}, element {column}"
    else:
        place = f"element {[*(int(axis[row]) for axis in sample.where), column]}"

    def value(model: ModelReference) -> str:
        return f"{float(inputs[model][row, column]):.6g} of {model}"

    roles = tensor.roles
    vectors = [
        f"{tensor.ratios[chat]:g} · {value(chat)}"
        if chat in roles.vectors
        else f"{tensor.ratios[chat]:g} · ({value(chat)} − {value(roles.base)})"
        for chat in roles.chats
        if chat in inputs
    ]
    calculation = " + ".join([value(roles.cp), *vectors])
    return ChatVecError(
        f"{tensor.name}, {place}: the output has {float(found[row, column]):.6g}, and the recipe "
        f"says {float(expected[row, column]):.6g}, from {calculation}.",
        AGAIN,
    )
