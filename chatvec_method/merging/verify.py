"""An output held against the hashes of what was written and against its recipe, by reading alone.

By its hashes, every byte of weights and files is what was written. By the recipe, names, shapes,
dtypes, index, config, tokenizer, template and stop tokens are what it makes; where there are no
hashes, as in what stock mergekit wrote, every element is looked at for NaN and infinity. Deep,
every element is computed again from the models.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mergekit.common import ModelPath, ModelReference
from mergekit.options import MergeOptions
from torch import Tensor
from transformers import PretrainedConfig

from chatvec_method.errors import DIFFERS, ChatVecError
from chatvec_method.facts.checkpoint import Checkpoint
from chatvec_method.facts.models import Model, TensorHeader, config_value, look_up, text_config
from chatvec_method.facts.plan import MergePlan, PlannedTensor
from chatvec_method.facts.survey import ReadySurvey, Survey
from chatvec_method.facts.survey import survey as survey_recipe
from chatvec_method.finishing.configs import config_text
from chatvec_method.finishing.donors import config_donor, in_chance_order
from chatvec_method.finishing.finish import finish
from chatvec_method.finishing.hashes_file import HASHES_FILE, Hashes, read_hashes
from chatvec_method.finishing.output import RECIPE_FILE, recipe_of
from chatvec_method.merging.read_back import read_back
from chatvec_method.merging.recompute import pieces, recompute
from chatvec_method.method.computed import is_computed
from chatvec_method.method.settings import dtype_name
from chatvec_method.progress import Progress
from chatvec_method.weights.fetching import fetched, output_folder
from chatvec_method.weights.reading import Reader
from chatvec_method.weights.stored import StoredTensors, forget
from chatvec_method.workers import Workers, workers

CHUNK = 1 << 20
"""Elements looked at together for NaN and infinity."""
SAMPLE = 1 << 12
"""Elements of each tensor that are computed again where not all of them are."""
AGAIN = "Merge again, or run `chatvec finish` on the folder."
NOTES = ("transformers_version", "_name_or_path", "torch_dtype", "dtype")
"""What a config says of the program that wrote it; its dtype is held against the weights."""
STOPS = ("eos_token_id", "bos_token_id", "pad_token_id")

OnProgress = Callable[[Progress], None]
OnBytes = Callable[[int, int], None]


@dataclass(frozen=True)
class Verification:
    """How much of an output was compared, all of it right."""

    tensors: int
    bytes: int
    """Of all tensors."""
    hashed: bool
    """Whether all of them, and the other files, are what was written, by the hashes beside them."""
    unheld: str = ""
    """Why it was not held against its recipe; empty if it was."""
    elements: int = 0
    """Computed again from the models."""
    unfinished: tuple[str, ...] = ()
    """Files that `chatvec finish` would change, as stock mergekit wrote them."""


def verify(
    out: str | os.PathLike[str],
    survey: Survey | None,
    options: MergeOptions,
    *,
    deep: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> Verification:
    """Hold a merge's output against its hashes and its recipe.

    What the system holds of its files in memory is forgotten first, where that can be asked for, so
    that they come from the disk.

    Args:
        out: The output, of `chatvec merge` or of stock mergekit: a folder, or a name on the hub.
        survey: Of the recipe; None for the recipe in the output. Where there is none or its models
            cannot be found, hashes are enough, unless deep.
        options: mergekit's.
        deep: Whether all elements are computed again, which reads the models.
        on_progress: Is told how far it is.

    Returns:
        How much was compared, all of it right.

    Raises:
        ChatVecError: The output is not what it should be (its code is `errors.DIFFERS`) and what is
            wrong first; or that cannot be told.
    """
    folder = output_folder(os.fspath(out), options)
    forget(folder)
    with _differences():
        written = read_hashes(folder)

    def on_bytes(done: int, total: int) -> None:
        on_progress(Progress("verify", done, total))

    size = 0
    if written is not None and not deep:
        size = read_back(folder, written, on_bytes)
    try:
        ready = (survey or survey_recipe(recipe_of(folder), options)).ready()
    except ChatVecError as error:
        if survey is not None or deep or written is None:
            raise
        return Verification(len(written.tensors), size, hashed=True, unheld=str(error))
    if deep:
        ready = fetched(ready, lambda done, of: on_progress(Progress("fetch", done, of)))
    output = _structure(folder, ready)
    unfinished = _unfinished(output, ready, written)
    elements = 0
    if deep:  # before hashes, which know no elements
        elements = output.recomputed(
            ready,
            Reader(ready.plan.checkpoints, lazy_unpickle=options.lazy_unpickle),
            on_bytes=lambda done, total: on_progress(Progress("recompute", done, total)),
        )
        if written is not None:
            read_back(folder, written, on_bytes)
    elif written is None:
        _check_all_finite(output, on_bytes)
    return Verification(
        tensors=len(output.stored.headers),
        bytes=output.bytes,
        hashed=written is not None,
        elements=elements,
        unfinished=unfinished,
    )


def verify_written(
    out: Path, survey: ReadySurvey, reader: Reader, on_bytes: OnBytes
) -> Verification:
    """Hold an output that has just been written and finished against its hashes and its recipe.

    Besides, some elements of each tensor are computed again, on the CPU.

    Args:
        out: The output, with its hashes.
        survey: Of the recipe, with all models' files here.
        reader: Of the models' files.
        on_bytes: Is told how many bytes of tensors have been read, and how many there are.

    Raises:
        ChatVecError: The output is not what it should be.
    """
    written = read_hashes(out)
    assert written is not None
    size = read_back(out, written, on_bytes)
    elements = _structure(out, survey).recomputed(survey, reader, elements_per_tensor=SAMPLE)
    return Verification(len(written.tensors), size, hashed=True, elements=elements)


@dataclass(frozen=True)
class _Output:
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


def _structure(out: Path, survey: ReadySurvey) -> _Output:
    """Return an output, after holding all but its elements against the recipe.

    Raises:
        ChatVecError: It is not the recipe's.
    """
    with _differences():
        model = _look_up(out, survey)
        headers = model.tensors or {}
        _check_names(headers, survey, out)
        stored = StoredTensors(out, headers)
        for piece in pieces(headers, survey):
            _check_header(piece.name, headers[piece.name], piece.header)
        _check_config(model, survey.plan, stored)
        _check_parameters(model, survey)
        return _Output(model, stored, _checked_tokens(model, survey))


@contextmanager
def _differences() -> Iterator[None]:
    """Let what is wrong with the output be told as that, whoever finds it."""
    try:
        yield
    except ChatVecError as error:
        raise ChatVecError(error.problem, error.fix, DIFFERS) from error


# --- files ------------------------------------------------------------------------------------


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
    files = {header.file for header in headers.values()}
    for file in (*out.glob("*.safetensors"), *out.glob("*.bin")):
        if file.name not in files:
            raise ChatVecError(f"{file.name} in the output has weights that no index names.", AGAIN)


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
    parts = _chunks(output.whole(one.name))
    return all(
        torch.equal(output.elements(one.name, part), output.elements(other.name, part))
        for part in parts
    )


def _chunks(elements: slice) -> Iterator[slice]:
    for start in range(elements.start, elements.stop, CHUNK):
        yield slice(start, min(start + CHUNK, elements.stop))


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


# --- what stock mergekit leaves to `finish` ---------------------------------------------------


def _unfinished(output: _Output, survey: ReadySurvey, written: Hashes | None) -> tuple[str, ...]:
    """Return which files `finish` would change, where that is only because nobody has finished.

    Raises:
        ChatVecError: A file says what neither the recipe nor base_model does.
    """
    with _differences():
        changes = finish(output.stored.folder, survey, card=False, dry_run=True)
        # Models may have moved since; that the recipe is the same, `finish` has seen.
        names = tuple(c.name for c in changes if c.name not in (HASHES_FILE, RECIPE_FILE))
        if names and written is not None:
            raise ChatVecError(
                f"{names[0]} of the output is not what the recipe makes.",
                "`chatvec finish --dry-run` shows how it differs.",
            )
        if names:
            _check_unfinished(output, survey)
    return names


def _check_unfinished(output: _Output, survey: ReadySurvey) -> None:
    """Check that the output chats and stops as the recipe says, or as base_model does."""
    model, donor = output.model, config_donor(survey)
    chat = survey.format.template
    template = output.model.tokenizer.chat_template if output.model.tokenizer else None
    allowed = [chat.text if chat else None, *(_template(m) for m in survey.models.values()), None]
    if template not in allowed and (template or "").strip() not in map(_stripped, allowed):
        raise ChatVecError(
            "the output's chat template is neither the recipe's nor one of its models'.", AGAIN
        )
    stops = {stop.id for stop in survey.format.stops}
    of_models = [_stops(model) for model in survey.models.values()]
    for token in _stops(model):
        if token not in stops and not any(token in each for each in of_models):
            raise ChatVecError(
                f"the output stops at token {token}, which is a stop token neither of the recipe "
                "nor of its models.",
                AGAIN,
            )
    here, theirs = model.config.to_dict(), donor.config.to_dict()
    made = _config_made(output, survey)
    for key in sorted(here.keys() | theirs.keys()):
        if key in NOTES or key in STOPS or here.get(key) == theirs.get(key):
            continue
        if key not in made or here.get(key) != made[key]:
            raise ChatVecError(
                f"config.json of the output has {key} {here.get(key)!r:.60}, and neither the "
                f"recipe nor {donor} has it ({theirs.get(key)!r:.60}).",
                AGAIN,
            )


def _template(model: Model) -> str | None:
    return model.tokenizer.chat_template if model.tokenizer else None


def _stripped(template: str | None) -> str:
    return (template or "").strip()


def _stops(model: Model) -> set[int]:
    return {i for ids in model.token_ids("eos_token_id") for i in ids}


def _config_made(output: _Output, survey: ReadySurvey) -> dict[str, Any]:
    """Return the config that `finish` would write, with all that its class adds."""
    text = config_text(output.model, survey, survey.format)
    made: dict[str, Any] = type(output.model.config).from_dict(json.loads(text)).to_dict()
    return made


# --- tensors ----------------------------------------------------------------------------------


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


def _check_all_finite(output: _Output, on_bytes: OnBytes) -> None:
    done, stored = 0, output.stored
    with workers() as at_work:
        for name, header in stored.headers.items():
            if header.dtype.is_floating_point and not is_computed(name, header.shape):
                _check_finite(stored, name, at_work)
            done += header.bytes
            on_bytes(done, output.bytes)


def _check_finite(stored: StoredTensors, name: str, at_work: Workers) -> None:
    def is_finite(part: slice) -> bool:
        # NaN wins over all else; eight times as fast as `isfinite` over all elements.
        ends: Tensor = torch.stack(torch.aminmax(stored.elements(name, part)))
        return bool(ends.isfinite().all())

    if not all(at_work.pool.map(is_finite, _chunks(stored.whole(name)))):
        raise ChatVecError(f"{name} has NaN or infinite elements in the output.", AGAIN, DIFFERS)
