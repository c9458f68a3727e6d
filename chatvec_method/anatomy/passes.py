"""A pass over a piece: `row_sums` on the device that was asked for, fused where that pays.

Step by step, torch goes through a piece some sixty times. Compiled, it goes through once, and is
some twenty times as fast, but the compiler takes seconds, and more where it runs for the first
time. So small models go without, and so does all else where there is no compiler.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor

from chatvec_method.anatomy.sums import row_sums
from chatvec_method.workers import Workers, workers

CPU_CHUNK, ACCELERATOR_CHUNK = 28 << 10, 1 << 23
"""Elements that are gone through step by step together. On a CPU, the results of all steps then
stay in the cache, and malloc does not ask the system for memory anew each time."""
WORTH_FUSING = 1 << 18
"""Elements of a piece from which a kernel for pieces of any size is the better choice."""
WORTH_COMPILING = 200_000_000
"""Elements of a model from which compiling saves more time than it takes."""

Settings: TypeAlias = "tuple[Tensor, Tensor, torch.dtype | None]"
"""Levels, ratio and output dtype, as `row_sums` takes them."""


@contextmanager
def passes(device: str | None, elements: int) -> Iterator[Passes]:
    """Yield what calls `row_sums` on pieces of any size, with all of the CPU's cores at work.

    Args:
        device: Where the arithmetic is done, as mergekit's `--device` names it.
        elements: Of a model, all tensors together.
    """
    with workers() as at_work:
        yield Passes(torch.device(device or "cpu"), elements, at_work)


class Passes:
    """Calls `row_sums` on pieces of any size."""

    def __init__(self, device: torch.device, elements: int, at_work: Workers) -> None:
        self.device = device
        self._on_cpu = device.type == "cpu"
        self._may_fuse = self._on_cpu and elements >= WORTH_COMPILING
        self._workers = at_work
        self._compiled: set[object] = set()
        self._compiling = threading.Lock()

    def __call__(
        self,
        matrices: Sequence[Tensor],
        levels: Sequence[float] = (),
        ratio: float = 0.0,
        rounded: torch.dtype | None = None,
    ) -> Tensor:
        """Return what `row_sums` returns of base, chat and other, in float64 and on the CPU."""
        settings = (self._numbers(levels), self._numbers(ratio), rounded)
        elements, columns = matrices[0].numel(), matrices[0].shape[1]
        if not self._on_cpu:
            return self._stepwise(matrices, settings)
        fused = self._may_fuse and elements >= WORTH_FUSING
        found: dict[int, Tensor] = {}

        def work(part: slice) -> None:
            rows = slice(-(-part.start // columns), -(-part.stop // columns))
            sums_of = self._in_one_go if fused else self._stepwise
            found[rows.start] = sums_of([matrix[rows] for matrix in matrices], settings)

        try:
            self._workers.for_ranges(elements, work)
        except Exception:  # compilers are missing or fail in many ways
            if not fused:
                raise
            self._may_fuse = False
            return self(matrices, levels, ratio, rounded)
        return torch.cat([found[start] for start in sorted(found)], dim=1)

    def _stepwise(self, matrices: Sequence[Tensor], settings: Settings) -> Tensor:
        chunk = CPU_CHUNK if self._on_cpu else ACCELERATOR_CHUNK
        rows = max(1, chunk // matrices[0].shape[1])
        sums = []
        for parts in zip(*(matrix.split(rows) for matrix in matrices), strict=True):
            base, chat, other = (part.to(self.device) for part in parts)
            sums.append(row_sums(base, chat, other, *settings).cpu().double())
        return torch.cat(sums, dim=1)

    def _in_one_go(self, matrices: Sequence[Tensor], settings: Settings) -> Tensor:
        whole = [matrix.contiguous() for matrix in matrices]
        key = (*(matrix.dtype for matrix in whole), len(settings[0]), settings[2])
        if key in self._compiled:
            found: Tensor = _fused()(*whole, *settings)
            return found.double()
        with self._compiling, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = _fused()(*whole, *settings)
            self._compiled.add(key)
            return found.double()

    def _numbers(self, numbers: float | Sequence[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float32, device=self.device)


@functools.cache
def _fused() -> Any:
    """Return `row_sums` as one loop over matrices of any size; compiled when it is called."""
    # Without the first the compiler drops the rounding to the output's dtype, which is what is
    # asked for; with the second other threads run beside it.
    options: Any = {"emulate_precision_casts": True, "cpp_wrapper": True}
    return torch.compile(row_sums, dynamic=True, options=options)
