"""The formula θ_cp + Σ ratio · (θ_chat − θ_base), for one tensor, chunk by chunk.

Whole-tensor float copies cost more than the arithmetic: most of the time goes to page faults. Here
a small buffer that stays in cache is used again for every chunk. `benchmarks/kernel.py` measures
what its size, its dtype and the order of the operations cost, and how exact they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

HALF_PRECISION = (torch.bfloat16, torch.float16)
SUPPORTED = (*HALF_PRECISION, torch.float32, torch.float64)

# Elements in a chunk. On a CPU a buffer of this length stays in the cache of a core; an accelerator
# wants longer ones, to hide the cost of launching a kernel.
CPU_CHUNK = 1 << 18
ACCELERATOR_CHUNK = 1 << 21


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

    Exactness: the result is what float64 arithmetic gives, rounded to `out_dtype` as
    `Tensor.to(out_dtype)` rounds it. Where `working_dtype` is float32, the sum may be off by up to
    2⁻²³ of its largest summand before it is rounded: for weights as models have them, one step of
    half precision in less than one element of 100,000.

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
    buffers = torch.empty((min(len(vectors), 2), length), dtype=working, device=cp.device)
    checksum = torch.zeros((), dtype=working, device=cp.device)
    tensors = [cp, *(v.chat for v in vectors), *bases]
    for out_part, *parts in _chunks([out, *tensors], length):
        total, *spare = (buffer[: out_part.numel()].view(out_part.shape) for buffer in buffers)
        for i, summand in enumerate(vectors):
            vector = spare[0] if i else total
            vector.copy_(parts[1 + i])
            if summand.base is not None:
                vector.sub_(parts[place[id(summand.base)]])
            if summand.ratio != 1:
                vector.mul_(summand.ratio)
            if i:
                total.add_(vector)
        # cp comes last: it is the largest summand, and rounding a sum is what costs precision.
        out_part.copy_(total.add_(parts[0]))
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
    halves = all(dtype in HALF_PRECISION for dtype in (out_dtype, *(t.dtype for t in tensors)))
    halves &= all(d.dtype in (*HALF_PRECISION, torch.float32) for d in differences)
    short = all((math.frexp(ratio)[0] * 2**8).is_integer() for ratio in ratios)
    return torch.float32 if halves and short else torch.float64


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
