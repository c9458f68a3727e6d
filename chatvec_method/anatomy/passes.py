"""A pass over a piece: the sums of its rows, on the device that was asked for.

On a CPU all of its cores are at work, each in one loop over its rows. On an accelerator, for
float64 weights and where numba is missing, torch takes the sums one after the other; on a CPU that
is many times as slow.
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
        on_cpu = self.device.type == "cpu"
        dtypes = {rounded, *(matrix.dtype for matrix in matrices)}
        looped = on_cpu and loop is not None and dtypes <= loop.STORED.keys()
        row_sums = loop.row_sums if looped else sums.row_sums
        columns = matrices[0].shape[1]
        found: dict[int, Tensor] = {}

        def take(part: slice) -> None:
            first, end = (-(-edge // columns) for edge in (part.start, part.stop))
            chunk = CPU_CHUNK if on_cpu else ACCELERATOR_CHUNK
            step = max(1, end - first if looped else chunk // columns)
            for start in range(first, end, step):
                rows = slice(start, min(start + step, end))
                cut = [matrix[rows].to(self.device) for matrix in matrices]
                found[start] = row_sums(*cut, level, ratio, rounded).cpu().double()

        whole = slice(0, matrices[0].numel())
        if on_cpu:
            self.workers.for_ranges(whole.stop, take)
        else:
            take(whole)
        return torch.cat([found[start] for start in sorted(found)], dim=1)
