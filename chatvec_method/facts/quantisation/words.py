"""A format in words for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch

from chatvec_method.facts.models import TensorHeader
from chatvec_method.facts.quantisation.formats import (
    FP8_DTYPES,
    MX_GROUP,
    POWER_DTYPES,
    Packing,
    Part,
    QuantisedWeight,
)


def format_in_words(
    weights: Mapping[str, QuantisedWeight], tensors: Mapping[str, TensorHeader]
) -> str:
    """Return the format of most weights first, in words for people."""
    formats: dict[str, int] = defaultdict(int)
    for weight in weights.values():
        formats[_format_of(weight, tensors[weight.parts[Part.VALUES]].dtype)] += 1
    return " and ".join(sorted(formats, key=lambda f: -formats[f]))


def _format_of(weight: QuantisedWeight, dtype: torch.dtype) -> str:
    rows, columns = weight.shape[-2:]
    if weight.packing is Packing.GPT_OSS:
        return "MXFP4"
    if weight.packing is Packing.INT32:
        group = weight.scheme.get("group_size")
        each = f"group of {group}" if weight.scheme.get("strategy") == "group" else "channel"
        return f"int{weight.scheme['num_bits']}, one scale for each {each}"
    if weight.packing is Packing.FP4:
        return "MXFP4" if weight.scale_dtype in POWER_DTYPES else "NVFP4"
    kind = "FP8" if dtype in FP8_DTYPES else "int8"
    if weight.block == (1, MX_GROUP) and weight.scale_dtype in POWER_DTYPES:
        return "MXFP8"
    if weight.block == (rows, columns):
        return f"{kind}, one scale for each tensor"
    if weight.block in ((1, columns), (rows, 1)):
        return f"{kind}, one scale for each channel"
    return f"{kind}, one scale for each block of {weight.block[0]} x {weight.block[1]}"
