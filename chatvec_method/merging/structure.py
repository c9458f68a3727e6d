"""All of an output but its elements, held against its recipe: names, shapes, config, tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from mergekit.common import ModelPath, ModelReference
from transformers import PretrainedConfig

from chatvec_method.errors import DIFFERS, ChatVecError
from chatvec_method.facts.checkpoint import Checkpoint
from chatvec_method.facts.models import Model, TensorHeader, config_value, look_up, text_config
from chatvec_method.facts.plan import MergePlan, PlannedTensor
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.finishing.donors import in_chance_order
from chatvec_method.finishing.hashes_file import HASHES_FILE
from chatvec_method.finishing.tokenizer_files import has_tokenizer
from chatvec_method.merging.recompute import pieces, recompute
from chatvec_method.method.settings import dtype_name, tokenizer_source
from chatvec_method.weights.reading import Reader
from chatvec_method.weights.stored import StoredTensors, check_no_others

AGAIN = "Merge again, or run `chatvec finish` on the folder."
OnBytes = Callable[[int, int], None]


@dataclass(frozen=True)
class Output:
    """An output that has the tensors, config and tokens that its recipe makes."""

    model: Model
    stored: StoredTensors
    tokens: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """Of all tensors."""
        return sum(header.bytes for header in self.stored.headers.values())

    def recomputed(
        self,
        survey: ReadySurvey,
        reader: Reader,
        *,
        elements_per_tensor: int | None = None,
        on_bytes: OnBytes = lambda _done, _total: None,
    ) -> int:
        """Compute elements again (see `recompute`), with rows where this output has them."""
        if survey.vocabulary is not None and in_chance_order(survey):
            numbered = replace(survey.vocabulary, ids=self.tokens)
            survey = replace(survey, vocabulary=numbered, tokens=self.tokens)
        return recompute(
            self.stored,
            survey,
            reader,
            self.tokens,
            elements_per_tensor=elements_per_tensor,
            on_bytes=on_bytes,
        )


def structure(out: Path, survey: ReadySurvey) -> Output:
    """Return an output, after holding all but its elements against the recipe.

    Raises:
        ChatVecError: It is not the recipe's.
    """
    with differences():
        model = _look_up(out, survey)
        headers = model.tensors or {}
        _check_names(headers, survey, out)
        stored = StoredTensors(out, headers)
        for piece in pieces(headers, survey):
            _check_header(piece.name, headers[piece.name], piece.header)
        _check_config(model, survey.plan, stored)
        _check_parameters(model, survey)
        return Output(model, stored, _checked_tokens(stored, model, survey))


@contextmanager
def differences() -> Iterator[None]:
    """Let what is wrong with the output be told as that, whoever finds it."""
    try:
        yield
    except ChatVecError as error:
        raise ChatVecError(error.problem, error.fix, DIFFERS) from error


def _look_up(out: Path, survey: ReadySurvey) -> Model:
    reference = ModelReference(model=ModelPath(path=str(out)))
    model = look_up(reference, survey.options.trust_remote_code)
    if model.file_problem:
        raise ChatVecError(f"the output: {model.file_problem}.", AGAIN)
    return model


def _check_names(headers: Mapping[str, TensorHeader], survey: ReadySurvey, out: Path) -> None:
    plan, stock = survey.plan, not (out / HASHES_FILE).is_file()
    for tensor in plan.tensors:
        # Stock mergekit leaves out what transformers does not load.
        if not (
            {tensor.name, tensor.in_stock} & headers.keys() or (stock and plan.is_spare(tensor))
        ):
            raise ChatVecError(f"{tensor.name} is missing in the output.", AGAIN)
    known = {piece.name for piece in pieces(headers, survey)} | {*plan.ignored}
    for name in sorted(headers.keys() - known):
        raise ChatVecError(f"{name} is in the output, and the recipe plans no such tensor.", AGAIN)
    check_no_others(out, headers)


def _check_config(model: Model, plan: MergePlan, output: StoredTensors) -> None:
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
            own_size = config_value(text_config(own), "vocab_size")
            size = rows if own_size is None else own_size
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


def _check_tied(model: Model, plan: MergePlan, output: StoredTensors) -> None:
    """Check that a head counts if there is one, and that nobody looks for one if there is none."""
    headers = model.tensors or {}
    heads = [
        tensor
        for tensor in plan.tensors
        if tensor.kind == "head" and tensor.name in headers and len(headers[tensor.name].shape) == 2
    ]
    embeddings = _of_kind(plan, "embeddings")
    if not config_value(model.config, "tie_word_embeddings"):
        for weight in plan.architecture.all_weights(model.config):
            if weight.tied_names and weight.name not in headers:
                stored = f"{weight.name} is not stored"
                _check_field(model.config, None, "tie_word_embeddings", True, stored)
    elif embeddings is not None and heads and not _are_equal(heads[0], embeddings, output):
        stored = f"{heads[0].name} is not {embeddings.name} once more"
        _check_field(model.config, None, "tie_word_embeddings", False, stored)


def _are_equal(one: PlannedTensor, other: PlannedTensor, output: StoredTensors) -> bool:
    if output.headers[one.name].shape != output.headers[other.name].shape:
        return False
    parts = output.chunks(one.name)
    return all(
        torch.equal(output.elements(one.name, part), output.elements(other.name, part))
        for part in parts
    )


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


def _checked_tokens(output: StoredTensors, model: Model, survey: ReadySurvey) -> Mapping[str, int]:
    """Return the output's tokens, after checking that they and the embeddings fit together.

    With `--no-copy-tokenizer`, stock mergekit writes no tokenizer where the recipe names none; then
    `finish` will, and these are its tokens.
    """
    out, expected = output.folder, survey.tokens
    left_out = not has_tokenizer(out) and tokenizer_source(survey.recipe.config) is None
    if model.tokenizer is not None:
        found = model.tokenizer.ids
    elif not left_out or (out / HASHES_FILE).is_file():
        raise ChatVecError(
            f"the output's tokenizer does not load ({model.tokenizer_problem}).", AGAIN
        )
    else:
        found = expected
    for token in [*expected, *found]:
        # mergekit numbers the tokens of a union in chance order; rows are compared by token then.
        numbered = in_chance_order(survey) and token in found and token in expected
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


def _check_header(name: str, found: TensorHeader, expected: TensorHeader) -> None:
    if found.shape != expected.shape:
        raise ChatVecError(
            f"{name} has the shape {list(found.shape)} in the output in place of "
            f"{list(expected.shape)}.",
            AGAIN,
        )
    if found.dtype != expected.dtype:
        raise ChatVecError(
            f"{name} is {dtype_name(found.dtype)} in the output in place of "
            f"{dtype_name(expected.dtype)}.",
            AGAIN,
        )
