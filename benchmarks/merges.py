"""Whole merges, side by side: ours against mergekit's methods and the script that people paste.

Every contestant is a process of its own and makes the same sum of the same three models; they take
turns, so that what else the machine does falls on all of them alike. Files are in the page cache
when a run begins, unless `--cold` asks for them to be dropped from it; then a merge whose ratio is
0 in every second layer runs as well, which need not read base and chat there. Measured are wall,
user and system time, the peak of anonymous memory (sampled; mapped checkpoint pages come and go
with the page cache and count apart), the bytes that the disk read and the process wrote, and how
many elements of the result differ from the correctly rounded float64 sum.

`--shape 70b` makes files of holes, which take no room and are all zeros: what its merges show is
memory, and not exactness. Its output has no holes, and takes 140 GB; `--layers 8` makes models of
8 layers, and an output of 16 GB, with tensors as large.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import checkpoints
import click
import torch
import yaml
from rich.console import Console
from rich.table import Table
from safetensors import safe_open
from torch import Tensor

BIN = Path(sys.executable).parent
HALF = "chatvec merge, ratio 0 in half of the layers"
SAMPLE_SECONDS = 0.01
ROWS_COMPARED = 16
"""One row in so many is compared with the float64 sum."""

SCRIPT = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
base, chat, cp, out, ratio = *sys.argv[1:5], float(sys.argv[5])
load = lambda name: AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16)
base_weights, chat_weights, model = load(base).state_dict(), load(chat).state_dict(), load(cp)
for name, weight in model.state_dict().items():
    weight.data += ratio * (chat_weights[name] - base_weights[name])
model.save_pretrained(out)
AutoTokenizer.from_pretrained(cp).save_pretrained(out)
"""
FLOOR = """
import shutil, sys
from pathlib import Path
*inputs, last, out = map(Path, sys.argv[1:])
buffer = bytearray(1 << 20)
for folder in inputs:
    for file in folder.glob("*.safetensors"):
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer): pass
shutil.copytree(last, out)
"""


@dataclass(frozen=True)
class Run:
    """What one process took."""

    wall: float
    user: float
    system: float
    anonymous: int
    """The peak of RssAnon, in bytes."""
    resident: int
    """The peak of all resident pages, mapped files among them, in bytes."""
    read: int
    """Bytes that came from the disk, whether through read calls or mapped."""
    written: int
    """Bytes through write calls."""


@dataclass(frozen=True)
class Result:
    """The median run of a contestant."""

    name: str
    runs: list[Run]
    misrounded: float | None

    @property
    def median(self) -> Run:
        """Return each figure's median."""
        columns = zip(*(asdict(run).values() for run in self.runs), strict=True)
        return Run(*(statistics.median(column) for column in columns))


def contestants(folder: Path, ratio: float) -> dict[str, Callable[[Path], list[str]]]:
    """Return, by name, the command of each contestant for an output folder."""
    base, chat, cp = (str(folder / role) for role in ("base", "chat", "cp"))

    def chat_vector(ratio: float | list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "merge_method": "chat_vector",
            "base_model": cp,
            "models": [
                {"model": base, "parameters": {"role": "base"}},
                {"model": chat, "parameters": {"role": "chat", "ratio": ratio}},
                {"model": cp, "parameters": {"role": "cp"}},
            ],
            "out_dtype": "bfloat16",
        }

    layers = json.loads((folder / "cp" / "config.json").read_text())["num_hidden_layers"]
    every_second = [{"filter": f"layers.{i}.", "value": 0.0} for i in range(0, layers, 2)]
    recipes = {
        "chat_vector": chat_vector(ratio),
        "half": chat_vector([*every_second, {"value": ratio}]),
        "task_arithmetic": {
            "merge_method": "task_arithmetic",
            "base_model": base,
            "models": [
                {"model": cp, "parameters": {"weight": 1.0}},
                {"model": chat, "parameters": {"weight": ratio}},
            ],
            "out_dtype": "bfloat16",
        },
        "linear": {
            "merge_method": "linear",
            "base_model": cp,
            "models": [
                {"model": cp, "parameters": {"weight": 1.0}},
                {"model": chat, "parameters": {"weight": ratio}},
                {"model": base, "parameters": {"weight": -ratio}},
            ],
            "parameters": {"normalize": False},
            "out_dtype": "bfloat16",
        },
    }
    files = {}
    for name, recipe in recipes.items():
        files[name] = folder / f"{name}.yaml"
        files[name].write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")

    def stock(name: str) -> Callable[[Path], list[str]]:
        return lambda out: [str(BIN / "mergekit-yaml"), str(files[name]), str(out), "--quiet"]

    def ours(name: str, out: Path) -> list[str]:
        return [str(BIN / "chatvec"), "merge", str(files[name]), str(out), "--quiet"]

    return {
        "mergekit-yaml, task_arithmetic": stock("task_arithmetic"),
        "mergekit-yaml, linear": stock("linear"),
        "the script people paste": lambda out: [
            *(sys.executable, "-c", SCRIPT, base, chat, cp, str(out), str(ratio))
        ],
        "mergekit-yaml, chat_vector": stock("chat_vector"),
        "chatvec merge": lambda out: ours("chat_vector", out),
        **(
            {"chatvec merge --cuda": lambda out: [*ours("chat_vector", out), "--cuda"]}
            if torch.cuda.is_available()
            else {}
        ),
        HALF: lambda out: ours("half", out),
        "importing mergekit": lambda _: [sys.executable, "-c", "import mergekit.merge"],
        "the floor (read three, write one)": lambda out: [
            *(sys.executable, "-c", FLOOR, base, chat, cp, str(out))
        ],
    }


def measure(command: list[str], limit: int | None) -> Run:
    """Run a command to its end and return what it took.

    Raises:
        click.ClickException: It failed.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "CHATVEC_DEBUG": "1"},  # the command in the process that is measured
        preexec_fn=partial(_enter, _control_group(limit)) if limit else None,
    )
    peaks = {"RssAnon": 0, "VmHWM": 0, "read_bytes": 0, "wchar": 0}
    sampler = threading.Thread(target=_sample, args=(process, peaks))
    sampler.start()
    _, errors = process.communicate()
    wall = time.perf_counter() - start
    sampler.join()
    if process.returncode:
        raise click.ClickException(f"{' '.join(command[:3])} failed:\n{errors.decode()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Run(
        wall=wall,
        user=after.ru_utime - before.ru_utime,
        system=after.ru_stime - before.ru_stime,
        anonymous=peaks["RssAnon"],
        resident=peaks["VmHWM"],
        read=peaks["read_bytes"],
        written=peaks["wchar"],
    )


def _control_group(limit: int) -> Path:
    """Make a control group whose processes get so many bytes of memory, page cache included.

    Returns:
        The file into which the number of a process is written to put it there.

    Raises:
        click.ClickException: The system does not let us.
    """
    root = Path("/sys/fs/cgroup")
    unified = (root / "cgroup.controllers").exists()
    group = (root if unified else root / "memory") / "chatvec-benchmark"
    try:
        group.mkdir(exist_ok=True)
        file = group / ("memory.max" if unified else "memory.limit_in_bytes")
        file.write_text(str(limit))
    except OSError as error:
        raise click.ClickException(
            f"a limit on memory takes a control group, and none can be made here ({error})."
        ) from None
    return group / "cgroup.procs"


def _enter(control_group: Path) -> None:
    control_group.write_text(str(os.getpid()))


def _sample(process: subprocess.Popen[bytes], peaks: dict[str, int]) -> None:
    """Note the highest figures that the system shows of a process, until it ends."""
    while process.poll() is None:
        for file, unit in (("status", 1024), ("io", 1)):
            try:
                lines = Path(f"/proc/{process.pid}/{file}").read_text().splitlines()
            except OSError:
                continue
            for name, _, value in (line.partition(":") for line in lines):
                if name in peaks:
                    peaks[name] = max(peaks[name], int(value.split()[0]) * unit)
        time.sleep(SAMPLE_SECONDS)


def misrounded(folder: Path, out: Path, ratio: float) -> float:
    """Return the share of compared elements that are not the correctly rounded float64 sum."""
    wrong = compared = 0
    models = {name: dict(_tensors(folder / name)) for name in ("base", "chat", "cp")}
    for name, result in _tensors(out):
        rows = slice(None, None, ROWS_COMPARED)
        base, chat, cp = (models[m][name][rows].double() for m in ("base", "chat", "cp"))
        expected = (cp + ratio * (chat - base)).to(result.dtype)
        wrong += int((result[rows] != expected).sum())
        compared += expected.numel()
    return wrong / compared


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as shard:
            for name in shard.keys():  # noqa: SIM118
                yield name, shard.get_tensor(name)


def drop_from_cache(folder: Path) -> None:
    """Let the system forget the files that it has in memory."""
    for file in folder.rglob("*.safetensors"):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def warm(folder: Path) -> None:
    """Read all files once."""
    for file in folder.rglob("*.safetensors"):
        with file.open("rb", buffering=0) as stream:
            while stream.read(1 << 22):
                pass


def table_rows(results: list[Result]) -> list[list[str]]:
    """Return the table's cells, times as seconds and as ratios to task_arithmetic's."""
    reference = results[0].median.wall
    rows = []
    for result in results:
        run = result.median
        rows.append(
            [
                result.name,
                f"{run.wall:.1f}",
                f"{run.wall / reference:.2f}",
                f"{run.user:.1f}",
                f"{run.system:.1f}",
                f"{run.anonymous / 1e9:.2f}",
                f"{run.resident / 1e9:.2f}",
                f"{run.read / 1e9:.1f}",
                f"{run.written / 1e9:.1f}",
                "" if result.misrounded is None else f"{result.misrounded:.4%}",
            ]
        )
    return rows


HEADER = (
    "contestant",
    "wall s",
    "ratio",
    "user s",
    "system s",
    "anonymous GB",
    "resident GB",
    "read GB",
    "written GB",
    "misrounded",
)


def picture(results: list[Result], file: Path, title: str) -> None:
    """Draw wall times, the part that importing takes among them."""
    from matplotlib.figure import Figure

    merges = [result for result in results if result.misrounded is not None]
    figure = Figure(figsize=(8, 0.5 * len(merges) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    names = [result.name for result in merges][::-1]
    walls = [result.median.wall for result in merges][::-1]
    colours = ["#0072B2" if "chat" in name else "#999999" for name in names]
    bars = axes.barh(names, walls, color=colours)
    axes.bar_label(bars, fmt="%.1f s", padding=3)
    importing = next(r for r in results if r.name.startswith("importing")).median.wall
    axes.axvline(importing, color="#D55E00", linestyle="--", linewidth=1)
    axes.set_ylim(-0.6, len(merges) - 0.1)
    above = len(merges) - 0.35
    axes.text(importing, above, " importing mergekit", color="#D55E00", va="center", fontsize=8)
    axes.set_xlabel("wall time, seconds (median)")
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    figure.savefig(file, dpi=150)


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--shape", type=click.Choice(sorted(checkpoints.SHAPES)), default="1.1b")
@click.option("--layers", type=int, help="As many layers as this in place of the shape's own.")
@click.option("--rounds", default=5, show_default=True, help="Runs of each contestant.")
@click.option("--ratio", default=1.0, show_default=True)
@click.option("--only", multiple=True, help="A part of a contestant's name; may be repeated.")
@click.option("--cold", is_flag=True, help="Drop the models from the page cache before each run.")
@click.option("--limit-gb", type=float, help="A hard limit on memory, page cache included (root).")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all runs here.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the table here.")
@click.option("--png", type=click.Path(path_type=Path), help="Draw the wall times here.")
def main(
    folder: Path,
    shape: str,
    layers: int | None,
    rounds: int,
    ratio: float,
    only: tuple[str, ...],
    cold: bool,
    limit_gb: float | None,
    json_file: Path | None,
    markdown: Path | None,
    png: Path | None,
) -> None:
    """Measure whole merges of models that are made in FOLDER, if they are not there yet."""
    checkpoints.make(folder, shape, layers)
    commands = {
        name: command
        for name, command in contestants(folder, ratio).items()
        if (any(part in name for part in only) if only else True) and (cold or name != HALF)
    }
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    shares: dict[str, float | None] = dict.fromkeys(commands)
    limit = int(limit_gb * 1e9) if limit_gb else None
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        for number in range(rounds):
            for name, command in commands.items():
                out = Path(scratch) / "out"
                (drop_from_cache if cold else warm)(folder)
                runs[name].append(measure(command(out), limit))
                click.echo(f"{number + 1}/{rounds} {name}: {runs[name][-1].wall:.1f} s", err=True)
                if number == 0 and out.exists() and name != HALF and "floor" not in name:
                    shares[name] = misrounded(folder, out, ratio)
                shutil.rmtree(out, ignore_errors=True)
    results = [Result(name, runs[name], shares[name]) for name in commands]
    _report(results, shape, ratio, rounds, json_file, markdown, png)


def _report(
    results: list[Result],
    shape: str,
    ratio: float,
    rounds: int,
    json_file: Path | None,
    markdown: Path | None,
    png: Path | None,
) -> None:
    about = _about(shape, ratio, rounds)
    rows = table_rows(results)
    table = Table(*HEADER, title=", ".join(f"{k} {v}" for k, v in about.items()))
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    if markdown:
        lines = [
            "| " + " | ".join(cells) + " |" for cells in (HEADER, ["---"] * len(HEADER), *rows)
        ]
        markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if json_file:
        data: dict[str, Any] = {"about": about, "results": [asdict(result) for result in results]}
        json_file.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    if png:
        picture(results, png, f"Merging three models of {shape.upper()} parameters in bfloat16")


def _about(shape: str, ratio: float, rounds: int) -> dict[str, Any]:
    versions = {n: importlib.metadata.version(n) for n in ("mergekit", "torch", "transformers")}
    return {
        "shape": shape,
        "ratio": ratio,
        "rounds": rounds,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **versions,
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


if __name__ == "__main__":
    main()
