"""Integers of 2, 4 or 8 bits in words of 32, as compressed-tensors' `pack-quantized` has them.

The library makes a word of each integer on the way, which takes several times as long
(`benchmarks/packing.py`). Here neighbours are joined, and parted, in the words that they make as
they lie; the results are the library's to the bit. Other numbers of bits, and zero points, are left
to it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def packed(integers: Tensor, bits: int) -> Tensor:
    """Return integers of some bits as words, the first in the lowest bits.

    Args:
        integers: int8, (rows, columns), from -2^(bits-1) to 2^(bits-1)-1; a row fills whole words.
        bits: 2, 4 or 8.

    Returns:
        int32, (rows, columns · bits / 32).
    """
    # From here on they count from 0: 2^(bits-1) is added, as the library does it.
    unsigned = integers.contiguous().view(torch.uint8) + 2 ** (bits - 1)
    if bits == 4:
        pairs = unsigned.view(torch.int16)
        unsigned = (pairs | pairs >> 4).to(torch.uint8)
    elif bits == 2:
        fours = unsigned.view(torch.int32)
        fours = fours | fours >> 6
        unsigned = (fours | fours >> 12).to(torch.uint8)
    words: Tensor = unsigned.view(torch.int32)
    return words


def unpacked(words: Tensor, bits: int) -> Tensor:
    """Return the integers that words hold, as they lie there: 2^(bits-1) is still to be taken off.

    Args:
        words: int32, (rows, words).
        bits: 2, 4 or 8.

    Returns:
        uint8, (rows, words · 32 / bits).
    """
    held = words.contiguous().view(torch.uint8)
    if bits == 4:
        pairs = held.to(torch.int16)
        held = ((pairs | pairs << 4) & 0x0F0F).view(torch.uint8)
    elif bits == 2:
        fours = held.to(torch.int32)
        fours = (fours | fours << 12) & 0x000F000F
        held = ((fours | fours << 6) & 0x03030303).view(torch.uint8)
    return held
