"""A quantised weight as the numbers that it stands for, in float32.

The arithmetic is that of the formats' own programs: transformers' `Fp8Dequantize` for a value for
each element, or two four-bit floats in a byte, its `convert_moe_packed_tensors` for gpt-oss, and
compressed-tensors' for packed integers, which are taken apart here, to the same bits, where they
fill bytes. What those programs leave to their callers is done here: which rows share a scale where
the last block is cut short or only a part of the rows is wanted, the kinds of scale that they do
not take, and that memory stays small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
import transformers
from torch import Tensor

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.quantisation import (
    TRANSFORMERS_FLOOR,
    WORD_BITS,
    Packing,
    Part,
    Quantisation,
    QuantisedWeight,
    scale_grid,
)
from chatvec_method.kernel import CPU_CHUNK
from chatvec_method.weights.packed_integers import unpacked

CHUNK = 2**22
"""So many values are multiplied at once: the tensors in between take some 50 MB."""


def dequantised(
    quantisation: Quantisation,
    name: str,
    parts: Sequence[Tensor],
    rows: slice | Tensor | None = None,
) -> Tensor:
    """Return a weight in float32: its values times their scales, each product rounded once.

    NVFP4's two scales are multiplied first, and rounded, as its makers define it.

    Args:
        quantisation: Of the checkpoint.
        name: The weight's name, as in `quantisation.weights`.
        parts: Its stored tensors, in the order of `quantisation.parts[name]`.
        rows: Which of the weight's rows are wanted (of its experts, if they are fused); only
            these of the stored values are then read. Their numbers in any order, int64, will do
            where they stand alone.

    Returns:
        The weight, of shape `quantisation.shapes[name]`, or its rows.
    """
    weight = quantisation.weights[name]
    by_part = dict(zip(weight.parts, parts, strict=True))
    if isinstance(rows, Tensor):
        assert weight.rows_stand_alone
        by_part |= {part: by_part[part][rows] for part in (Part.VALUES, Part.SCALE)}
        weight, rows = replace(weight, shape=(len(rows), *weight.shape[1:])), None
    first, last, _ = (rows or slice(None)).indices(weight.shape[0])
    shape = (max(last - first, 0), *weight.shape[1:])
    values = by_part[Part.VALUES][first:last]
    out = torch.empty(shape, dtype=torch.float32, device=values.device)
    if weight.packing is Packing.INT32:
        inside = math.prod(weight.shape[1:-1])  # rows of an expert
        fill = _fill_by_library if weight.needs_library else _fill_from_words
        fill(out.view(-1, weight.shape[-1]), by_part, weight, first * inside)
        return out
    if weight.packing is Packing.GPT_OSS:
        _fill_from_blocks(out, values, by_part[Part.SCALE][first:last])
        return out
    scale, zero_point = _scales(by_part, weight)
    # From here on all is a matrix: fused experts lie one below the other.
    columns, values = weight.shape[-1], values.reshape(-1, values.shape[-1])
    matrix = out.view(-1, columns)
    rows_before = first * math.prod(weight.shape[1:-1])
    for start, stop in _chunks(len(matrix), columns):
        blocks = _blocks_of_rows(rows_before + start, rows_before + stop, weight, len(scale))
        offset = None if zero_point is None else zero_point[blocks]
        _fill_product(
            matrix[start:stop], values[start:stop], scale[blocks], offset, weight.block[1]
        )
    return out


def _scales(parts: dict[Part, Tensor], weight: QuantisedWeight) -> tuple[Tensor, Tensor | None]:
    """Return a weight's scales and zero points as matrices, a row for each row of blocks."""
    scale = _as_float(parts[Part.SCALE])
    if Part.SECOND_SCALE in parts:  # NVFP4 as ModelOpt defines it
        scale = scale * parts[Part.SECOND_SCALE].float()
    if Part.DIVISOR in parts:  # NVFP4 as compressed-tensors defines it
        scale = scale / parts[Part.DIVISOR].float()
    grid = scale_grid(tuple(scale.shape), weight.shape)
    if grid is None:
        raise ValueError(f"scales of shape {tuple(scale.shape)} for {weight.shape}")
    zero_point = parts.get(Part.ZERO_POINT)
    return (
        scale.reshape(-1, grid[1]),
        None if zero_point is None else zero_point.float().reshape(-1, grid[1]),
    )


def _as_float(scale: Tensor) -> Tensor:
    """Return scales as float32; bytes are exponents of two, as float8_e8m0fnu has them."""
    return (scale.float() - 127).exp2() if scale.dtype == torch.uint8 else scale.float()


def _blocks_of_rows(start: int, stop: int, weight: QuantisedWeight, scale_rows: int) -> Tensor:
    """Return for each row of the matrix which row of scales is its own."""
    if scale_rows == 1:
        return torch.zeros(1, dtype=torch.long)
    rows = weight.shape[-2]
    index = torch.arange(start, stop)
    blocks_an_expert = math.ceil(rows / weight.block[0])
    return index // rows * blocks_an_expert + index % rows // weight.block[0]


def _chunks(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    step = max(CHUNK // max(columns, 1), 1)
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def _fill_product(
    out: Tensor, values: Tensor, scale: Tensor, zero_point: Tensor | None, block_columns: int
) -> None:
    """Write values times scales, of which there is a row for each row or one for all."""
    columns = out.shape[1]
    is_packed = values.shape[1] != columns
    if is_packed:
        values = values.view(torch.int8)
    elif values.dtype == torch.int8:
        values = values.float()  # transformers takes int8 for two four-bit floats
    whole = columns // block_columns * block_columns
    for first, last in ((0, whole), (whole, columns)):
        if first == last:
            continue
        part = values[:, first // 2 : last // 2] if is_packed else values[:, first:last]
        blocks = slice(first // block_columns, math.ceil(last / block_columns))
        if zero_point is not None:
            width = min(block_columns, last - first)
            part = part.float() - zero_point[:, blocks].repeat_interleave(width, dim=1)
        out[:, first:last] = _product(part, scale[:, blocks])


def _product(values: Tensor, scale: Tensor) -> Tensor:
    """Return float8 values (or pairs of four-bit floats) times a grid of scales that divides them.

    The one place that leans on transformers' operation, whose calling has changed within 5.x.
    """
    # Imported late: it takes seconds, and few models are quantised.
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    try:
        operation = Fp8Dequantize(None)
        product = operation.convert({"x.weight": [values], "x.weight_scale_inv": [scale]})
        result: Tensor = product["x.weight"][0]
    except (KeyError, AttributeError, TypeError) as error:
        raise _not_as_expected() from error
    if result.dtype != torch.float32:
        raise _not_as_expected()
    return result


def _not_as_expected() -> ChatVecError:
    return ChatVecError(
        f"transformers {transformers.__version__} does not dequantise FP8 in the way that is "
        "known here.",
        f"Install another, {TRANSFORMERS_FLOOR} to 5.24: `pip install 'transformers~=5.24.0'`.",
        code="transformers-unknown",
    )


def _fill_from_blocks(out: Tensor, blocks: Tensor, scales: Tensor) -> None:
    """Write experts of gpt-oss, one by one: transformers' code takes several times their memory."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    for expert in range(len(out)):
        part = slice(expert, expert + 1)
        out[part] = convert_moe_packed_tensors(blocks[part], scales[part], dtype=torch.float32)


def _fill_from_words(
    out: Tensor, parts: Mapping[Part, Tensor], weight: QuantisedWeight, first: int
) -> None:
    """Write a matrix of packed integers from a row on.

    Joined experts lie one below the other.
    """
    bits, columns = weight.scheme["num_bits"], weight.shape[-1]
    values = parts[Part.VALUES].flatten(end_dim=-2)[first:]
    scale = parts[Part.SCALE].flatten(end_dim=-2)[first:]
    # Few at a time, which stay in the cache of a core.
    step = max(min(CHUNK, CPU_CHUNK) // max(columns, 1), 1)
    for start in range(0, len(out), step):
        part = slice(start, min(start + step, len(out)))
        factors = scale[part].float()
        groups = out[part].view(*factors.shape, -1)
        groups.copy_(unpacked(values[part], bits).view(groups.shape))
        groups.sub_(2 ** (bits - 1)).mul_(factors.unsqueeze(-1))


def _fill_by_library(
    out: Tensor, parts: Mapping[Part, Tensor], weight: QuantisedWeight, first: int
) -> None:
    """Write a matrix of packed integers from a row on, as compressed-tensors takes them apart.

    Joined experts lie one below the other.
    """
    # Imported late: it is an extra.
    from compressed_tensors.compressors import (  # type: ignore[import-untyped]
        BaseCompressor,
    )
    from compressed_tensors.quantization import (  # type: ignore[import-untyped]
        QuantizationArgs,
        QuantizationScheme,
    )

    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    scheme = QuantizationScheme(targets=[], weights=QuantizationArgs(**weight.scheme))
    bits, columns = weight.scheme["num_bits"], weight.shape[-1]
    rows = math.prod(weight.shape[:-1])
    values = parts[Part.VALUES].flatten(end_dim=-2)
    scale = parts[Part.SCALE].flatten(end_dim=-2)
    # Zero points are packed down the rows, so rows are taken in steps that fill their words.
    step = max(CHUNK // max(columns, 1) // WORD_BITS, 1) * WORD_BITS
    last = first + len(out)
    for start in range(first // WORD_BITS * WORD_BITS, last, step):
        stop = min(start + step, rows)
        state = {
            "weight_packed": values[start:stop],
            "weight_scale": scale[start:stop].float(),  # it multiplies in their dtype
            "weight_shape": torch.tensor([stop - start, columns]),
        }
        if Part.ZERO_POINT in parts:
            words = parts[Part.ZERO_POINT][start * bits // WORD_BITS :]
            words = words[: math.ceil((stop - start) * bits / WORD_BITS)]
            # The library transposes them, and fails on one word unless it then lies row by row.
            words = words.t().clone(memory_format=torch.contiguous_format).t()
            state["weight_zero_point"] = words
        chunk: Tensor = compressor.decompress(state, scheme)["weight"]
        begin, end = max(start, first), min(stop, last)
        out[begin - first : end - first] = chunk[begin - start : end - start]
