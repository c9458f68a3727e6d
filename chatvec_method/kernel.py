"""The formula θ_cp + Σ ratio · (θ_chat − θ_base), for one tensor, chunk by chunk.

Whole-tensor float copies cost more than the arithmetic: most of the time goes to page faults. Here
a small buffer that stays in cache is used again for every chunk. `benchmarks/kernel.py` measures
what its size, its dtype and the order of the operations cost, and how exact they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

HALF_PRECISION = (torch.bfloat16, torch.float16)
SUPPORTED = (*HALF_PRECISION, torch.float32, torch.float64)

# Elements in a chunk. On a CPU a buffer of this length stays in the cache of a core; an accelerator
# wants longer ones, to hide the cost of launching a kernel.
CPU_CHUNK = 1 << 18
ACCELERATOR_CHUNK = 1 << 21

CUT = (1 << 39) - 1
"""Of the 52 bits of a float64's fraction, those that no rounding to half precision needs."""
LARGEST_DENOMINATOR = 10_000
"""Of a ratio that is taken as the fraction that it is written as: of four decimals."""
COARSE_DENOMINATOR = 100
"""Of ratios whose sums of half-precision weights lie on a tie or well beside it, so that float32,
which torch's cast goes by way of, takes none for one: thirds as 0.3333 or 0.3333333333 do not."""


def add_chat_vectors(
    cp: Tensor,
    base: Tensor,
    chats: Sequence[tuple[float, Tensor]],
    out_dtype: torch.dtype,
    out: Tensor | None = None,
) -> Tensor:
    """Return cp + Σ ratio · (chat − base), rounded once, to `out_dtype`.

    The formula is that of Huang et al., ACL 2024 (arXiv 2310.04799); with several chat models their
    vectors add up. The inputs may have different dtypes and any strides and are not modified.
    Beyond inputs and output it holds a few chunks, whatever the size of the tensors. Gradients are
    not recorded.

    Exactness: the result is what float64 arithmetic gives, rounded once, to nearest and ties to
    even. A ratio of up to four decimals is what is written: 0.7 is 7/10, with which the result
    often lies exactly between two numbers, and not the double that is a little less. Where
    `working_dtype` is float32, the sum may be off by up to 2⁻²³ of its largest summand before it is
    rounded; and that of half precision weights is rounded to float32 on the way where ratios have
    up to two decimals. For weights as models have them, either is one step of half precision in
    less than one element of 100,000.

    Args:
        cp: The continually pretrained model's tensor, floating point, of any shape.
        base: The pretrained model's tensor, same shape and device.
        chats: Ratio and tensor (same shape and device) of each chat model, at least one.
        out_dtype: The floating-point dtype of the result.
        out: A tensor of that dtype, cp's shape and its device, to be overwritten with the result;
            by default, a new one.

    Raises:
        FloatingPointError: The result has a NaN or infinite element, because an input has one or
            because the sum does not fit `out_dtype`.
    """
    return add_vectors(cp, [Summand(ratio, chat, base) for ratio, chat in chats], out_dtype, out)


@dataclass(frozen=True)
class Summand:
    """One chat vector: ratio · (chat − base)."""

    ratio: float
    chat: Tensor
    base: Tensor | None
    """None where it has been subtracted already."""
    is_vector: bool = False
    """Whether `chat` comes from a file of differences."""


@torch.no_grad()
def add_vectors(
    cp: Tensor,
    vectors: Sequence[Summand],
    out_dtype: torch.dtype,
    out: Tensor | None = None,
) -> Tensor:
    """Return cp + Σ ratio · (chat − base), where each chat vector may have a base of its own.

    As `add_chat_vectors`, whose formula this is.

    Args:
        cp: The continually pretrained model's tensor.
        vectors: The chat vectors, at least one.
        out_dtype: The floating-point dtype of the result.
        out: To be overwritten with the result.

    Raises:
        FloatingPointError: As `add_chat_vectors`.
    """
    if out is None:
        out = torch.empty(cp.shape, dtype=out_dtype, device=cp.device)
    bases = list({id(v.base): v.base for v in vectors if v.base is not None}.values())
    place = {id(base): 1 + len(vectors) + i for i, base in enumerate(bases)}
    whole = [cp, *bases, *(v.chat for v in vectors if not v.is_vector)]
    differences = [v.chat for v in vectors if v.is_vector]
    working = working_dtype(whole, [v.ratio for v in vectors], out_dtype, differences)
    length = _chunk_length(cp)
    denominator, numerators = 1, [summand.ratio for summand in vectors]
    if working is torch.float64:
        denominator, numerators = _as_written(numerators)
    coarse = _are_narrow(whole, differences) and 1 < denominator <= COARSE_DENOMINATOR
    once = working is torch.float64 and out_dtype in HALF_PRECISION and not coarse
    rows = 2 if once else min(len(vectors), 2)
    buffers = torch.empty((rows, length), dtype=working, device=cp.device)
    checksum = torch.zeros((), dtype=working, device=cp.device)
    tensors = [cp, *(v.chat for v in vectors), *bases]
    for out_part, *parts in _chunks([out, *tensors], length):
        total, *spare = (buffer[: out_part.numel()].view(out_part.shape) for buffer in buffers)
        for i, (numerator, summand) in enumerate(zip(numerators, vectors, strict=True)):
            vector = spare[0] if i else total
            vector.copy_(parts[1 + i])
            if summand.base is not None:
                vector.sub_(parts[place[id(summand.base)]])
            if numerator != 1:
                vector.mul_(numerator)
            if i:
                total.add_(vector)
        # cp comes last: it is the largest summand, and rounding a sum is what costs precision.
        total.add_(parts[0], alpha=denominator)
        if denominator != 1:
            total.div_(denominator)
        if once:
            _round_to_odd(total, spare[0])
        out_part.copy_(total)
        # A sum over what was written is finite only if every element is, and costs far less than
        # `torch.isfinite`; on an accelerator it is looked at once a tensor, not once a chunk.
        checksum += total.copy_(out_part).sum()
    # The sum of finite elements may overflow, so it accuses and does not convict.
    return out if torch.isfinite(checksum) else checked_finite(out)


def working_dtype(
    tensors: Sequence[Tensor],
    ratios: Sequence[float],
    out_dtype: torch.dtype,
    differences: Sequence[Tensor] = (),
) -> torch.dtype:
    """Return the dtype in which the sum is formed: float32 where that is exact enough.

    Half-precision weights are so coarse that r · (chat − base) often lies exactly between two
    results, and float32's own rounding of 0.3 or 1.3 then decides the wrong way in up to 3 of
    10,000 elements. A ratio of at most 8 significant bits (1, 0.5, 0.75, ...) adds no rounding of
    its own; others take float64, which costs some time (`benchmarks/kernel.py`). So do float32 and
    float64 weights and results, whose own precision it has to exceed. The difference of two tensors
    of half precision is a float32 by itself, so that one in float32 changes nothing here.
    """
    if tensors[0].device.type == "mps":  # has no float64
        return torch.float32
    halves = out_dtype in HALF_PRECISION and _are_narrow(tensors, differences)
    short = all((math.frexp(ratio)[0] * 2**8).is_integer() for ratio in ratios)
    return torch.float32 if halves and short else torch.float64


def _are_narrow(tensors: Sequence[Tensor], differences: Sequence[Tensor]) -> bool:
    """Tell whether all weights are of half precision, and differences those of such weights."""
    return all(tensor.dtype in HALF_PRECISION for tensor in tensors) and all(
        difference.dtype in (*HALF_PRECISION, torch.float32) for difference in differences
    )


def _as_written(ratios: Sequence[float]) -> tuple[int, list[float]]:
    """Return ratios as numerators over one denominator, by which the sum is divided at the end.

    Multiplied with small integers, weights lose nothing in float64, and the division is the only
    rounding. Ratios that are no short decimals stay what they are, over 1.
    """
    fractions = [Fraction(repr(float(ratio))) for ratio in ratios]
    denominator = math.lcm(*(fraction.denominator for fraction in fractions))
    if denominator > LARGEST_DENOMINATOR:
        return 1, list(ratios)
    return denominator, [float(fraction * denominator) for fraction in fractions]


def rounded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor in another dtype, each element rounded once; itself in its own."""
    if tensor.dtype is torch.float64 and dtype in HALF_PRECISION:
        tensor = tensor.clone()
        _round_to_odd(tensor, torch.empty_like(tensor))
    return tensor.to(dtype)


def _round_to_odd(numbers: Tensor, spare: Tensor) -> None:
    """Cut float64 numbers to 14 significant bits, the last of them 1 where anything was cut off.

    torch casts float64 to half precision by way of float32, and rounds each time: 1 + 2⁻⁸ + 2⁻⁴⁰
    becomes a tie, and then 1. Of a number that is cut like this, which says on which side of a tie
    it lies and which float32 holds as it is, the second rounding is the only one
    (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).

    Args:
        numbers: Of any values, and contiguous; overwritten.
        spare: As many elements of float64, overwritten.
    """
    bits, cut_off = numbers.view(torch.int64), spare.view(torch.int64)
    torch.bitwise_and(bits, CUT, out=cut_off)
    cut_off.add_(CUT)  # carries into the last bit that is kept, unless nothing is cut off
    bits.bitwise_or_(cut_off).bitwise_and_(~CUT)


def checked_finite(tensor: Tensor) -> Tensor:
    """Return the tensor itself.

    Raises:
        FloatingPointError: It has a NaN or infinite element.
    """
    if not all_finite(tensor):
        raise FloatingPointError("NaN or infinite elements")
    return tensor


def all_finite(tensor: Tensor) -> bool:
    """Tell whether no element is NaN or infinite, holding one chunk beyond the tensor."""
    length = _chunk_length(tensor)
    checksum = torch.zeros((), dtype=torch.float32, device=tensor.device)
    for (part,) in _chunks([tensor], length):
        checksum += part.sum(dtype=torch.float32)
    if torch.isfinite(checksum):
        return True
    return all(bool(part.isfinite().all()) for (part,) in _chunks([tensor], length))


def _chunk_length(tensor: Tensor) -> int:
    longest = CPU_CHUNK if tensor.device.type == "cpu" else ACCELERATOR_CHUNK
    return min(max(tensor.numel(), 1), longest)


def _chunks(tensors: Sequence[Tensor], length: int) -> Iterator[Sequence[Tensor]]:
    """Cut tensors of one shape alike, into views of at most `length` elements each."""
    if all(tensor.is_contiguous() for tensor in tensors):
        yield from zip(*(tensor.view(-1).split(length) for tensor in tensors), strict=True)
    elif tensors[0].numel() <= length:
        yield tensors
    else:
        # Strided views cannot be flattened without a copy, so these are cut along their first axis,
        # and where one slice of it is too long, inside each slice.
        slice_length = tensors[0][0].numel()
        rows = max(1, length // slice_length)
        for parts in zip(*(tensor.split(rows) for tensor in tensors), strict=True):
            too_long = slice_length > length
            yield from _chunks([part[0] for part in parts] if too_long else parts, length)
