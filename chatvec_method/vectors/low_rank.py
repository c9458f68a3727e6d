"""A matrix as the product of two thin ones: the directions that hold most of it."""

from __future__ import annotations

import torch
from torch import Tensor

EXACT = 512
"""Up to so many rows or columns, all directions are computed: that takes a tenth of a second."""
SPARE, ROUNDS = 10, 2
"""Else a sketch is, with so many directions more than are asked for, made sharper so many times."""
CHUNK = 1 << 20
"""Elements that are compared in one go."""


def low_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the thin matrices whose product is nearest to a matrix, in float32.

    Exact up to float32 for small matrices, and where many directions are asked for. Else by
    randomised subspace iteration (Halko, Martinsson and Tropp, 2011), the same every time, which
    may miss directions that are nearly as long as others; that costs at most their difference.

    Args:
        matrix: (rows, columns), in float32 or float64.
        rank: Of the product. Beyond the matrix' own there are zeros.

    Returns:
        (rows, rank) and (rank, columns), each direction's length shared between both.
    """
    matrix = matrix.float()
    if min(matrix.shape) <= max(EXACT, 2 * (rank + SPARE)):
        left, lengths, right = torch.linalg.svd(matrix, full_matrices=False)
    else:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            left, lengths, columns = torch.svd_lowrank(matrix, rank + SPARE, niter=ROUNDS)
        right = columns.mT
    shared = lengths[:rank].sqrt()
    down, up = matrix.new_zeros(rank, matrix.shape[1]), matrix.new_zeros(len(matrix), rank)
    down[: len(shared)] = shared[:, None] * right[:rank]
    up[:, : len(shared)] = left[:, :rank] * shared
    return up, down


def kept_energy(matrix: Tensor, up: Tensor, down: Tensor) -> float:
    """Return the share of ‖matrix‖² that a product of thin matrices keeps: 1 − ‖rest‖² / ‖matrix‖².

    Args:
        matrix: (rows, columns).
        up: (rows, rank), in any dtype.
        down: (rank, columns).
    """
    step, down = max(CHUNK // matrix.shape[1], 1), down.float()
    rest = whole = 0.0
    for first in range(0, len(matrix), step):
        part = matrix[first : first + step].float()
        whole += float(part.norm()) ** 2
        rest += float((part - up[first : first + step].float() @ down).norm()) ** 2
    return 1 - rest / whole if whole else 1.0
