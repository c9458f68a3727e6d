"""What a quantised weight is made of, in the formats that are undone here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

import torch

FP8_DTYPES = frozenset(
    {torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz}
)
POWER_DTYPES = frozenset({torch.uint8, getattr(torch, "float8_e8m0fnu", torch.uint8)})
"""Scales in these are exponents of two: 2^(e - 127)."""
BYTE_DTYPES = FP8_DTYPES | POWER_DTYPES
BYTE_DTYPES |= {torch.int8, getattr(torch, "float4_e2m1fn_x2", torch.int8)}
UNSIGNED_DTYPES = frozenset({torch.uint16, torch.uint32, torch.uint64})
MX_GROUP = 32
"""So many values share an exponent in the formats of the Open Compute Project (MXFP4, MXFP8)."""
NV_GROUP = 16
"""And so many a scale in NVIDIA's NVFP4."""
WORD_BITS = 32
BITS_OF_BYTES = (2, 4, 8)
"""Integers of so many bits fill bytes, so that `weights.packed_integers` takes them apart."""
SCHEME_KEYS = ("num_bits", "type", "symmetric", "strategy", "group_size")
"""What compressed-tensors needs to know to take packed integers apart."""


class Packing(Enum):
    """How the values of a weight lie in its first stored tensor."""

    PLAIN = "one float8 or int8 for each value"
    FP4 = "two four-bit floats in a byte along the last axis, the lower bits first"
    GPT_OSS = "MXFP4 blocks of gpt-oss, which transformers transposes"
    INT32 = "compressed-tensors' integers of some bits, several in an int32"


class Part(Enum):
    """What a stored tensor is to its weight."""

    VALUES = "values"
    SCALE = "scale"
    ZERO_POINT = "subtracted from the values"
    SECOND_SCALE = "multiplied into the scales"
    DIVISOR = "divided out of the scales"
    SHAPE = "the weight's shape"


@dataclass(frozen=True)
class QuantisedWeight:
    """One weight as it is stored."""

    parts: Mapping[Part, str]
    """The stored tensors' names, the values' first."""
    shape: tuple[int, ...]
    """Of the weight itself."""
    packing: Packing
    block: tuple[int, int]
    """So many rows and columns share a scale; the last blocks may be cut short."""
    scale_dtype: torch.dtype
    scheme: Mapping[str, Any] = field(default_factory=dict)
    """Of packed integers: `SCHEME_KEYS` in the words of compressed-tensors."""

    @property
    def rows_stand_alone(self) -> bool:
        """Whether each row has its own stored values and scales, and shares none with others."""
        return self.packing is Packing.INT32 and Part.ZERO_POINT not in self.parts

    @property
    def needs_library(self) -> bool:
        """Whether its integers are left to compressed-tensors to take apart."""
        if self.packing is not Packing.INT32:
            return False
        bits = self.scheme["num_bits"]
        in_whole_words = bits in BITS_OF_BYTES and self.shape[-1] * bits % WORD_BITS == 0
        return Part.ZERO_POINT in self.parts or not in_whole_words


@dataclass(frozen=True)
class Quantisation:
    """How a checkpoint is quantised."""

    format: str
    """In words for people: "FP8, one scale for each block of 128 x 128"."""
    weights: Mapping[str, QuantisedWeight] = field(default_factory=dict)
    """By the names of the unquantised checkpoint; weights that are not quantised are not in it."""
    dropped: frozenset[str] = frozenset()
    """Stored tensors that are no weights, and mean nothing after dequantisation."""
    problem: str = ""
    """Why it cannot be dequantised here, for "model X: ..."; empty if it can."""
    fix: str = ""
    """What to write instead, in a sentence."""

    @cached_property
    def parts(self) -> Mapping[str, tuple[str, ...]]:
        """Each quantised weight's stored tensors, in the order that `dequantised` takes them."""
        return {name: tuple(weight.parts.values()) for name, weight in self.weights.items()}

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Each quantised weight's shape."""
        return {name: weight.shape for name, weight in self.weights.items()}
