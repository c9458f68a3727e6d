"""A pass over a piece: `row_sums` on the device that was asked for, fused where that pays.

Step by step, torch goes through a piece some sixty times. Compiled, it goes through once, and is
some twenty times as fast, but the compiler takes seconds, and more where it runs for the first
time. So small models go without, and so does all else where there is no compiler.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from chatvec_method.anatomy.sums import row_sums

CPU_CHUNK, ACCELERATOR_CHUNK = 28 << 10, 1 << 23
"""Elements that are gone through step by step together. On a CPU, the results of all steps then
stay in the cache, and malloc does not ask the system for memory anew each time."""
WORTH_FUSING = 1 << 18
"""Elements of a piece from which a kernel for pieces of any size is the better choice."""
WORTH_COMPILING = 200_000_000
"""Elements of a model from which compiling saves more time than it takes."""


class Passes:
    """Calls `row_sums` on pieces of any size.

    Args:
        device: Where the arithmetic is done, as mergekit's `--device` names it.
        elements: Of a model, all tensors together.
    """

    def __init__(self, device: str | None, elements: int) -> None:
        self.device = torch.device(device or "cpu")
        self._on_cpu = self.device.type == "cpu"
        self._may_fuse = self._on_cpu and elements >= WORTH_COMPILING
        self._threads = ThreadPoolExecutor(torch.get_num_threads())

    def __enter__(self) -> Passes:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()

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
        if self._may_fuse and elements >= WORTH_FUSING:
            whole = [matrix.contiguous() for matrix in matrices]
            try:
                with _quiet_compiler():
                    return _fused()(*whole, *settings).double()
            except Exception:  # compilers are missing or fail in many ways
                self._may_fuse = False
        chunk = CPU_CHUNK if self._on_cpu else ACCELERATOR_CHUNK
        chunks = zip(*(m.split(max(1, chunk // columns)) for m in matrices), strict=True)

        def sums_of(parts: Sequence[Tensor]) -> Tensor:
            base, chat, other = (part.to(self.device) for part in parts)
            return row_sums(base, chat, other, *settings).cpu().double()

        return torch.cat(list(self._threads.map(sums_of, chunks)), dim=1)

    def _numbers(self, numbers: float | Sequence[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float32, device=self.device)


@functools.cache
def _fused() -> Any:
    """Return `row_sums` as one loop over matrices of any size; compiled when it is called."""
    # Else the compiler drops the rounding to the output's dtype, which is what is asked for.
    options: Any = {"emulate_precision_casts": True}
    return torch.compile(row_sums, dynamic=True, options=options)


@contextmanager
def _quiet_compiler() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
