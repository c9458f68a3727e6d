"""All sums over rows in one loop over the elements, compiled by numba when it is first called.

torch goes through its operands once for every operation, some sixty times in all; here each element
is read once. Weights in half precision come as the bits they are stored in, since numba knows
neither bfloat16 nor, on a CPU, float16.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numba import njit
from torch import Tensor

from chatvec_method.anatomy.sums import FAR, ROW_SUMS

ZERO, ONE = np.float32(0), np.float32(1)
HALF_SCALE, HALF_END = np.float32(2.0**112), np.float32(2.0**16)
"""From a float16's exponent to a float32's, and the first power of two beyond float16."""
HALF_NORMAL, HALF_STEPS = np.float32(2.0**-14), np.float32(0.75)
"""Below the first, float16 has steps of 2⁻²⁴, which are float32's next to the second."""


def row_sums(
    base: Tensor, chat: Tensor, other: Tensor, level: float, ratio: float, rounded: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return what `sums.row_sums` does, for matrices of DTYPES, on the CPU.

    Python's lock is free meanwhile, so that several threads may be at it.
    """
    matrices = (base, chat, other)
    totals = np.empty((len(ROW_SUMS), len(base)))
    flags = np.zeros(-(-base.shape[1] // 8), np.uint64)
    large = np.empty(base.numel(), np.float32)  # memory is taken as it is filled
    fill = cast(Any, _fill)  # numba's own type for it knows no arguments
    count = fill(
        tuple(_stored(matrix.contiguous()) for matrix in matrices),
        *(READ[matrix.dtype] for matrix in matrices),
        ROUND[rounded],
        _itself if other.dtype == rounded else ROUND[rounded],
        (np.float32(level), np.float32(ratio), np.float32(FAR)),
        totals,
        (flags, flags.view(np.uint8)),
        large,
    )
    return torch.from_numpy(totals), torch.from_numpy(large[:count].copy())


def _stored(matrix: Tensor) -> np.ndarray:
    return (matrix if matrix.dtype == torch.float32 else matrix.view(torch.uint16)).numpy()


# Sums may be formed in any order, so that many elements are looked at together. They are counted in
# float32 as well: numba's integers have 64 bits, which takes 1.7 times as long.
@njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _fill(
    matrices: Any,
    of_base: Any,
    of_chat: Any,
    of_other: Any,
    rounded: Any,
    kept: Any,
    numbers: Any,
    totals: Any,
    flags: Any,
    large: Any,
) -> Any:
    base, chat, other = matrices
    level, ratio, far = numbers
    in_eights, is_large = flags
    rows, columns = base.shape
    count = 0
    for row in range(rows):
        bases = energies = others = products = overlaps = ZERO
        opposed = moved = changed = ZERO
        for i in range(columns):
            b, o = of_base(base[row, i]), of_other(other[row, i])
            tau, lam = of_chat(chat[row, i]) - b, o - b
            energy, product = tau * tau, tau * (lam * far)
            bases += b * b
            energies += energy
            others += lam * lam
            products += product
            overlaps += abs(product)
            opposed += ONE if product < ZERO else ZERO
            moved += ONE if tau != ZERO else ZERO
            changed += ONE if rounded(o + ratio * tau) != kept(o) else ZERO
            is_large[i] = energy > level
        totals[0, row], totals[1, row], totals[2, row] = bases, energies, others
        totals[3, row], totals[4, row] = products / far, overlaps / far
        totals[5, row], totals[6, row], totals[7, row] = opposed, moved, changed
        for eight in range(len(in_eights)):
            if in_eights[eight]:
                for i in range(8 * eight, 8 * eight + 8):
                    if is_large[i]:
                        tau = of_chat(chat[row, i]) - of_base(base[row, i])
                        large[count] = tau * tau
                        count += 1
    return count


# fastmath is said to be off, as else it would be that of the loop, which may not round so.


@njit(fastmath=False)
def _itself(number: Any) -> Any:
    return number


@njit(fastmath=False)
def _from_bfloat16(bits: Any) -> Any:
    return np.uint32(np.uint32(bits) << 16).view(np.float32)


@njit(fastmath=False)
def _from_float16(bits: Any) -> Any:
    # The sign stays first; exponent and fraction go below three zeros.
    wide = np.uint32((np.int32(np.int16(bits)) << 13) & 0x8FFFFFFF)
    number = wide.view(np.float32) * HALF_SCALE
    return number if abs(number) < HALF_END else np.float32(np.nan)


@njit(fastmath=False)
def _to_bfloat16(number: Any) -> Any:
    # To the nearest number with 16 zeros at its end; of two, to that with an even last bit.
    bits = np.float32(number).view(np.uint32)
    return np.uint32((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).view(np.float32)


@njit(fastmath=False)
def _to_float16(number: Any) -> Any:
    if abs(number) < HALF_NORMAL:
        return (number + HALF_STEPS) - HALF_STEPS
    bits = np.float32(number).view(np.uint32)
    return np.uint32((bits + 0xFFF + ((bits >> 13) & 1)) & 0xFFFFE000).view(np.float32)


READ = {
    torch.bfloat16: _from_bfloat16,
    torch.float16: _from_float16,
    torch.float32: _itself,
}
ROUND = {torch.bfloat16: _to_bfloat16, torch.float16: _to_float16, torch.float32: _itself}
DTYPES = frozenset(READ)
"""The dtypes that the loop takes."""
