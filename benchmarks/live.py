"""A new ratio in memory against merging to disk and loading again, taking turns.

Measured are: `chatvec merge` into a folder and loading that folder, each a process of its own as
whoever starts over has them, and both within one process, where nothing has to be imported;
setting a live model to another ratio, of all tensors and of the MLP's alone; and, on a CPU, the
sums alone as a merge forms them, into buffers that nobody writes anywhere. All files are in the
page cache when their turn comes. Besides the seconds on the clock, those of the processor are told,
user and system together: where other work waits, they say more.

On an accelerator a setting moves three inputs and one output of every parameter, and is held
against the card's own speed of copying one gigabyte to another place; the merge to disk has its
sums on the card too.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoints
import click
import torch
import yaml
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import AutoModelForCausalLM

import chatvec_method
from chatvec_method import LiveMerge, ReadySurvey
from chatvec_method.weights.inputs import Inputs
from chatvec_method.weights.matching import matching_of
from chatvec_method.weights.reading import Reader
from chatvec_method.weights.sums import Sum
from chatvec_method.workers import workers

CHAT = 1
"""The place of the chat model in the recipe."""
PART = 1 << 21
COPIED_BYTES = 1 << 30
RATIOS = (0.7, 0.3, 1.3, 0.55, 0.9)
"""None has few significant bits, so that all sums are formed in float64."""


LOAD = """
import sys
from transformers import AutoModelForCausalLM
AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto", device_map=sys.argv[2])
"""


@dataclass(frozen=True)
class Seconds:
    """What something took."""

    clock: float
    processor: float
    """User and system, of all threads and of processes that were waited for."""

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.clock + other.clock, self.processor + other.processor)


def timed(work: Callable[[], Any], device: torch.device) -> Seconds:
    """Return what something takes, with all that it leaves to the device."""
    start, before = time.perf_counter(), sum(os.times()[:4])
    work()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return Seconds(time.perf_counter() - start, sum(os.times()[:4]) - before)


def sums_alone(survey: ReadySurvey) -> Callable[[], None]:
    """Return what forms all sums of a merge as it does, and writes them nowhere."""
    reader, matching = Reader(survey.plan.checkpoints), matching_of(survey)
    held = threading.local()

    def form(each: Sum, part: slice) -> None:
        if not hasattr(held, "buffer"):
            held.buffer = torch.empty(PART, dtype=each.dtype)
        each.part(part, held.buffer[: part.stop - part.start])

    def work() -> None:
        with workers() as at_work:
            parts = []
            for tensor in survey.plan.tensors:
                inputs = Inputs(survey, reader, matching, tensor)
                header = survey.headers[tensor.name]
                each = Sum(tensor, inputs, header.dtype, torch.device("cpu"))
                size = inputs.shape.numel()
                for start in range(0, size, PART):
                    part = slice(start, min(start + PART, size))
                    parts.append(at_work.pool.submit(form, each, part))
            for under_way in parts:
                under_way.result()

    return work


def merge_and_load(survey: ReadySurvey, out: Path, device: str) -> Seconds:
    """Return what a merge to disk and loading it take within this process."""
    shutil.rmtree(out, ignore_errors=True)

    def work() -> None:
        chatvec_method.merge(survey, out, on_progress=lambda _: None)
        AutoModelForCausalLM.from_pretrained(out, dtype="auto", device_map=device)

    return timed(work, torch.device(device))


def start_over(recipe: Path, out: Path, device: str) -> Seconds:
    """Return what the command that merges takes, and a program that loads its output."""
    shutil.rmtree(out, ignore_errors=True)
    command = [Path(sys.executable).parent / "chatvec", "merge", recipe, out, "--quiet"]
    ratio = ["--ratio", str(RATIOS[0]), "--device", device]

    def work() -> None:
        subprocess.run([*command, *ratio], check=True, capture_output=True)
        load = [sys.executable, "-c", LOAD, out, device]
        subprocess.run(load, check=True, capture_output=True)

    return timed(work, torch.device("cpu"))


def copy_speed(device: torch.device) -> float:
    """Return the bytes a second that a device reads and writes while it copies."""
    one = torch.ones(COPIED_BYTES // 2, dtype=torch.bfloat16, device=device)
    other = torch.empty_like(one)
    seconds = [timed(lambda: other.copy_(one), device).clock for _ in range(20)]
    return 2 * COPIED_BYTES / statistics.median(seconds)


def parameters(live: LiveMerge) -> list[Tensor]:
    """Return every parameter once."""
    return list({p.data_ptr(): p for p in live.model.parameters()}.values())


@click.command()
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--shape", type=click.Choice(list(checkpoints.SHAPES)), default="1.1b")
@click.option("--layers", type=int, help="How many, in place of the shape's own.")
@click.option("--device", default="auto", show_default=True, help="As for `chatvec chat`.")
@click.option("--keep", type=click.Choice(["device", "pinned", "mapped"]), help="Of the models.")
@click.option("--rounds", default=3, show_default=True, help="Rounds that count, of a merge.")
def main(
    folder: Path | None,
    shape: str,
    layers: int | None,
    device: str,
    keep: Any,
    rounds: int,
) -> None:
    """Measure on the models in FOLDER, which are made if they are not there.

    Without FOLDER they are made in a temporary one; 1.1b takes 6.6 GB, and its merge 2.2 GB more.
    """
    if device == "auto":
        kind = torch.accelerator.current_accelerator(check_available=True)
        device = kind.type if kind is not None else "cpu"
    warnings.simplefilter("ignore", chatvec_method.ChatVecWarning)  # nobody will chat
    if device == "cpu":
        print("No accelerator is used: nothing is measured of one.")
    with tempfile.TemporaryDirectory() as temporary:
        recipe = checkpoints.make(folder or Path(temporary), shape, layers)
        _measure(recipe, Path(temporary) / "out", device, keep, rounds)


def _measure(recipe: Path, out: Path, device: str, keep: Any, rounds: int) -> None:
    where = torch.device(device)
    settings = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    settings["models"][CHAT]["parameters"]["ratio"] = RATIOS[0]
    survey = chatvec_method.survey(settings, device=device).ready()
    held: list[LiveMerge] = []

    def load() -> None:
        held.append(
            chatvec_method.live(survey, device=device, keep=keep, on_progress=lambda _: None)
        )

    took = {"load a live merge": [timed(load, where)]}
    (live,) = held
    alone = sums_alone(survey)
    for turn in range(rounds + 1):  # the first one's files may not be in the page cache
        measured = {
            "start over: the command, and a program that loads": [start_over(recipe, out, device)],
            "merge to disk and load, in one process": [merge_and_load(survey, out, device)],
        }
        if device == "cpu":
            measured["the sums alone"] = [timed(alone, where)]
        live.set(1.0)
        measured["set a new ratio"] = [timed(lambda r=r: live.set(r), where) for r in RATIOS]
        measured["set it for the MLP alone"] = [
            timed(lambda r=r: live.set_part("mlp", r), where) for r in RATIOS[1:]
        ]
        if turn:
            for name, seconds in measured.items():
                took.setdefault(name, []).extend(seconds)
    _print(took, live, where)


def _print(took: dict[str, list[Seconds]], live: LiveMerge, device: torch.device) -> None:
    size = sum(p.nbytes for p in parameters(live))
    count = sum(p.numel() for p in parameters(live))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads()
    table = Table(
        title=f"{count / 1e9:.2f} billion parameters, {size / 1e9:.2f} GB, on {device}; models "
        f"kept: {live.keep}; {cores} cores, {threads} threads; medians",
        title_justify="left",
    )
    columns = ("", "seconds", "from", "to", "to a new ratio's", "of the processor", "to its")
    for name in columns:
        table.add_column(name, justify="right" if name else "left")
    one = statistics.median(seconds.clock for seconds in took["set a new ratio"])
    least = statistics.median(seconds.processor for seconds in took["set a new ratio"])
    for name, seconds in took.items():
        clock = [each.clock for each in seconds]
        processor = statistics.median(each.processor for each in seconds)
        middle = statistics.median(clock)
        table.add_row(
            name,
            *(f"{number:.2f}" for number in (middle, min(clock), max(clock))),
            f"{middle / one:.2f}",
            f"{processor:.2f}",
            f"{processor / least:.2f}",
        )
    Console(width=110).print(table)
    if device.type != "cpu":
        speed = copy_speed(device)
        share = 4 * size / one / speed
        print(f"The card copies {speed / 1e9:.0f} GB/s; a new ratio moves {share:.0%} of that.")


if __name__ == "__main__":
    main()
