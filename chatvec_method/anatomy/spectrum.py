"""How much of a matrix's energy its first singular directions hold, read in pieces.

Randomised subspace iteration (Halko, Martinsson and Tropp, 2011) as in `torch.svd_lowrank`, which
wants the whole matrix in memory, and the embeddings of a large model do not fit there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

EXACT = 256
"""Up to so many columns, all directions are looked at."""
SPARE, ROUNDS = 10, 2
"""Directions beyond those asked for, and rounds of iteration after the first."""


def leading_energy(pieces: Callable[[], Iterator[Tensor]], rank: int) -> float:
    """Return Σ σ² over the `rank` largest singular values of a matrix.

    Exact for narrow matrices. For others a lower bound: directions that are nearly as strong as
    others may be missed, which costs at most their difference.

    Args:
        pieces: Gives the matrix as float32 pieces (rows, columns), from the first row on, each
            time it is called.
        rank: How many; more than the matrix has are all of them.
    """
    columns = next(pieces()).shape[1]
    if columns <= max(EXACT, rank + SPARE):
        gram = sum((_gram(piece) for piece in pieces()), start=torch.zeros(()))
        return _largest(gram, rank)
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn((columns, rank + SPARE), generator=generator)
    for _ in range(1 + ROUNDS):
        directions = directions.to(next(pieces()).device)
        image = sum((p.T @ (p @ directions) for p in pieces()), start=torch.zeros(()))
        directions = torch.linalg.qr(image).Q
    seen = (_gram(piece @ directions) for piece in pieces())
    return _largest(sum(seen, start=torch.zeros(())), rank)


def _gram(matrix: Tensor) -> Tensor:
    wide = matrix.cpu().double()
    return wide.T @ wide


def _largest(gram: Tensor, count: int) -> float:
    """Return the sum of the largest eigenvalues of a symmetric matrix."""
    return float(torch.linalg.eigvalsh(gram)[-count:].sum())
