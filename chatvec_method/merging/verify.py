"""An output held against its recipe, by reading alone.

Names, shapes, dtypes, index, config and tokenizer are compared in full, and every element is looked
at for NaN and infinity, unless that was done when it was written. What the elements should be is
computed again, in float64 and without the kernel, for a random sample of rows of every tensor, from
the inputs as mergekit loads them.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mergekit.common import ModelPath, ModelReference
from safetensors import safe_open
from torch import Tensor
from transformers import PretrainedConfig

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.checkpoint import Checkpoint
from chatvec_method.facts.models import Model, TensorHeader, config_value, look_up, text_config
from chatvec_method.facts.plan import MergePlan, PlannedTensor
from chatvec_method.facts.survey import ReadySurvey, Survey
from chatvec_method.merging.recompute import (
    AGAIN,
    RowReader,
    compare,
    sample_rows,
    sampled_inputs,
)
from chatvec_method.method.settings import dtype_name
from chatvec_method.weights.read_ahead import asking
from chatvec_method.weights.reading import Reader
from chatvec_method.workers import Workers, workers

CHUNK = 1 << 20
"""Elements looked at together for NaN and infinity."""


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
        is_pickle = isinstance(self.opened, dict)
        tensor: Tensor = self.opened[name] if is_pickle else self.opened.get_tensor(name)
        return tensor


def verify(
    out: Path,
    survey: Survey | ReadySurvey,
    *,
    reader: Reader | None = None,
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
        survey: Of the recipe, with all models' files here.
        reader: Of the models' files, if there is one already.
        rows_per_tensor: How many rows of each tensor are computed again, besides the first and the
            last, and in embeddings those of the recipe's tokens and of the chat format's.
        seed: Of their choice.
        known_finite: Whether all elements have been looked at for NaN and infinity already; then
            nothing but the sampled rows is read of the output, either.
        on_bytes: Is told how many bytes of the output have been read, and how many there are.

    Raises:
        ChatVecError: The output is not what the recipe says; names what is wrong first.
    """
    survey = survey.ready()
    plan, expected = survey.plan, survey.headers
    model = _look_up(out, survey)
    headers = model.tensors or {}
    _check_names(headers, plan, out)
    output = _Output(out, headers)
    _check_config(model, plan, output)
    _check_parameters(model, survey)
    tokens = _checked_tokens(model, survey)
    total = sum(header.bytes for header in headers.values())
    done = rows = elements = off_by_one = 0
    with workers() as at_work, asking() as ask:
        row_reader = RowReader(survey, reader or Reader(plan.checkpoints), ask)
        for tensor in plan.tensors:
            _check_header(headers[tensor.name], expected[tensor.name], tensor)
            chance = random.Random(f"{seed} {tensor.name}")
            shape = expected[tensor.name].shape
            sample = sample_rows(survey, tensor, shape, tokens, rows_per_tensor, chance)
            axis = tensor.weight.vocabulary_axis
            if known_finite:
                row_reader.ask_for(model, headers[tensor.name], sample.rows, axis)
            written = output.tensor(tensor.name)
            if not known_finite:
                _check_finite(written, tensor, at_work)
            sampled = sample.of(written, axis)
            inputs = sampled_inputs(row_reader, tensor, sample)
            off_by_one += compare(sampled, inputs, survey, tensor, sample)
            rows += len(sampled)
            elements += sampled.numel()
            done += headers[tensor.name].bytes
            on_bytes(done, total)
    return Verification(len(plan.tensors), rows, elements, off_by_one, done)


# --- files ------------------------------------------------------------------------------------


def _look_up(out: Path, survey: ReadySurvey) -> Model:
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
    text = text_config(model.config)
    embeddings = _of_kind(plan, "embeddings")
    if embeddings is not None:
        rows = headers[embeddings.name].shape[embeddings.weight.vocabulary_axis or 0]
        reason = f"{embeddings.name} has as many rows"
        donor = embeddings.header(plan.config.base_model)
        key = plan.architecture.vocab_size_config_key
        size: object = rows
        if donor is not None and rows == donor.shape[embeddings.weight.vocabulary_axis or 0]:
            # A config that counts fewer rows than there are means it, and is left as it is.
            own = plan.checkpoints[plan.config.base_model].model.config
            size = config_value(text_config(own), "vocab_size") or rows
        _check_field(text, key, "vocab_size", size, reason)
    module = plan.architecture.modules.get(plan.module)
    if module is not None and plan.layers:
        key = module.architecture.num_layers_config_key()
        reason = "the recipe plans as many layers"
        _check_field(text, key, "num_hidden_layers", plan.layers, reason)

    sizes: dict[torch.dtype, int] = defaultdict(int)
    for header in headers.values():
        sizes[header.dtype] += header.bytes
    dtype = max(sizes, key=sizes.__getitem__)
    if model.config.dtype is not None:
        stored = f"the weights are stored in {dtype_name(dtype)}"
        _check_field(model.config, "dtype", "dtype", dtype, stored)
    _check_tied(model, plan, output)


def _check_parameters(model: Model, survey: ReadySurvey) -> None:
    """Check that transformers finds all of the model in the output that it finds in cp.

    It makes up what it does not find, and says so in a line that nobody reads.
    """
    plan = survey.plan
    layout = Checkpoint(model, survey.options.trust_remote_code).layout
    of_cp = plan.checkpoints[plan.roles.cp].layout
    if layout is None:
        return
    missing = layout.missing - (of_cp.missing if of_cp else frozenset())
    if missing:
        raise ChatVecError(
            f"{min(missing)} is in no file of the output, of {len(missing)} parameters in all, "
            "and the model has it by its config.",
            AGAIN,
        )


def _check_tied(model: Model, plan: MergePlan, output: _Output) -> None:
    """Check that a head counts if there is one, and that nobody looks for one if there is none."""
    headers = model.tensors or {}
    heads = [t for t in plan.tensors if t.kind == "head" and len(headers[t.name].shape) == 2]
    embeddings = _of_kind(plan, "embeddings")
    if not config_value(model.config, "tie_word_embeddings"):
        for weight in plan.architecture.all_weights(model.config):
            if weight.tied_names and weight.name not in headers:
                stored = f"{weight.name} is not stored"
                _check_field(model.config, None, "tie_word_embeddings", True, stored)
    elif embeddings is not None and heads and not _are_equal(heads[0], embeddings, output):
        stored = f"{heads[0].name} is not {embeddings.name} once more"
        _check_field(model.config, None, "tie_word_embeddings", False, stored)


def _are_equal(one: PlannedTensor, other: PlannedTensor, output: _Output) -> bool:
    tensors = [output.tensor(tensor.name) for tensor in (one, other)]
    parts = zip(*(tensor.reshape(-1).split(CHUNK) for tensor in tensors), strict=False)
    return tensors[0].shape == tensors[1].shape and all(torch.equal(a, b) for a, b in parts)


def _of_kind(plan: MergePlan, kind: str) -> PlannedTensor | None:
    return next((tensor for tensor in plan.tensors if tensor.kind == kind), None)


def _check_field(
    config: PretrainedConfig, key: str | None, usual_key: str, expected: object, reason: str
) -> None:
    """Check what a config says under mergekit's key for something, or the usual one."""
    name = (key or usual_key).rpartition(".")[2]
    value = config_value(config, name)
    if value is not None and value != expected:
        both = (str(each).removeprefix("torch.") for each in (value, expected))
        raise ChatVecError(
            f"config.json of the output has {name} {' in place of '.join(both)}: {reason}.", AGAIN
        )


def _checked_tokens(model: Model, survey: ReadySurvey) -> Mapping[str, int]:
    """Return the output's tokens, after checking that they and the embeddings fit together."""
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


# --- rows -------------------------------------------------------------------------------------


# --- the sum ----------------------------------------------------------------------------------
