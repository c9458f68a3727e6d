"""A chat vector as a file: what extracting takes, how large it is, and what a merge from it saves.

Every contestant is a process of its own, and they take turns; how they are measured is told in
`merges.py`. Beside each extraction stands its floor, which reads both models, writes the bytes of
the vector that was extracted, and waits for the disk, as extracting does; and the time that
importing mergekit takes, of which there is some in every extraction. Sizes are those of whole
folders. `python benchmarks/vectors.py FOLDER` makes the models of `checkpoints.py` (TinyLlama's
shape; 7 GB) unless they are there, and needs as much again.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import checkpoints
import click
import yaml
from merges import BIN, Result, Run, drop_from_cache, measure, warm
from rich.console import Console
from rich.table import Table

BITS = (32, 16, 8, 4, 2)
MERGED_BITS = (16, 4)
RANK = 64
WIDTH = 120
"""Characters of a table."""
FLOOR = """
import os, sys
from pathlib import Path
base, chat, vector, out = map(Path, sys.argv[1:])
buffer = bytearray(1 << 20)
for folder in (base, chat):
    for file in folder.glob("*.safetensors"):
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer): pass
left = sum(file.stat().st_size for file in vector.rglob("*") if file.is_file())
with out.open("wb", buffering=0) as stream:
    while left > 0:
        left -= stream.write(buffer[:left])
    os.fsync(stream.fileno())
"""


def size_of(folder: Path) -> int:
    """Return how many bytes a folder's files have."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--rounds", default=3, show_default=True, help="Runs of each contestant.")
@click.option("--shape", type=click.Choice(sorted(checkpoints.SHAPES)), default="1.1b")
@click.option("--layers", type=int, help="As many layers as this in place of the shape's own.")
@click.option("--cold", is_flag=True, help="Drop the models from the page cache before each run.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all runs here.")
def main(
    folder: Path, rounds: int, shape: str, layers: int | None, cold: bool, json_file: Path | None
) -> None:
    """Measure extractions, and merges from what they wrote, of models in FOLDER."""
    recipe = checkpoints.make(folder, shape, layers)
    runs: dict[str, list[Run]] = {}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        out = Path(scratch)

        def run(name: str, command: list[str]) -> None:
            for model in ("base", "chat", "cp"):
                (drop_from_cache if cold else warm)(folder / model)
            runs.setdefault(name, []).append(measure(command, None))
            click.echo(f"{len(runs[name])}/{rounds} {name}: {runs[name][-1].wall:.1f} s", err=True)

        for _ in range(rounds):
            run("importing mergekit", [sys.executable, "-c", "import mergekit.merge"])
            for bits, rank in (*((bits, None) for bits in BITS), (16, RANK)):
                name = _extraction(bits, rank)
                vector = out / name
                shutil.rmtree(vector, ignore_errors=True)
                run(name, _extract(folder, vector, bits, rank))
                sizes[name] = size_of(vector)
                pair = [str(folder / model) for model in ("base", "chat")]
                floor = [sys.executable, "-c", FLOOR, *pair, str(vector), str(out / "floor")]
                run(f"floor of {name}", floor)
            plain = yaml.safe_load(recipe.read_text(encoding="utf-8"))
            for bits in (None, *MERGED_BITS):
                vector = out / _extraction(bits, None) if bits else None
                text = plain if vector is None else _by_vector(plain, vector)
                file = out / "recipe.yaml"
                file.write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
                shutil.rmtree(out / "merged", ignore_errors=True)
                command = [str(BIN / "chatvec"), "merge", str(file), str(out / "merged"), "--quiet"]
                run(f"merge from {f'{bits} bits' if bits else 'base and chat'}", command)
    results = {name: Result(name, of_name, None) for name, of_name in runs.items()}
    models = {name: size_of(folder / name) for name in ("base", "chat", "cp")}
    title = f"{shape}, medians of {rounds}, models {'on the disk' if cold else 'in the page cache'}"
    _print_times(results, title)
    _print_sizes(sizes, models)
    if json_file:
        told = {name: [asdict(run) for run in of_name] for name, of_name in runs.items()}
        everything = {"runs": told, "vectors": sizes, "models": models}
        json_file.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")


def _extraction(bits: int, rank: int | None) -> str:
    return f"extract, {bits} bits" + (f" and rank {rank}" if rank else "")


def _extract(folder: Path, out: Path, bits: int, rank: int | None) -> list[str]:
    models = ["--base", str(folder / "base"), "--chat", str(folder / "chat")]
    adapter = ["--rank", str(rank)] if rank else []
    command = [str(BIN / "chatvec"), "vector", "extract", str(out)]
    return [*command, *models, "--bits", str(bits), *adapter]


def _by_vector(recipe: dict[str, Any], vector: Path) -> dict[str, Any]:
    cp = next(entry for entry in recipe["models"] if entry["parameters"]["role"] == "cp")
    own = {"model": str(vector), "parameters": {"role": "vector", "ratio": 1.0}}
    return {**recipe, "models": [own, cp]}


def _print_times(results: dict[str, Result], title: str) -> None:
    table = Table(title=title)
    columns = ("", "wall s", "by its floor", "processor s", "anonymous GB", "resident GB")
    for column in (*columns, "read GB"):
        table.add_column(column, justify="right" if column else "left")
    for name, result in results.items():
        own, floor = result.median, results.get(f"floor of {name}")
        table.add_row(
            name,
            f"{own.wall:.1f}",
            f"{own.wall / floor.median.wall:.2f}" if floor else "",
            f"{own.user + own.system:.1f}",
            f"{own.anonymous / 1e9:.2f}",
            f"{own.resident / 1e9:.2f}",
            f"{own.read / 1e9:.1f}",
        )
    Console(width=WIDTH).print(table)


def _print_sizes(vectors: dict[str, int], models: dict[str, int]) -> None:
    """Print how large vectors are, and what has to be downloaded for a merge."""
    table = Table(title="Sizes, and what a merge downloads")
    for column in ("", "GB", "of chat", "downloaded GB", "of three models"):
        table.add_column(column, justify="right" if column else "left")
    three = sum(models.values())
    table.add_row("base, chat and cp", "", "", f"{three / 1e9:.2f}", "1")
    for name, size in vectors.items():
        taken = size + models["cp"]
        of_chat, of_three = size / models["chat"], taken / three
        cells = [f"{size / 1e9:.2f}", f"{of_chat:.3f}", f"{taken / 1e9:.2f}", f"{of_three:.3f}"]
        table.add_row(f"cp and {name.removeprefix('extract, ')}", *cells)
    Console(width=WIDTH).print(table)


if __name__ == "__main__":
    main()
