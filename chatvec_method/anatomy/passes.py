"""A pass over a piece: the sums of its rows, on the device that was asked for.

On a CPU all of its cores are at work, each in one loop over its rows that numba compiles. On an
accelerator, for float64 weights and where numba is missing, torch takes the sums one after the
other; on a CPU that is many times as slow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor

from chatvec_method.anatomy import sums
from chatvec_method.errors import first_line
from chatvec_method.workers import Workers, workers

CPU_CHUNK, ACCELERATOR_CHUNK = 28 << 10, 1 << 23
"""Elements that are gone through step by step together. On a CPU, the results of all steps then
stay in the cache, and malloc does not ask the system for memory anew each time."""


def why_slow(device: str | None) -> str | None:
    """Return why passes are slow on a device and how to make them fast; None if they are fast."""
    try:
        _loop(torch.device(device or "cpu"))
    except ModuleNotFoundError:
        return (
            "Without numba the figures take many times as long: pip install "
            "'chatvec-method[anatomy]' makes them fast."
        )
    except ImportError as error:
        return (
            f"numba cannot be imported ({first_line(error)}), so that the figures take many times "
            "as long: pip install --upgrade numba may make them fast."
        )
    return None


@contextmanager
def passes_on(device: str | None) -> Iterator[Passes]:
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
        try:
            self.loop = _loop(device)
        except ImportError:
            self.loop = None

    def __call__(
        self,
        matrices: Sequence[Tensor],
        level: float = math.inf,
        ratio: float = 0.0,
        rounded: torch.dtype = torch.float32,
    ) -> tuple[Tensor, Tensor]:
        """Return `row_sums` of base, chat and other, in float64, and τ² above a level."""
        base, chat, other = matrices
        columns = base.shape[1]
        loop = self.loop
        if loop is not None and not {rounded, *(m.dtype for m in matrices)} <= loop.DTYPES:
            loop = None
        row_sums = loop.row_sums if loop else sums.row_sums
        on_cpu = self.device.type == "cpu"
        chunk = CPU_CHUNK if on_cpu else ACCELERATOR_CHUNK
        by_start: dict[int, tuple[Tensor, Tensor]] = {}

        def take(part: slice) -> None:
            first, end = (-(-edge // columns) for edge in (part.start, part.stop))
            step = max(1, end - first if loop else chunk // columns)
            for start in range(first, end, step):
                rows = slice(start, min(start + step, end))
                b, c, o = (matrix[rows].to(self.device) for matrix in (base, chat, other))
                totals, large = row_sums(b, c, o, level, ratio, rounded)
                by_start[start] = totals.cpu().double(), large.cpu()

        whole = slice(0, base.numel())
        if on_cpu:
            self.workers.for_ranges(whole.stop, take)
        else:
            take(whole)
        totals, large = zip(*(by_start[start] for start in sorted(by_start)), strict=True)
        return torch.cat(totals, dim=1), torch.cat(large)


def _loop(device: torch.device) -> ModuleType | None:
    """Return the compiled loop if it is for a device.

    Raises:
        ImportError: numba, which compiles it, is missing, or not for the other libraries here.
    """
    if device.type != "cpu":
        return None
    from chatvec_method.anatomy import loop

    return loop
