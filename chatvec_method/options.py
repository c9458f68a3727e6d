"""mergekit's options as keywords of Python functions.

`MergeOptions` drops what it does not know without a word, and tells what it cannot read in the
words of pydantic.
"""

from __future__ import annotations

import difflib
import os
from typing import Any, TypedDict

from mergekit.common import parse_kmb
from mergekit.options import MergeOptions
from pydantic import ValidationError

from chatvec_method.errors import ChatVecError


class OptionsButDevice(TypedDict, total=False):
    """mergekit's options but `device`, for what has a device of its own."""

    allow_crimes: bool
    async_write: bool
    clone_tensors: bool
    copy_tokenizer: bool
    cuda: bool
    gpu_rich: bool
    lazy_unpickle: bool
    lora_merge_cache: str | os.PathLike[str]
    lora_merge_dtype: str
    low_cpu_memory: bool
    multi_gpu: bool
    num_threads: int
    """Of torch, from now on."""
    out_shard_size: int | str
    """In bytes, or as in `5B`."""
    quiet: bool
    """Whether no bars are shown."""
    random_seed: int
    read_to_gpu: bool
    safe_serialization: bool
    transformers_cache: str | os.PathLike[str]
    trust_remote_code: bool
    unsafe_truncate_embeddings: bool
    verbosity: int
    write_model_card: bool
    write_threads: int


def options_of_models(
    trust_remote_code: bool, lora_merge_cache: str | os.PathLike[str] | None
) -> OptionsButDevice:
    """Return the options that loading models takes; a survey that has its own takes no others."""
    options: OptionsButDevice = {}
    if trust_remote_code:
        options["trust_remote_code"] = True
    if lora_merge_cache is not None:
        options["lora_merge_cache"] = os.fspath(lora_merge_cache)
    return options


class Options(OptionsButDevice, total=False):
    """mergekit's options, as its commands have them: `--lazy-unpickle` is `lazy_unpickle=True`."""

    device: str


def merge_options(**options: Any) -> MergeOptions:
    """Return mergekit's options.

    Raises:
        ChatVecError: There is no such option, or it has no such value.
    """
    for name in options:
        if name not in MergeOptions.model_fields:
            near = difflib.get_close_matches(name, MergeOptions.model_fields, n=1)
            raise ChatVecError(
                f"mergekit has no option `{name}`.",
                f"Did you mean `{near[0]}`?"
                if near
                else f"It has {', '.join(sorted(MergeOptions.model_fields))}.",
                code="no-such-option",
            )
    settings = {name: _readable(name, value) for name, value in options.items()}
    try:
        return MergeOptions(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        wrong = first["loc"][0] if first["loc"] else "..."
        raise ChatVecError(
            f"the option `{wrong}` is {first['input']!r:.60}, which mergekit cannot read.",
            f"{first['msg'].removesuffix('.')}.",
            code="wrong-option",
        ) from error


def _readable(name: str, value: Any) -> Any:
    """Return a value as mergekit's commands would hand it on."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if name == "out_shard_size" and isinstance(value, str):
        try:
            return parse_kmb(value)
        except (ValueError, IndexError):
            return value  # told by MergeOptions
    return value
