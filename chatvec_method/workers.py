"""Threads that share a tensor's elements among them, each with torch's arithmetic to itself.

torch splits every single operation among threads of its own, which wait for each other after each:
with chunks that last some hundredths of a millisecond, and another process on one of the cores,
that costs ten times the work itself. Here each thread goes through its range of elements alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import TypeAlias

import torch

SMALLEST_RANGE = 1 << 18
"""Elements below which a tensor is not worth a second thread."""

ForRanges: TypeAlias = Callable[[int, Callable[[slice], None]], None]
"""Does something for ranges that make up a number of elements, and returns when all is done."""


@contextmanager
def workers() -> Iterator[ForRanges]:
    """Yield a function that shares work out, to as many threads as torch would use."""
    count = torch.get_num_threads()
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        together = Barrier(count)
        list(pool.map(lambda _: together.wait(), range(count)))  # all of them have begun
        torch.set_num_threads(count)  # for this thread; each has a number of its own

        def for_ranges(elements: int, work: Callable[[slice], None]) -> None:
            pieces = max(1, min(count, elements // SMALLEST_RANGE))
            length = -(-elements // pieces) or 1
            starts = range(0, max(elements, 1), length)
            list(pool.map(work, (slice(s, min(s + length, elements)) for s in starts)))

        yield for_ranges
