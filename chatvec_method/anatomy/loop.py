"""All sums over rows in one loop over the elements, compiled by numba when it is first called.

torch goes through its operands once for every operation, some sixty times in all; here each element
is read once. Weights in half precision come as the integers that their bits are: unsigned ones are
bfloat16, signed ones float16.
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

INT, HALF, FLOAT = ir.IntType(32), ir.HalfType(), ir.FloatType()


def row_sums(
    base: Tensor, chat: Tensor, other: Tensor, level: float, ratio: float, rounded: torch.dtype
) -> Tensor:
    """Return what `sums.row_sums` does, for matrices of dtypes in STORED, on the CPU.

    Python's lock is free meanwhile, so that several threads may be at it.
    """
    matrices = [matrix.contiguous() for matrix in (base, chat, other)]
    arrays = [matrix.view(STORED[matrix.dtype]).numpy() for matrix in matrices]
    like = torch.zeros((), dtype=rounded).view(STORED[rounded]).numpy()[()]
    found = np.empty((len(FOUND), len(base)))
    _fill(*arrays, np.float32(level), np.float32(ratio), like, np.float32(FAR), found)
    return torch.from_numpy(found)


# Sums may be formed in any order, so that many elements are looked at together.
@njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _fill(base, chat, other, level, ratio, like, far, found):  # noqa: ANN001, ANN202 (numba's)
    zero = np.float32(0)
    for row in range(base.shape[0]):
        bases = energies = others = products = overlaps = excess = zero
        opposed = moved = changed = above = np.int32(0)
        for i in range(base.shape[1]):
            b, o = _widened(base[row, i]), _widened(other[row, i])
            tau, lam = _widened(chat[row, i]) - b, o - b
            energy, product = tau * tau, tau * (lam * far)
            bases += b * b
            energies += energy
            others += lam * lam
            products += product
            overlaps += abs(product)
            opposed = _counted(opposed, product < zero)
            moved = _counted(moved, tau != zero)
            kept = _kept(other[row, i], like)
            changed = _counted(changed, _rounded(o + ratio * tau, like) != kept)
            above = _counted(above, energy > level)
            excess += max(energy - level, zero)
        found[0, row], found[1, row], found[2, row] = bases, energies, others
        found[3, row], found[4, row] = products / far, overlaps / far
        found[5, row], found[6, row], found[7, row] = opposed, moved, changed
        found[8, row], found[9, row] = above, excess


# In numba's own arithmetic, integers grow to 64 bits, and half as many fit into a register.


@intrinsic
def _widened(_: Any, stored: Any) -> Any:
    """Return an element as float32."""
    return types.float32(stored), lambda _context, builder, _signature, arguments: _wide(
        builder, stored, *arguments
    )


@intrinsic
def _rounded(_: Any, number: Any, like: Any) -> Any:
    """Return a number, rounded to the dtype of another, as float32."""
    return types.float32(number, like), lambda _context, builder, _signature, arguments: _round(
        builder, arguments[0], like
    )


@intrinsic
def _kept(_: Any, stored: Any, like: Any) -> Any:
    """Return an element, rounded to the dtype of another unless it is its own, as float32."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        number = _wide(builder, stored, arguments[0])
        return number if stored == like else _round(builder, number, like)

    return types.float32(stored, like), generate


@intrinsic
def _counted(_: Any, count: Any, condition: Any) -> Any:
    """Return one more where a condition holds."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.add(arguments[0], builder.zext(arguments[1], INT))

    return types.int32(count, condition), generate


def _wide(builder: Any, stored: Any, bits: Any) -> Any:
    if stored == types.uint16:
        return builder.bitcast(builder.shl(builder.zext(bits, INT), INT(16)), FLOAT)
    if stored == types.int16:
        return builder.fpext(builder.bitcast(bits, HALF), FLOAT)
    return bits


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
