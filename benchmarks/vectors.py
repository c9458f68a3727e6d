"""A chat vector as a file: what extracting takes, how large it is, and what a merge from it saves.

Every contestant is a process of its own, and they take turns. Beside each extraction stands the
floor: a process that reads both models and writes as many bytes as the vector has. The size is
that of the whole folder, as a share of the chat model's. `python benchmarks/vectors.py FOLDER`
makes the models of `checkpoints.py` (TinyLlama's shape; 7 GB) unless they are there.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import checkpoints
import click
import yaml
from rich.console import Console
from rich.table import Table

BIN = Path(sys.executable).parent
FLOOR = """
import sys
from pathlib import Path
models, out, size = sys.argv[1:3], sys.argv[3], int(sys.argv[4])
for model in models:
    for file in sorted(Path(model).glob("*.safetensors")):
        with file.open("rb", buffering=0) as stream:
            while stream.read(1 << 22):
                pass
block = bytes(1 << 22)
with open(out, "wb", buffering=0) as stream:
    for _ in range(size >> 22):
        stream.write(block)
"""


def size_of(folder: Path) -> int:
    """Return how many bytes a folder's files have."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def timed(command: list[str]) -> tuple[float, float, float]:
    """Run a process; return seconds on the wall and of processors, and its peak memory in GB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise click.ClickException((process.stderr.read() if process.stderr else b"").decode())
    wall = time.perf_counter() - start
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--rounds", default=3, show_default=True)
@click.option("--shape", type=click.Choice(list(checkpoints.SHAPES)), default="1.1b")
def main(folder: Path, rounds: int, shape: str) -> None:
    """Measure on models in FOLDER."""
    recipe = checkpoints.make(folder, shape)
    base, chat, cp = (folder / name for name in ("base", "chat", "cp"))
    results: dict[str, list[tuple[float, float, float]]] = {}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        out = Path(scratch)
        for _ in range(rounds):
            for bits in (32, 16, 8, 4, 2):
                vector = out / f"vector-{bits}"
                shutil.rmtree(vector, ignore_errors=True)
                command = [str(BIN / "chatvec"), "vector", "extract", str(vector)]
                command += ["--base", str(base), "--chat", str(chat), "--bits", str(bits)]
                name = f"extract, {bits} bits"
                results.setdefault(name, []).append(timed(command))
                sizes[name] = size_of(vector)
                floor = [sys.executable, "-c", FLOOR, str(base), str(chat), str(out / "floor")]
                floor += [str(sizes[name])]
                results.setdefault(f"its floor, {bits} bits", []).append(timed(floor))
            plain = yaml.safe_load(recipe.read_text(encoding="utf-8"))
            for bits in (None, 16, 4):
                text = plain if bits is None else _by_vector(plain, out / f"vector-{bits}")
                file = out / "recipe.yaml"
                file.write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
                shutil.rmtree(out / "merged", ignore_errors=True)
                command = [str(BIN / "chatvec"), "merge", str(file), str(out / "merged"), "--quiet"]
                name = f"merge from {'base and chat' if bits is None else f'{bits} bits'}"
                results.setdefault(name, []).append(timed(command))
                sizes[name] = size_of(cp) + (
                    size_of(base) + size_of(chat)
                    if bits is None
                    else sizes[f"extract, {bits} bits"]
                )
    table = Table(title=f"{shape}, medians of {rounds}")
    for column in ("", "wall s", "processor s", "peak GB", "GB", "of chat"):
        table.add_column(column, justify="right" if column else "left")
    for name, runs in results.items():
        wall, processor, peak = (statistics.median(each) for each in zip(*runs, strict=True))
        size = sizes.get(name)
        share = f"{size / size_of(chat):.3f}" if size is not None else ""
        cells = [f"{wall:.1f}", f"{processor:.1f}", f"{peak:.2f}"]
        table.add_row(name, *cells, f"{size / 1e9:.2f}" if size is not None else "", share)
    Console().print(table)
    print(json.dumps({"runs": results, "sizes": sizes}))


def _by_vector(recipe: dict[str, object], vector: Path) -> dict[str, object]:
    models = recipe["models"]
    assert isinstance(models, list)
    cp = next(entry for entry in models if entry["parameters"]["role"] == "cp")
    own = {"model": str(vector), "parameters": {"role": "vector", "ratio": 1.0}}
    return {**recipe, "models": [own, cp]}


if __name__ == "__main__":
    main()
