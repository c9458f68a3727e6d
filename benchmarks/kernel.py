"""Time and exactness of the formula on one tensor, side by side with the alternatives.

An element is correctly rounded if no other number of its dtype is nearer to the sum, nor as near
and even. The sum is that of the ratio as it is written, 7/10 for 0.7, and computed without any
rounding: in integers times powers of two, which the 64 bits of numpy's `longdouble` hold.

Times are medians, given as ratios to ours of the same round; the contestants take turns, so that
what else the machine does falls on all of them alike. With `--device cuda` all of it is measured on
a GPU, and how close ours comes to the rate at which the card copies.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import click
import numpy
import torch
from mergekit.merge_methods import merge_tensors
from rich.console import Console
from rich.table import Table
from torch import Tensor

from chatvec_method import kernel
from chatvec_method.method.tensor_merge import TensorMerge

SHAPE = (2048, 5632)  # an MLP matrix of TinyLlama-1.1B
RATIOS = (1.0, 0.5, 0.3, 0.7, 1.3)
ROWS_COMPARED = 8
"""One row in so many is compared with the exact sum, which takes its time."""
LENGTHS = [1 << exponent for exponent in range(14, 21)]


def weights(dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return base, chat and cp with spreads like those of real models."""
    torch.manual_seed(0)
    base = 0.02 * torch.randn(SHAPE)
    chat = base + 0.002 * torch.randn(SHAPE)
    cp = base + 0.004 * torch.randn(SHAPE)
    return tuple(tensor.to(device, dtype) for tensor in (base, chat, cp))


def ours(
    base: Tensor, chat: Tensor, cp: Tensor, ratio: float, dtype: torch.dtype | None = None
) -> Tensor:
    """Ours: chunk by chunk, in threads of our own."""
    tensors = {"base": base, "chat": chat, "cp": cp}
    merge = TensorMerge("ours", tensors, "cp", "base", {"chat": ratio}, dtype or cp.dtype)
    return merge.whole()


def whole_float32(base: Tensor, chat: Tensor, cp: Tensor, ratio: float) -> Tensor:
    """The formula on whole float32 copies."""
    return (cp.float() + ratio * (chat.float() - base.float())).to(cp.dtype)


def plain(base: Tensor, chat: Tensor, cp: Tensor, ratio: float) -> Tensor:
    """The formula as scripts have it, in the weights' own dtype."""
    return cp + ratio * (chat - base)


def task_arithmetic(base: Tensor, chat: Tensor, cp: Tensor, ratio: float) -> Tensor:
    """The same sum by mergekit's task_arithmetic: base + (cp - base) + ratio (chat - base)."""
    parameters = {"weight": [1.0, ratio]}
    return merge_tensors((base, cp, chat), "task_arithmetic", parameters=parameters, base_index=0)


def linear(base: Tensor, chat: Tensor, cp: Tensor, ratio: float) -> Tensor:
    """The same sum by mergekit's linear, with weights 1, ratio and -ratio."""
    parameters = {"weight": [1.0, ratio, -ratio], "normalize": False}
    return merge_tensors((cp, chat, base), "linear", parameters=parameters)


CONTESTANTS: list[Callable[..., Tensor]] = [ours, whole_float32, plain, task_arithmetic, linear]


def timed(contestants: list[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Return the seconds of each, round by round, after one round that does not count."""
    seconds: list[list[float]] = [[] for _ in contestants]
    for _ in range(rounds + 1):
        for contestant, record in zip(contestants, seconds, strict=True):
            start = time.perf_counter()
            contestant()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            record.append(time.perf_counter() - start)
    return [record[1:] for record in seconds]


def medians(contestants: list[Callable[[], object]], rounds: int) -> list[float]:
    """Return the median seconds of each, after one round that does not count."""
    return [statistics.median(record) for record in timed(contestants, rounds)]


def against_first(seconds: list[list[float]]) -> list[float]:
    """Return for each the median of its ratios to the first of the same round.

    The ratio of two medians may be of two rounds in which the machine had other things to do.
    """
    rounds = [list(each) for each in zip(*seconds, strict=True)]
    return [statistics.median(each[i] / each[0] for each in rounds) for i in range(len(seconds))]


def misrounded(result: Tensor, base: Tensor, chat: Tensor, cp: Tensor, ratio: float) -> float:
    """Return the share of elements, of the rows compared, that are not the rounded sum."""
    base, chat, cp, result = (tensor[::ROWS_COMPARED] for tensor in (base, chat, cp, result))
    written = Fraction(str(ratio))
    of_base, of_chat, of_cp = (_exactly(tensor) for tensor in (base, chat, cp))
    whole = written.denominator * of_cp + written.numerator * (of_chat - of_base)
    bits = result.view(torch.int16)
    own, *neighbours = (
        abs(written.denominator * _exactly((bits + step).view(result.dtype)) - whole)
        for step in (0, -1, 1)
    )
    nearest = numpy.minimum(*neighbours)
    wrong = (nearest < own) | ((nearest == own) & (bits & 1).bool().cpu().numpy())
    wrong &= (result != 0).cpu().numpy()  # whose bits have other neighbours
    return float(wrong.mean())


def _exactly(tensor: Tensor) -> Any:
    return tensor.double().cpu().numpy().astype(numpy.longdouble)


def comparison(rounds: int, device: str) -> Iterator[Table]:
    """Time of every contestant in bfloat16, and exactness in half precision, of float32 too."""
    models = weights(torch.bfloat16, device)
    where = f"{torch.get_num_threads()} threads" if device == "cpu" else device
    speed = Table(title=f"{SHAPE[0]} x {SHAPE[1]} bfloat16, {where}")
    speed.add_column("kernel")
    times = []
    for ratio in (1.0, 0.7):
        speed.add_column(f"time at {ratio}", justify="right")
        seconds = timed([partial(c, *models, ratio) for c in CONTESTANTS], rounds)
        times.append((against_first(seconds), [statistics.median(each) for each in seconds]))
    for i, contestant in enumerate(CONTESTANTS):
        columns = [f"{share[i]:.2f} x ({taken[i] * 1e3:.1f} ms)" for share, taken in times]
        speed.add_row(contestant.__name__, *columns)
    yield speed

    for stored in (*kernel.HALF_PRECISION, torch.float32):
        models = weights(stored, device)
        for dtype in [stored] if stored in kernel.HALF_PRECISION else kernel.HALF_PRECISION:
            title = f"{_name(dtype)} elements of {_name(stored)} models not correctly rounded"
            exactness = Table(title=title)
            exactness.add_column("kernel")
            for ratio in RATIOS:
                exactness.add_column(f"ratio {ratio}", justify="right")
            for contestant in CONTESTANTS:
                results = (_rounded(contestant, *models, r, dtype) for r in RATIOS)
                pairs = zip(results, RATIOS, strict=True)
                shares = [misrounded(result, *models, ratio) for result, ratio in pairs]
                exactness.add_row(contestant.__name__, *(f"{share:.1e}" for share in shares))
            yield exactness


def _rounded(
    contestant: Callable[..., Tensor],
    base: Tensor,
    chat: Tensor,
    cp: Tensor,
    ratio: float,
    dtype: torch.dtype,
) -> Tensor:
    """Return what a contestant makes of models, in the dtype of the output."""
    if contestant is ours:
        return ours(base, chat, cp, ratio, dtype)
    return contestant(base, chat, cp, ratio).to(dtype)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def copy_rate(rounds: int, device: str) -> Table:
    """Bytes that ours reads and writes in a second, against a plain copy on the same device."""
    base, chat, cp = weights(torch.bfloat16, device)
    ours_took, copy_took = medians([partial(ours, base, chat, cp, 1.0), cp.clone], rounds)
    rates = {"ours": 4 * cp.nbytes / ours_took, "a copy": 2 * cp.nbytes / copy_took}
    table = Table(title="reads and writes")
    table.add_column("kernel")
    table.add_column("GB/s", justify="right")
    table.add_column("of a copy's", justify="right")
    for name, rate in rates.items():
        table.add_row(name, f"{rate / 1e9:.1f}", f"{rate / rates['a copy']:.2f}")
    return table


def chunk_lengths(rounds: int) -> Table:
    """Time of ours by the length of a chunk, for both working dtypes, on the CPU."""
    models = weights(torch.bfloat16, "cpu")
    table = Table(title="ours by chunk length (time as a ratio to the length in use)")
    table.add_column("elements", justify="right")
    table.add_column("float32 (ratio 1)", justify="right")
    table.add_column("float64 (ratio 0.7)", justify="right")

    def run_in_chunks(length: int, ratio: float) -> Callable[[], Tensor]:
        def run() -> Tensor:
            kernel.CPU_CHUNK, chosen = length, kernel.CPU_CHUNK
            try:
                return ours(*models, ratio)
            finally:
                kernel.CPU_CHUNK = chosen

        return run

    others = [n for n in LENGTHS if n != kernel.CPU_CHUNK]
    columns = []
    for ratio in (1.0, 0.7):
        runs = [run_in_chunks(n, ratio) for n in (kernel.CPU_CHUNK, *others)]
        shares = against_first(timed(runs, rounds))
        columns.append(dict(zip((kernel.CPU_CHUNK, *others), shares, strict=True)))
    for length in LENGTHS:
        table.add_row(f"{length:,}", *(f"{column[length]:.2f}" for column in columns))
    return table


@click.command()
@click.option("--rounds", default=15, show_default=True, help="Rounds that count.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
def main(rounds: int, device: str) -> None:
    """Print the comparison, the rate of reading and writing, and the times by chunk length."""
    if device == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("torch finds no GPU here; leave --device out.")
    console = Console()
    for table in (*comparison(rounds, device), copy_rate(rounds, device)):
        console.print(table)
    if device == "cpu":
        console.print(chunk_lengths(rounds))


if __name__ == "__main__":
    main()
