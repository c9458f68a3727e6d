"""A pass over a piece: the sums of its rows, on the device that was asked for.

On a CPU all of its cores are at work, each in one loop over its rows. On an accelerator, for
float64 weights and where numba is missing, torch takes the sums one after the other; on a CPU that
is some twenty times as slow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from chatvec_method.anatomy import sums
from chatvec_method.workers import Workers, workers

try:
    from chatvec_method.anatomy import loop
except ImportError:  # numba comes later than Python's newest version
    loop = None  # type: ignore[assignment]

CPU_CHUNK, ACCELERATOR_CHUNK = 28 << 10, 1 << 23
"""Elements that are gone through step by step together. On a CPU, the results of all steps then
stay in the cache, and malloc does not ask the system for memory anew each time."""


@contextmanager
def passes(device: str | None) -> Iterator[Passes]:
    """Yield what takes the sums of pieces.

    Args:
        device: Where the arithmetic is done, as mergekit's `--device` names it.
    """
    with workers() as at_work:
        yield Passes(torch.device(device or "cpu"), at_work)


class Passes:
    """Takes the sums of pieces of any size."""

    def __init__(self, device: torch.device, at_work: Workers) -> None:
        self.device = device
        self.workers = at_work

    def __call__(
        self,
        matrices: Sequence[Tensor],
        level: float = math.inf,
        ratio: float = 0.0,
        rounded: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return `row_sums` of base, chat and other, in float64 and on the CPU."""
        if self.device.type != "cpu":
            return self._stepwise(matrices, level, ratio, rounded)
        dtypes = {rounded, *(matrix.dtype for matrix in matrices)}
        looped = loop is not None and dtypes <= loop.STORED.keys()
        columns = matrices[0].shape[1]
        found: dict[int, Tensor] = {}

        def take(part: slice) -> None:
            rows = slice(-(-part.start // columns), -(-part.stop // columns))
            cut = [matrix[rows].contiguous() for matrix in matrices]
            sums_of = loop.row_sums if looped else self._stepwise_of
            found[rows.start] = sums_of(*cut, level, ratio, rounded)

        self.workers.for_ranges(matrices[0].numel(), take)
        return torch.cat([found[start] for start in sorted(found)], dim=1)

    def _stepwise_of(
        self,
        base: Tensor,
        chat: Tensor,
        other: Tensor,
        level: float,
        ratio: float,
        rounded: torch.dtype,
    ) -> Tensor:
        return self._stepwise([base, chat, other], level, ratio, rounded)

    def _stepwise(
        self, matrices: Sequence[Tensor], level: float, ratio: float, rounded: torch.dtype
    ) -> Tensor:
        chunk = CPU_CHUNK if self.device.type == "cpu" else ACCELERATOR_CHUNK
        rows = max(1, chunk // matrices[0].shape[1])
        found = []
        for parts in zip(*(matrix.split(rows) for matrix in matrices), strict=True):
            base, chat, other = (part.to(self.device) for part in parts)
            part = sums.row_sums(base, chat, other, level, ratio, rounded)
            found.append(part.cpu().double())
        return torch.cat(found, dim=1)
