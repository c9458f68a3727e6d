"""An output held against its recipe, by reading alone.

Names, shapes, dtypes, index, config and tokenizer are compared in full, and every element is looked
at for NaN and infinity, unless that was done when it was written. What the elements should be is
computed again, in float64 and without the kernel, for a random sample of rows of every tensor, from
the inputs as mergekit loads them.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from mergekit.common import ModelPath, ModelReference, get_config_value
from mergekit.io.tasks import LoaderCache
from safetensors import safe_open
from torch import Tensor

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.models import Model, TensorHeader, look_up
from chatvec_method.facts.plan import MergePlan, PlannedTensor, header_of
from chatvec_method.facts.survey import Survey, expected_header
from chatvec_method.facts.vocabulary import Row, Rows
from chatvec_method.method.refusals import dtype_name, weights_dtype
from chatvec_method.weights.loading import load_tensor
from chatvec_method.weights.read_ahead import Ask, asking
from chatvec_method.workers import Workers, workers

CHUNK = 1 << 20
"""Elements looked at together for NaN and infinity."""
HALF_PRECISION = (torch.bfloat16, torch.float16)
FLOAT32_SLACK = 2.0**-22
"""What a sum formed in float32 may be off by, as a share of its summands, before it is rounded."""
INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By size, to look at the bits of an element."""
AGAIN = "Merge again; if it is wrong again, report it with the recipe and the versions of "
AGAIN += "chatvec-method, mergekit and torch."


@dataclass(frozen=True)
class Verification:
    """How much of an output was compared, all of it right."""

    tensors: int
    rows: int
    elements: int
    """Computed again."""
    off_by_one: int
    """Of those, elements that are the neighbour of the correctly rounded result."""
    bytes: int
    """Of all tensors."""


@dataclass(frozen=True)
class _Sample:
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


class _Rows:
    """Loads sampled rows, and lets the system read them and not what lies around them."""

    def __init__(self, survey: Survey, ask: Ask) -> None:
        self.survey = survey
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
        self,
        tensor: PlannedTensor,
        reference: ModelReference,
        sample: _Sample,
        loaded: Tensor | None = None,
    ) -> Tensor | None:
        """Return rows of a model's tensor as mergekit loads it; None if it lacks the tensor."""
        model, axis = self.survey.models[reference], tensor.weight.vocabulary_axis
        self.ask_for(model, header_of(model, tensor.inputs[reference]), sample.rows, axis)
        whole = load_tensor(tensor, reference) if loaded is None else loaded
        if whole is None:
            return None
        dtype = weights_dtype(tensor.weight.force_dtype or self.survey.recipe.config.dtype)
        rows = sample.of(whole, axis)
        return rows if dtype is None else rows.to(dtype)


class _Output:
    """The tensors of an output, mapped from one file at a time."""

    def __init__(self, out: Path, headers: Mapping[str, TensorHeader]) -> None:
        self.out = out
        self.headers = headers
        self.file = ""
        self.opened: Any = None

    def tensor(self, name: str) -> Tensor:
        """Return a tensor, of which nothing is read yet."""
        if self.headers[name].file != self.file:
            self.file = self.headers[name].file
            path = self.out / self.file
            if path.suffix == ".safetensors":
                self.opened = safe_open(path, "pt")
            else:
                self.opened = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if isinstance(self.opened, dict):
            return self.opened[name]
        return self.opened.get_tensor(name)


def verify(
    out: Path,
    survey: Survey,
    *,
    rows_per_tensor: int = 16,
    seed: int = 0,
    known_finite: bool = False,
    on_bytes: Callable[[int, int], None] = lambda _done, _total: None,
) -> Verification:
    """Hold a merge's output against the recipe.

    Of the inputs only the sampled rows are read, where their files can be mapped; of the output
    everything is, in pieces, unless it is known to be finite.

    Args:
        out: The output, made chat-ready by `finish`.
        survey: A survey of the recipe without problems.
        rows_per_tensor: How many rows of each tensor are computed again, besides the first and the
            last, and in embeddings those of the recipe's tokens and of the chat format's.
        seed: Of their choice.
        known_finite: Whether all elements have been looked at for NaN and infinity already; then
            nothing but the sampled rows is read of the output, either.
        on_bytes: Is told how many bytes of the output have been read, and how many there are.

    Raises:
        ChatVecError: The output is not what the recipe says; names what is wrong first.
    """
    plan = survey.plan
    assert plan is not None
    model = _look_up(out, survey)
    headers = model.tensors or {}
    _check_names(headers, plan, out)
    output = _Output(out, headers)
    _check_config(model, plan, output)
    tokens = _checked_tokens(model, survey)
    LoaderCache().setup(survey.options)
    total = sum(header.bytes for header in headers.values())
    done = rows = elements = off_by_one = 0
    with workers() as at_work, asking() as ask:
        reader = _Rows(survey, ask)
        for tensor in plan.tensors:
            known = expected_header(survey, tensor)
            expected, loaded = (known, {}) if known else _header_by_loading(survey, tensor)
            _check_header(headers[tensor.name], expected, tensor)
            chance = random.Random(f"{seed} {tensor.name}")
            sample = _sample(survey, tensor, expected.shape, tokens, rows_per_tensor, chance)
            axis = tensor.weight.vocabulary_axis
            if known_finite:
                reader.ask_for(model, headers[tensor.name], sample.rows, axis)
            written = output.tensor(tensor.name)
            if not known_finite:
                _check_finite(written, tensor, at_work)
            found = sample.of(written, axis)
            inputs = _inputs(reader, tensor, sample, loaded)
            off_by_one += _compare(found, inputs, survey, tensor, sample)
            rows += len(found)
            elements += found.numel()
            done += headers[tensor.name].bytes
            on_bytes(done, total)
    return Verification(len(plan.tensors), rows, elements, off_by_one, done)


# --- files ------------------------------------------------------------------------------------


def _look_up(out: Path, survey: Survey) -> Model:
    reference = ModelReference(model=ModelPath(path=str(out)))
    model = look_up(reference, survey.options.trust_remote_code)
    if model.file_problem:
        raise ChatVecError(f"the output: {model.file_problem}.", AGAIN)
    return model


def _check_names(headers: Mapping[str, TensorHeader], plan: MergePlan, out: Path) -> None:
    planned = [tensor.name for tensor in plan.tensors]
    for name in planned:
        if name not in headers:
            raise ChatVecError(f"{name} is missing in the output.", AGAIN)
    for name in headers.keys() - set(planned):
        raise ChatVecError(f"{name} is in the output, and the recipe plans no such tensor.", AGAIN)
    files = {header.file for header in headers.values()}
    for file in (*out.glob("*.safetensors"), *out.glob("*.bin")):
        if file.name not in files:
            raise ChatVecError(f"{file.name} in the output has weights that no index names.", AGAIN)


def _check_config(model: Model, plan: MergePlan, output: _Output) -> None:
    """Check that the config describes the weights next to it."""
    headers = model.tensors or {}
    architecture = plan.architecture
    embeddings = _of_kind(plan, "embeddings")
    if embeddings is not None:
        key = architecture.vocab_size_config_key or "vocab_size"
        rows = headers[embeddings.name].shape[embeddings.weight.vocabulary_axis or 0]
        _check_field(model, key, rows, f"{embeddings.name} has as many rows")
    if len(architecture.modules) == 1 and plan.layers:
        (module,) = architecture.modules.values()
        key = module.architecture.num_layers_config_key()
        _check_field(model, key, plan.layers, "the recipe plans as many layers")

    sizes: dict[torch.dtype, int] = defaultdict(int)
    for header in headers.values():
        sizes[header.dtype] += header.bytes
    dtype = max(sizes, key=sizes.__getitem__)
    if model.config.dtype is not None:
        stored = f"the weights are stored in {dtype_name(dtype)}"
        _check_field(model, "dtype", dtype, stored)
    _check_tied(model, plan, output)


def _check_tied(model: Model, plan: MergePlan, output: _Output) -> None:
    """Check that a head counts if there is one, and that nobody looks for one if there is none."""
    headers = model.tensors or {}
    heads = [t for t in plan.tensors if t.kind == "head" and len(headers[t.name].shape) == 2]
    embeddings = _of_kind(plan, "embeddings")
    if not model.config.tie_word_embeddings:
        for weight in plan.architecture.all_weights(model.config):
            if weight.tied_names and weight.name not in headers:
                stored = f"{weight.name} is not stored"
                _check_field(model, "tie_word_embeddings", True, stored)
    elif embeddings is not None and heads and not _are_equal(heads[0], embeddings, output):
        stored = f"{heads[0].name} is not {embeddings.name} once more"
        _check_field(model, "tie_word_embeddings", False, stored)


def _are_equal(one: PlannedTensor, other: PlannedTensor, output: _Output) -> bool:
    tensors = [output.tensor(tensor.name) for tensor in (one, other)]
    parts = zip(*(tensor.reshape(-1).split(CHUNK) for tensor in tensors), strict=False)
    return tensors[0].shape == tensors[1].shape and all(torch.equal(a, b) for a, b in parts)


def _of_kind(plan: MergePlan, kind: str) -> PlannedTensor | None:
    return next((tensor for tensor in plan.tensors if tensor.kind == kind), None)


def _check_field(model: Model, key: str, expected: object, reason: str) -> None:
    found = get_config_value(model.config, key)
    if found != expected:
        both = (str(value).removeprefix("torch.") for value in (found, expected))
        raise ChatVecError(
            f"config.json of the output has {key} {' in place of '.join(both)}: {reason}.", AGAIN
        )


def _checked_tokens(model: Model, survey: Survey) -> Mapping[str, int]:
    """Return the output's tokens, after checking that they and the embeddings fit together."""
    assert survey.plan is not None
    if survey.tokens is None:
        return {}
    if model.tokenizer is None:
        raise ChatVecError(
            f"the output's tokenizer does not load ({model.tokenizer_problem}).", AGAIN
        )
    found, expected = model.tokenizer.ids, survey.tokens
    for token in [*expected, *found]:
        # mergekit numbers the tokens of a union in chance order; rows are compared by token then.
        numbered = survey.vocabulary is not None and token in found and token in expected
        if not numbered and found.get(token) != expected.get(token):
            raise ChatVecError(
                f"the output's tokenizer has {token!r} as {found.get(token, 'no token')}, and the "
                f"recipe says {expected.get(token, 'none')}.",
                AGAIN,
            )
    embeddings = _of_kind(survey.plan, "embeddings")
    if embeddings is not None and model.tensors is not None:
        rows = model.tensors[embeddings.name].shape[embeddings.weight.vocabulary_axis or 0]
        token, last = max(found.items(), key=lambda item: item[1])
        if last >= rows:
            raise ChatVecError(
                f"the output's tokenizer has {token!r} as {last}, but {embeddings.name} has only "
                f"{rows} rows.",
                "Write `tokenizer: {source: base}`: mergekit then drops tokens without a row.",
            )
    return found


# --- tensors ----------------------------------------------------------------------------------


def _check_header(found: TensorHeader, expected: TensorHeader, tensor: PlannedTensor) -> None:
    if found.shape != expected.shape:
        raise ChatVecError(
            f"{tensor.name} has the shape {list(found.shape)} in the output in place of "
            f"{list(expected.shape)}.",
            AGAIN,
        )
    if found.dtype != expected.dtype:
        raise ChatVecError(
            f"{tensor.name} is {dtype_name(found.dtype)} in the output in place of "
            f"{dtype_name(expected.dtype)}.",
            AGAIN,
        )


def _check_finite(written: Tensor, tensor: PlannedTensor, at_work: Workers) -> None:
    if not written.is_floating_point():
        return
    flat = written.reshape(-1)

    def check(elements: slice) -> None:
        for chunk in flat[elements].split(CHUNK):
            # NaN wins over all else; eight times as fast as `isfinite` over all elements.
            if len(chunk) and not torch.stack(torch.aminmax(chunk)).isfinite().all():
                raise ChatVecError(
                    f"{tensor.name} has NaN or infinite elements in the output.", AGAIN
                )

    at_work.for_ranges(flat.numel(), check)


def _header_by_loading(
    survey: Survey, tensor: PlannedTensor
) -> tuple[TensorHeader, dict[ModelReference, Tensor]]:
    """Return what headers do not tell, and the tensor of cp that had to be loaded for it.

    They do not tell of experts, which mergekit joins while it loads, which takes time; nor of
    models with an adapter.
    """
    config, axis = survey.recipe.config, tensor.weight.vocabulary_axis
    dtype = weights_dtype(tensor.weight.force_dtype or config.out_dtype or config.dtype)
    cp = load_tensor(tensor, tensor.roles.cp)
    assert cp is not None
    shape, dtypes = list(cp.shape), [cp.dtype]
    matched = survey.vocabulary if axis is not None else None
    if matched is not None and axis is not None:
        shape[axis] = matched.rows
    if dtype is None and (matched is not None or len(tensor.readers) > 1):
        others = (load_tensor(tensor, model) for model in tensor.inputs if model != tensor.roles.cp)
        dtypes += [other.dtype for other in others if other is not None]
    dtype = dtype or reduce(torch.promote_types, dtypes)
    return TensorHeader(dtype, tuple(shape), ""), {tensor.roles.cp: cp}


# --- rows -------------------------------------------------------------------------------------


def _sample(
    survey: Survey,
    tensor: PlannedTensor,
    shape: tuple[int, ...],
    tokens: Mapping[str, int],
    count: int,
    chance: random.Random,
) -> _Sample:
    axis = tensor.weight.vocabulary_axis
    if axis is None:
        lengths = shape[:-1]
        chosen = _some(range(math.prod(lengths)), count, chance)
        where = torch.unravel_index(torch.tensor(chosen), lengths) if lengths else ()
        return _Sample(chosen, where)
    named = {tokens[token] for token in _named_tokens(survey) if token in tokens}
    if survey.vocabulary is None:
        rows = range(shape[axis])
        chosen = _some(rows, count, chance, [i for i in named if i in rows])
        return _Sample(chosen, (torch.tensor(chosen),))
    by_id = {i: token for token, i in tokens.items()}
    chosen = _some(sorted(by_id), count, chance, named)
    return _Sample(chosen, (torch.tensor(chosen),), tuple(by_id[i] for i in chosen))


def _named_tokens(survey: Survey) -> Iterator[str]:
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


def _inputs(
    reader: _Rows,
    tensor: PlannedTensor,
    sample: _Sample,
    loaded: dict[ModelReference, Tensor],
) -> dict[ModelReference, Tensor]:
    """Return the sampled rows of the models that have the tensor and whose part in it is not 0.

    What is loaded already is let go of as soon as its rows are taken.
    """
    if sample.tokens is not None:
        return _aligned_inputs(reader, tensor, sample.tokens)
    rows = {
        model: reader.of_input(tensor, model, sample, loaded.pop(model, None))
        for model in tensor.readers
    }
    return {model: part for model, part in rows.items() if part is not None}


def _aligned_inputs(
    reader: _Rows, tensor: PlannedTensor, tokens: Sequence[str]
) -> dict[ModelReference, Tensor]:
    """Return the rows that stand for tokens in each model, with the roundings of mergekit's means.

    mergekit matches rows in the dtype that all models' embeddings promote to.
    """
    vocabulary = reader.survey.vocabulary
    assert vocabulary is not None
    sources = {m: [vocabulary.sources(m, t) for t in tokens] for m in tensor.readers}
    wanted: dict[ModelReference, set[int]] = {model: set() for model in tensor.inputs}
    for row in (row for each in sources.values() for rows in each for row in rows):
        wanted[row.model].add(row.index)
    found: dict[Row, Tensor] = {}
    dtypes, width = [], 0
    for model, indices in wanted.items():
        chosen = [0, *sorted(indices)]
        part = reader.of_input(tensor, model, _Sample(chosen, (torch.tensor(chosen),)))
        if part is None:
            sources.pop(model, None)
            continue
        found |= {Row(model, i): row for i, row in zip(chosen, part, strict=True)}
        dtypes.append(part.dtype)
        width = part.shape[1]
    dtype = reduce(torch.promote_types, dtypes)
    order = list(tensor.inputs)

    def mean(rows: Rows) -> Tensor:
        # In mergekit's order, which decides how sums in half precision are rounded.
        ordered = sorted(rows, key=lambda row: order.index(row.model))
        parts = [found[row].to(dtype) for row in ordered if row in found]
        return (
            sum(parts[1:], start=parts[0]) / len(parts) if parts else torch.zeros(width).to(dtype)
        )

    return {model: torch.stack([mean(rows) for rows in each]) for model, each in sources.items()}


# --- the sum ----------------------------------------------------------------------------------


def _compare(
    found: Tensor,
    inputs: Mapping[ModelReference, Tensor],
    survey: Survey,
    tensor: PlannedTensor,
    sample: _Sample,
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
            chat: tensor.ratios[chat] * (inputs[chat].double() - inputs[roles.base].double())
            for chat in chats
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


def _slack(survey: Survey, dtype: torch.dtype) -> float:
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
    sample: _Sample,
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
        f"{tensor.ratios[chat]:g} · ({value(chat)} − {value(roles.base)})"
        for chat in roles.chats
        if chat in inputs
    ]
    calculation = " + ".join([value(roles.cp), *vectors])
    return ChatVecError(
        f"{tensor.name}, {place}: the output has {float(found[row, column]):.6g}, and the recipe "
        f"says {float(expected[row, column]):.6g}, from {calculation}.",
        AGAIN,
    )
