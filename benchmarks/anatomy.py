"""How fast `chatvec anatomy` reads, against `cat` of the same files, and what memory it takes.

Three random models of 1.1 billion parameters, in the page cache. `cat` and the command take turns,
each a process of its own. Speeds are bytes of weights by second of processor time, user and system
together: the speed of one core, however many are at work. The command is measured as a whole, with
Python's start, the libraries and the compiler; and inside it, what reading and measuring take: the
first time, with the compiler, and the second, without (Linux only).
`--no-numba` tells what all of it takes where numba is not installed.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import checkpoints
import click
from rich.console import Console
from rich.table import Table

INSIDE = """
import gc, json, sys, time
gc.disable()  # as the command does
from pathlib import Path
from mergekit.options import MergeOptions
from chatvec_method.anatomy import examine
from chatvec_method.recipe.file import read_recipe
from chatvec_method.facts.survey import survey
gc.freeze()
gc.enable()
surveyed = survey(read_recipe(Path(sys.argv[1])), MergeOptions())
took = []
for _ in range(2):
    wall, cpu = time.perf_counter(), time.process_time()
    examine(surveyed)
    took.append({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu})
print(json.dumps(took))
"""
COMMAND = "from chatvec_method.cli import main; main()"
NO_NUMBA = "import sys; sys.modules['numba'] = None\n"
SAMPLE_SECONDS = 0.01


@dataclass(frozen=True)
class Run:
    """What one process took."""

    wall: float
    cpu: float
    resident: int
    """The peak of resident memory in bytes, mapped files among it."""
    anonymous: int
    """The peak of what is not mapped from a file."""
    printed: str


def run(command: list[str]) -> Run:
    """Run a command to its end; what it prints is read and not shown."""
    peaks = {"VmHWM": 0, "RssAnon": 0}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    # The command in the process that is measured, and not in a child.
    one_process = {**os.environ, "CHATVEC_DEBUG": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=one_process) as process:
        watcher = threading.Thread(target=_watch, args=(process, peaks))
        watcher.start()
        printed, _ = process.communicate()
        wall = time.perf_counter() - start
        watcher.join()
    if process.returncode:
        raise click.ClickException(f"{command[0]} failed with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Run(wall, cpu, peaks["VmHWM"], peaks["RssAnon"], printed)


def _watch(process: subprocess.Popen[str], peaks: dict[str, int]) -> None:
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except OSError:
            return
        for name in peaks:
            kilobytes = int(fields.get(name, "0").split()[0])
            peaks[name] = max(peaks[name], kilobytes * 1024)
        time.sleep(SAMPLE_SECONDS)


@click.command()
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--rounds", default=5, show_default=True, help="Rounds that count.")
@click.option("--no-numba", is_flag=True, help="As if numba were not installed.")
def main(folder: Path | None, rounds: int, no_numba: bool) -> None:
    """Measure on the models in FOLDER, which are made if they are not there.

    Without FOLDER they are made in a temporary one; they take 6.6 GB.
    """
    with tempfile.TemporaryDirectory() as temporary:
        recipe = checkpoints.make(folder or Path(temporary))
        files = [str(file) for file in recipe.parent.glob("*/*.safetensors")]
        cat = ["sh", "-c", 'cat "$@" > /dev/null', "cat", *files]
        before = NO_NUMBA if no_numba else ""
        command = [sys.executable, "-c", before + COMMAND, "anatomy", str(recipe), "--json"]
        inside = [sys.executable, "-c", before + INSIDE, str(recipe)]
        runs = [(run(cat), run(command), run(inside)) for _ in range(rounds + 1)]
    _print(runs[1:], json.loads(runs[0][1].printed)["bytes_read"])


def _print(rounds: list[tuple[Run, Run, Run]], size: int) -> None:
    table = Table(title=f"{size / 1e9:.1f} GB of weights, medians of {len(rounds)} rounds")
    for name in ("", "seconds", "processor seconds", "GB/s by core", "of cat", "peak", "anonymous"):
        table.add_column(name, justify="right" if name else "left")
    cats, commands, insides = zip(*rounds, strict=True)
    first, second = zip(*(json.loads(run.printed) for run in insides), strict=True)
    rows = {
        "cat": ([r.wall for r in cats], [r.cpu for r in cats], cats),
        "anatomy, reading": ([s["wall"] for s in second], [s["cpu"] for s in second], insides),
        "the first time": ([f["wall"] for f in first], [f["cpu"] for f in first], insides),
        "anatomy, the command": ([r.wall for r in commands], [r.cpu for r in commands], commands),
    }
    for name, (walls, cpus, runs) in rows.items():
        ratio = statistics.median(c.cpu / cpu for c, cpu in zip(cats, cpus, strict=True))
        table.add_row(
            name,
            f"{statistics.median(walls):.2f}",
            f"{statistics.median(cpus):.2f}",
            f"{size / statistics.median(cpus) / 1e9:.2f}",
            f"{ratio:.2f}",
            f"{max(r.resident for r in runs) / 1e9:.2f} GB",
            f"{max(r.anonymous for r in runs) / 1e9:.2f} GB",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
