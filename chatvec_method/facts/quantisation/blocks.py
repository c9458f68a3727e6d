"""Which values of a weight share a scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from chatvec_method.facts.models import TensorHeader
from chatvec_method.facts.quantisation.formats import MX_GROUP, Packing, Part, QuantisedWeight
from chatvec_method.facts.quantisation.stored import Stored


def scale_grid(scale: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return over how many rows and columns of blocks the scales of a matrix lie.

    Known are one scale for all, or one for each expert; a vector, one for each row (or column
    of an expert, if only that fits); and a grid, also with axes of 1 between, as ModelOpt writes.

    Args:
        scale: The scales' shape.
        shape: The weight's: rows and columns, with the experts before them if they are fused.

    Returns:
        None if the scales do not fit, or fit in two ways.
    """
    experts, (rows, columns) = shape[:-2], shape[-2:]
    if math.prod(scale) in (1, math.prod(experts)):
        return 1, 1
    if scale[: len(experts)] != experts:
        return None
    grid = scale[len(experts) :]
    if len(grid) == 4 and grid[1] == grid[3] == 1:
        grid = (grid[0], grid[2])
    if len(grid) == 2:
        return grid if grid[0] <= rows and grid[1] <= columns else None
    if grid == (rows,) and (not experts or rows != columns):
        return rows, 1
    return (1, columns) if experts and grid == (columns,) and rows != columns else None


def with_blocks(
    stored: Mapping[str, Stored],
    tensors: Mapping[str, TensorHeader],
    sizes: list[tuple[int, int]],
) -> Iterator[tuple[str, QuantisedWeight | str]]:
    """Yield every weight with the size of its blocks, or what is wrong with it."""
    in_grids = {
        name: (weight.shape[-2:], scale_grid(tensors[weight.parts[Part.SCALE]].shape, weight.shape))
        for name, weight in stored.items()
        if not weight.problem and weight.packing in (Packing.PLAIN, Packing.FP4)
    }
    guesses = {}
    for packing in (Packing.PLAIN, Packing.FP4):
        together = [grid for name, grid in in_grids.items() if stored[name].packing is packing]
        guesses[packing] = _common_block(together)
    for name, weight in stored.items():
        if weight.problem:
            yield name, weight.problem
            continue
        scale = tensors[weight.parts[Part.SCALE]]
        block: tuple[int, int] | None = (MX_GROUP, 1)
        if weight.packing is Packing.INT32:
            block = (1, weight.shape[-1] // scale.shape[-1])
        elif name in in_grids:
            block = _block(*in_grids[name], sizes, guesses[weight.packing])
        if block is None:
            yield (
                name,
                f"the scales of `{name}`, of shape {list(scale.shape)}, do not fit its shape "
                f"{list(weight.shape)}",
            )
            continue
        yield (
            name,
            QuantisedWeight(
                weight.parts, weight.shape, weight.packing, block, scale.dtype, weight.scheme
            ),
        )


def _block(
    matrix: tuple[int, ...],
    grid: tuple[int, int] | None,
    sizes: list[tuple[int, int]],
    guess: tuple[int | None, int | None],
) -> tuple[int, int] | None:
    """Return the size of a matrix's blocks: the config's if that makes its grid."""
    if grid is None:
        return None
    for size in sizes:
        if all(math.ceil(n / b) == g for n, b, g in zip(matrix, size, grid, strict=True)):
            return min(size[0], matrix[0]), min(size[1], matrix[1])
    rows, columns = (
        n if g == 1 else 1 if g == n else b if b and math.ceil(n / b) == g else _divided(n, g)
        for n, g, b in zip(matrix, grid, guess, strict=True)
    )
    return (rows, columns) if rows and columns else None


def _divided(length: int, blocks: int) -> int | None:
    return length // blocks if length % blocks == 0 else None


def _common_block(
    weights: Iterable[tuple[tuple[int, ...], tuple[int, int] | None]],
) -> tuple[int | None, int | None]:
    """Return the size of the blocks that all weights share; None along an axis that tells none."""
    lengths: tuple[set[tuple[int, int]], ...] = (set(), set())
    for matrix, grid in weights:
        for axis, blocks in enumerate(grid or ()):
            if 1 < blocks < matrix[axis]:
                lengths[axis].add((matrix[axis], blocks))
    square = _common_length(lengths[0] | lengths[1]) if all(lengths) else None
    return square or _common_length(lengths[0]), square or _common_length(lengths[1])


def _common_length(lengths: set[tuple[int, int]]) -> int | None:
    """Return how long blocks are, of which the last may be cut short.

    One length leaves a range: 576 rows in 5 blocks can be blocks of 116 to 143. All together leave
    less. If different lengths divide evenly into the same, it is that; else makers take powers of
    two.
    """
    if not lengths:
        return None
    if len(lengths) > 1 and len({length / blocks for length, blocks in lengths}) == 1:
        return _divided(*next(iter(lengths)))
    low = max(math.ceil(length / blocks) for length, blocks in lengths)
    high = min(math.ceil(length / (blocks - 1)) - 1 for length, blocks in lengths)
    power: int = 2 ** math.ceil(math.log2(low))
    return power if power <= high else None
