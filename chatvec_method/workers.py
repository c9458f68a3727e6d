"""Threads that share a tensor's elements among them, each with torch's arithmetic to itself.

torch splits every single operation among threads of its own, which wait for each other after each:
with chunks that last some hundredths of a millisecond, and another process on one of the cores,
that costs ten times the work itself. Here each thread goes through its range of elements alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch

MOST = 8
"""Threads; between torch's operations they wait for Python, so that more would not be faster."""
SMALLEST_RANGE = 1 << 18
"""Elements below which a tensor is not worth a second thread."""


@dataclass(frozen=True)
class Workers:
    """Threads at work."""

    pool: ThreadPoolExecutor
    count: int

    def for_ranges(self, elements: int, work: Callable[[slice], None]) -> None:
        """Do something for ranges that make up a number of elements, and wait for all of them."""
        pieces = max(1, min(self.count, elements // SMALLEST_RANGE))
        length = -(-elements // pieces) or 1
        starts = range(0, max(elements, 1), length)
        list(self.pool.map(work, (slice(s, min(s + length, elements)) for s in starts)))


@contextmanager
def workers() -> Iterator[Workers]:
    """Yield threads, as many as torch would use, which meanwhile uses none of its own."""
    count = min(torch.get_num_threads(), MOST)
    with (
        torch_threads(1),
        ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        yield Workers(pool, count)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads for what the calling thread asks of it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
