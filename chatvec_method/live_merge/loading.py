"""The merge as a transformers model whose parameters have memory, and no values yet.

It is loaded as the finished merge would be, by transformers' own `from_pretrained`: the same
config, dtypes, tied parameters, device map, generation config and tokenizer. Only in place of the
files of weights there are tensors of the same names and shapes that take no memory.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.facts.layout import Layout, layout_of, model_without_memory
from chatvec_method.facts.models import TensorHeader
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.finishing.ahead import write_files_to_load
from chatvec_method.quiet import quiet
from chatvec_method.recipe.ratios import Reworded, ratio_edits
from chatvec_method.talk.speaker import placement

TO_DISK = "Write the merge to disk, with `chatvec merge`."
NO_ROOM = "the model needs more memory than the device has"
ON_CPU = "Put it on the CPU, with the device `cpu`."


@dataclass(frozen=True)
class Loaded:
    """A model without values, and what goes with it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layout: Layout
    """Which parameters the merge's tensors become."""
    files: Path
    """The folder of all files of the merge but its weights, for whoever is through to remove."""


def load_without_values(survey: ReadySurvey, device: str) -> Loaded:
    """Load a merge as a transformers model, all but the values of its parameters.

    Its dtypes are those of the merge where no ratio is 0: where one is, the merge may keep cp's own
    narrower dtype, which these hold exactly.

    Args:
        survey: Of the recipe, with all models' files here.
        device: As torch names it, or "auto": the accelerators if there are any, else the CPU.

    Raises:
        ChatVecError: transformers cannot load such a merge, or it does not fit on the device.
    """
    settings = placement(device)
    folder = Path(tempfile.mkdtemp(prefix="chatvec-live-"))
    try:
        return _loaded(_with_vectors(survey), folder, settings)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, ChatVecError) or not isinstance(error, Exception):
            raise
        raise _explained(error, survey.recipe.name) from error


def _loaded(survey: ReadySurvey, folder: Path, settings: Mapping[str, str]) -> Loaded:
    trust = survey.options.trust_remote_code
    write_files_to_load(folder, survey)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust)
    headers = {name: (header.shape, header.dtype) for name, header in survey.headers.items()}
    layout = layout_of(config, headers, trust)
    shell = model_without_memory(config, trust)
    if layout is None or shell is None:
        raise _not_live("transformers cannot build it")
    if layout.missing:
        raise _not_live(f"transformers wants a tensor {min(layout.missing)}, which it lacks")
    kind: Any = type(shell)
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
        model = kind.from_pretrained(
            None,
            config=config,
            state_dict=_stand_ins(survey.headers, layout),
            dtype="auto",
            **settings,
        )
        model.generation_config = GenerationConfig.from_pretrained(folder)
    model.name_or_path = model.config.name_or_path = survey.recipe.name
    _give_memory(model)
    return Loaded(model, tokenizer, layout, folder)


def _explained(error: Exception, name: str) -> ChatVecError:
    """Return what transformers raised, in words for people."""
    if isinstance(error, torch.OutOfMemoryError):
        return ChatVecError(f"{name}: {NO_ROOM}.", ON_CPU)
    if "trust_remote_code" in str(error):
        return ChatVecError(
            f"{name}: its models bring Python code of their own.",
            "Pass `trust_remote_code` if you trust who wrote it.",
        )
    return _not_live(first_line(error))


def _with_vectors(survey: ReadySurvey) -> ReadySurvey:
    """Return the survey of the merge with no ratio 0, where every tensor has its widest dtype."""
    chats = [str(chat) for chat in survey.plan.roles.chats]
    edits = ratio_edits(survey.recipe.raw, dict.fromkeys(chats, 1.0))
    return replace(survey, plan=survey.plan.with_ratios(Reworded(survey.recipe, edits).config))


def _stand_ins(headers: Mapping[str, TensorHeader], layout: Layout) -> dict[str, Tensor]:
    """Return tensors in place of the merge's: each is one number, seen as often as needed.

    Where two parameters are tied, transformers compares what is stored for both: these differ, as
    two tensors with ratios of their own may.
    """
    tied = {*layout.tied, *layout.tied.values()}
    numbers = {name: i for i, name in enumerate(sorted(tied), start=1)}
    stand_ins = {}
    for name, header in headers.items():
        number = next((numbers[p] for p in layout.parameters_of(name) if p in numbers), 0)
        one = torch.full((), number, dtype=torch.float32).to(header.dtype)
        stand_ins[name] = one.expand(header.shape)
    return stand_ins


def _give_memory(model: PreTrainedModel) -> None:
    """Give memory of its own to every parameter that is a number seen many times."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.device.type == "meta":
            raise ChatVecError(f"{name}: {NO_ROOM}.", ON_CPU)
        if not tensor.is_contiguous():
            tensor.data = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def _not_live(why: str) -> ChatVecError:
    return ChatVecError(f"the merge cannot be held as a live model: {why}.", TO_DISK)
