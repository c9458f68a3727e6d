"""What a recipe's settings mean: filters of a ratio, dtypes, where the tokenizer comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from mergekit.common import ModelReference, dtype_from_name

from chatvec_method.errors import ChatVecError

if TYPE_CHECKING:
    import torch
    from mergekit.config import (
        InputSliceDefinition,
        MergeConfiguration,
        ParameterSetting,
    )
    from mergekit.scripts.merge_raw_pytorch import InputModelDefinition

Settings: TypeAlias = "Mapping[str, ParameterSetting] | None"


Source: TypeAlias = "InputSliceDefinition | InputModelDefinition"


def ratio_cases(setting: ParameterSetting | None) -> list[tuple[str | None, Any]]:
    """Return a setting's filters (None: all tensors), each with a scalar or a list over layers."""
    if setting is None:
        return []
    entries = setting if isinstance(setting, list) else [setting]
    if all(hasattr(entry, "filter") for entry in entries):
        return [(entry.filter, entry.value) for entry in entries]
    return [(None, setting)]


def weights_dtype(name: str | None, key: str = "out_dtype") -> torch.dtype | None:
    """Return the `torch.dtype` that a recipe's key names, None if it names none.

    Raises:
        ChatVecError: mergekit knows no such dtype, or it holds no weights.
    """
    try:
        dtype: torch.dtype | None = dtype_from_name(name)
    except RuntimeError:
        dtype = None
    if name and (dtype is None or not dtype.is_floating_point):
        raise ChatVecError(
            f"the recipe's `{key}: {name}` is no dtype of weights that mergekit knows.",
            f"Write `{key}: bfloat16` (or float16, float32, float64).",
        )
    return dtype


def tokenizer_source(config: MergeConfiguration) -> ModelReference | str | None:
    """Return where the output's tokenizer comes from: a model, "union", "base", or None."""
    return config.tokenizer.source if config.tokenizer else config.tokenizer_source


def dtype_name(dtype: torch.dtype) -> str:
    """Return a dtype's name as recipes write it."""
    return str(dtype).removeprefix("torch.")
