"""Integers packed into words and taken out again, against compressed-tensors on the same matrix.

Times are medians of a single thread, as ratios to ours of the same round; the contestants take
turns. That the results are equal is checked in the same run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import click
import torch
from compressed_tensors.compressors.pack_quantized.helpers import (  # type: ignore[import-untyped]
    pack_to_int32,
    unpack_from_int32,
)
from rich.console import Console
from rich.table import Table
from torch import Tensor

from chatvec_method.weights.packed_integers import packed, unpacked

SHAPE = (128, 2048)
"""What is packed in one go, of TinyLlama's matrices."""


def seconds(contestants: list[Callable[[], Tensor]], rounds: int) -> list[float]:
    """Return the median time of each, after one round that does not count."""
    taken: list[list[float]] = [[] for _ in contestants]
    for _ in range(rounds + 1):
        for contestant, record in zip(contestants, taken, strict=True):
            start = time.perf_counter()
            contestant()
            record.append(time.perf_counter() - start)
    return [statistics.median(record[1:]) for record in taken]


@click.command()
@click.option("--rounds", default=200, show_default=True)
def main(rounds: int) -> None:
    """Print how many times as long as ours the library takes."""
    torch.set_num_threads(1)
    table = Table(title=f"{SHAPE[0]} x {SHAPE[1]} integers, medians of {rounds}")
    for column in ("bits", "packing, ms", "the library", "taking out, ms", "the library"):
        table.add_column(column, justify="right")
    for bits in (2, 4, 8):
        half = 2 ** (bits - 1)
        integers = torch.randint(-half, half, SHAPE, dtype=torch.int8)
        words = packed(integers, bits)
        assert torch.equal(words, pack_to_int32(integers, bits))
        pack = [partial(packed, integers, bits), partial(pack_to_int32, integers, bits)]
        take_out = [
            partial(unpacked, words, bits),
            partial(unpack_from_int32, words, bits, integers.shape),
        ]
        times = [seconds(contestants, rounds) for contestants in (pack, take_out)]
        cells = [
            cell for own, other in times for cell in (f"{own * 1e3:.2f}", f"{other / own:.1f} x")
        ]
        table.add_row(str(bits), *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
