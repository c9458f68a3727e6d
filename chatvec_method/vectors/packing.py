"""How differences are stored: in full, in bfloat16, or as small integers with scales.

Integers are compressed-tensors' `pack-quantized`: groups of 64 along the rows, symmetric, a scale
each, so that other programs read them, and `weights.dequantise` forms them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chatvec_method.facts.models import TensorHeader
from chatvec_method.facts.quantisation import WORD_BITS
from chatvec_method.vectors.pairs import Pair

BITS = (32, 16, 8, 4, 2)
GROUP = 64
"""So many elements of a row share a scale."""
SCALE_DTYPE = torch.bfloat16
"""float16 has too few exponents: a scale may be below 10^-7."""
OF_ROWS = 4
"""Bits of embeddings and heads at least; the rows that moved most are kept in full beside them."""


@dataclass(frozen=True)
class Packing:
    """How one difference is stored."""

    pair: Pair
    bits: int
    """32 for in full: the dtype in which it is formed; 16 for bfloat16; less for integers."""

    @property
    def packed(self) -> bool:
        """Whether it is stored as integers with scales."""
        return self.bits < 16

    @property
    def dtype(self) -> torch.dtype:
        """Of what is stored, unless it is packed."""
        return torch.bfloat16 if self.bits == 16 else self.pair.dtype

    def headers(self) -> Mapping[str, TensorHeader]:
        """Return the stored tensors."""
        name, shape = self.pair.name, self.pair.shape
        if not self.packed:
            return {name: TensorHeader(self.dtype, shape, "")}
        words, groups = shape[-1] * self.bits // WORD_BITS, shape[-1] // GROUP
        return {
            f"{name}_packed": TensorHeader(torch.int32, (*shape[:-1], words), ""),
            f"{name}_scale": TensorHeader(SCALE_DTYPE, (*shape[:-1], groups), ""),
            f"{name}_shape": TensorHeader(torch.int64, (len(shape),), ""),
        }


def packing_of(pair: Pair, bits: int) -> Packing:
    """Return how a difference is stored where so many bits an element are asked for.

    Norms and other vectors are stored in full, embeddings and heads at 4 bits at least, and in
    bfloat16 what cannot be cut into groups, as rows of another length, or is no matrix. Experts
    that are joined are matrices one below the other.
    """
    if len(pair.shape) < 2:
        return Packing(pair, 32)
    if bits >= 16:
        return Packing(pair, bits)
    is_matrix = len(pair.shape) == 2 and pair.name.endswith(".weight")
    if pair.shape[-1] % GROUP or not (is_matrix or len(pair.shape) == 3):
        return Packing(pair, 16)
    return Packing(pair, max(bits, OF_ROWS) if pair.of_tokens else bits)


def quantised(difference: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return integers and scales of a matrix, rounded to the nearest.

    Args:
        difference: (rows, columns), in float32 or float64; columns a multiple of `GROUP`.
        bits: Of an integer.

    Returns:
        Integers from -2^(bits-1) to 2^(bits-1)-1 as int8, (rows, columns); and scales in
        `SCALE_DTYPE`, (rows, columns / `GROUP`).
    """
    groups = difference.float().view(len(difference), -1, GROUP)
    steps = (2**bits - 1) / 2
    largest = groups.abs()
    scale = (largest.amax(dim=-1) / steps).to(SCALE_DTYPE)
    divisor = torch.where(scale == 0, torch.ones_like(scale), scale).float()
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    quotients = torch.div(groups, divisor.unsqueeze(-1), out=largest)
    return quotients.round_().clamp_(low, high).to(torch.int8).view(difference.shape), scale


def dequantised(integers: Tensor, scale: Tensor) -> Tensor:
    """Return what integers and scales stand for, in float32."""
    groups = integers.view(len(integers), -1, GROUP).float() * scale.float().unsqueeze(-1)
    return groups.view(integers.shape)


def quantization_config(packings: Mapping[str, Packing]) -> dict[str, Any] | None:
    """Return the `quantization_config` of a vector; None where nothing is packed."""
    bits = sorted({p.bits for p in packings.values() if p.packed}, reverse=True)
    if not bits:
        return None
    groups = {}
    for i, number in enumerate(bits):
        modules = [n.removesuffix(".weight") for n, p in packings.items() if p.bits == number]
        groups[f"group_{i}"] = {
            # Those of most come last, and are all that no group before has named.
            "targets": ["re:.*"] if i == len(bits) - 1 else modules,
            "weights": {
                "num_bits": number,
                "type": "int",
                "symmetric": True,
                "strategy": "group",
                "group_size": GROUP,
            },
        }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
    }


def bytes_of(headers: Mapping[str, TensorHeader]) -> int:
    """Return how many bytes some tensors take."""
    return sum(header.bytes for header in headers.values())
