"""All sums over rows in one loop over the elements, compiled by numba when it is first called.

torch goes through its operands once for every operation, some sixty times in all; here each element
is read once. Weights in half precision come as the integers that their bits are: unsigned ones are
bfloat16, or two of them if they have 32 bits; signed ones are float16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

from chatvec_method.anatomy.sums import FAR, FOUND

STORED = {
    torch.bfloat16: torch.uint16,
    torch.float16: torch.int16,
    torch.float32: torch.float32,
}
"""The dtypes that the loop takes, and as what."""

PAIR = torch.uint32
"""Two bfloat16 that are next to each other: taken apart with half the instructions."""
STEP = 3
"""By so much a counter goes up. LLVM makes two instructions of a condition that adds 1, and one of
one that adds anything else."""
INT, HALF, FLOAT = ir.IntType(32), ir.HalfType(), ir.FloatType()


def row_sums(
    base: Tensor, chat: Tensor, other: Tensor, level: float, ratio: float, rounded: torch.dtype
) -> Tensor:
    """Return what `sums.row_sums` does, for matrices of dtypes in STORED, on the CPU.

    Python's lock is free meanwhile, so that several threads may be at it.
    """
    matrices = [matrix.contiguous() for matrix in (base, chat, other)]
    in_pairs = all(_is_paired(matrix) for matrix in matrices)
    arrays = [
        matrix.view(PAIR if in_pairs else STORED[matrix.dtype]).numpy() for matrix in matrices
    ]
    like = torch.zeros((), dtype=rounded).view(STORED[rounded]).numpy()[()]
    found = np.empty((len(FOUND), len(base)))
    _fill(*arrays, np.float32(level), np.float32(ratio), like, np.float32(FAR), found)
    return torch.from_numpy(found)


def _is_paired(matrix: Tensor) -> bool:
    if matrix.dtype != torch.bfloat16 or matrix.shape[1] % 2:
        return False
    return matrix.storage_offset() % 2 == 0 and matrix.data_ptr() % PAIR.itemsize == 0


# Sums may be formed in any order, so that many elements are looked at together.
@njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _fill(base, chat, other, level, ratio, like, far, found):  # noqa: ANN001, ANN202 (numba's)
    zero = np.float32(0)
    for row in range(base.shape[0]):
        bases = energies = others = products = against = beyond = zero
        opposed = moved = changed = above = np.int32(0)
        for i in range(base.shape[1]):
            for place in range(_places(base[row, i])):
                b, o = _element(base[row, i], place), _element(other[row, i], place)
                tau, lam = _element(chat[row, i], place) - b, o - b
                energy, product = tau * tau, tau * (lam * far)
                bases += b * b
                energies += energy
                others += lam * lam
                products += product
                against += product if product < zero else zero
                opposed = _counted(opposed, product < zero)
                moves, kept = tau != zero, _kept(o, other[row, i], like)
                moved = _counted(moved, moves)
                changed = _counted(changed, moves & _differs(o + ratio * tau, kept, like))
                above = _counted(above, energy > level)
                beyond += energy if energy > level else zero
        found[0, row], found[1, row], found[2, row] = bases, energies, others
        found[3, row], found[4, row] = products / far, (products - 2 * against) / far
        found[5, row], found[6, row] = opposed // STEP, moved // STEP
        found[7, row], found[8, row] = changed // STEP, above // STEP
        found[9, row] = beyond


# In numba's own arithmetic, integers grow to 64 bits, and half as many fit into a register.


@intrinsic
def _places(_: Any, stored: Any) -> Any:
    """Return how many elements there are in one of an array."""
    places = ir.IntType(64)(2 if stored == types.uint32 else 1)
    return types.int64(stored), lambda *_arguments: places


@intrinsic
def _element(_: Any, stored: Any, place: Any) -> Any:
    """Return an element as float32."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        bits, which = arguments
        if stored == types.uint32:
            # The first has its bits in the lower half, the second where those of a float32 are.
            up = builder.sub(INT(16), builder.shl(builder.trunc(which, INT), INT(4)))
            high = builder.and_(builder.shl(bits, up), INT(0xFFFF0000))
            return builder.bitcast(high, FLOAT)
        if stored == types.uint16:
            return builder.bitcast(builder.shl(builder.zext(bits, INT), INT(16)), FLOAT)
        if stored == types.int16:
            return builder.fpext(builder.bitcast(bits, HALF), FLOAT)
        return bits

    return types.float32(stored, place), generate


@intrinsic
def _kept(_: Any, number: Any, stored: Any, like: Any) -> Any:
    """Return an element, rounded to the dtype of another unless it is stored in that."""
    is_rounded = stored == like or (stored, like) == (types.uint32, types.uint16)

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return arguments[0] if is_rounded else _round(builder, arguments[0], like)

    return types.float32(number, stored, like), generate


@intrinsic
def _differs(_: Any, number: Any, kept: Any, like: Any) -> Any:
    """Return whether a number, rounded to the dtype of another, is not an already rounded one.

    For bfloat16, 0 and -0 differ.
    """

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        number, kept, _like = arguments
        if like != types.uint16:
            return builder.fcmp_ordered("!=", _round(builder, number, like), kept)
        # As far as half of what the last bit counts is near enough; if that is 1, less than half.
        bits = builder.bitcast(kept, INT)
        away = builder.sub(builder.bitcast(number, INT), bits)
        away = builder.select(builder.icmp_signed("<", away, INT(0)), builder.neg(away), away)
        last = builder.and_(builder.lshr(bits, INT(16)), INT(1))
        return builder.icmp_unsigned(">=", away, builder.xor(last, INT(0x8001)))

    return types.boolean(number, kept, like), generate


@intrinsic
def _counted(_: Any, count: Any, condition: Any) -> Any:
    """Return STEP more where a condition holds."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.add(arguments[0], builder.select(arguments[1], INT(STEP), INT(0)))

    return types.int32(count, condition), generate


def _round(builder: Any, number: Any, like: Any) -> Any:
    if like == types.uint16:
        # To the nearest number with 16 zeros at its end; of two, to that with an even last bit.
        bits = builder.bitcast(number, INT)
        odd = builder.and_(builder.lshr(bits, INT(16)), INT(1))
        bits = builder.add(builder.add(bits, INT(0x7FFF)), odd)
        return builder.bitcast(builder.and_(bits, INT(0xFFFF0000)), FLOAT)
    if like == types.int16:
        return builder.fpext(builder.fptrunc(number, HALF), FLOAT)
    return number
