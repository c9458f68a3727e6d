"""Threads that share a tensor's elements among them, each with torch's arithmetic to itself.

torch splits every single operation among threads of its own, which wait for each other after each:
with chunks that last some hundredths of a millisecond, and another process on one of the cores,
that costs ten times the work itself. Here each thread goes through its range of elements alone.
"""

from __future__ import annotations

import threading
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
    with torch_threads(1) as before:
        count = min(before, MOST)
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield Workers(pool, count)


_lock = threading.Lock()
_inside: list[int] = []
"""The setting that each of the threads here found, the first one's first."""


@contextmanager
def torch_threads(count: int) -> Iterator[int]:
    """Let torch use so many threads for what the calling thread asks of it.

    Yields how many it would use else. A thread's setting is what the last one of all threads has
    set by the time it begins, so that several threads here would find each other's.
    """
    with _lock:
        before = _inside[0] if _inside else torch.get_num_threads()
        _inside.append(before)
        torch.set_num_threads(count)
    try:
        yield before
    finally:
        with _lock:
            _inside.remove(before)
            torch.set_num_threads(before)
