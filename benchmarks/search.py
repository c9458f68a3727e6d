"""What a trial of a search costs, in memory, against the same merge on disk.

A trial is the recipe of its ratios, a live merge set to them, the questions, and the line in the
journal. The other way is to merge to disk, load that and ask it the same; both are in one process,
where nothing has to be imported. The seconds are the processor's, as other work may be waiting.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from rich.console import Console
from rich.table import Table

from chatvec_method import LiveMerge, live, load, merge, search, survey
from chatvec_method.evaluation.evaluating import Wanted
from chatvec_method.searching.asked_by_recipe import own_search
from chatvec_method.searching.search import Asked, Search
from chatvec_method.searching.storage import JOURNAL

RATIOS = (0.3, 0.55, 0.7, 0.85, 1.05)


@click.command()
@click.argument("recipe", default="recipes/world.yaml")
@click.option("--trials", default=16, show_default=True, help="Of the search that is measured.")
def main(recipe: str, trials: int) -> None:
    """Compare a trial in memory with a merge on disk, for a RECIPE that says what to ask.

    Example: python benchmarks/search.py recipes/world.yaml
    """
    torch.set_num_threads(1)
    surveyed = survey(recipe)
    own = own_search(surveyed.recipe, from_hub=False)
    prepared = Search(
        surveyed,
        Wanted(own.languages, own.tasks),
        Asked(trials, own.objectives),
        open_live=lambda each: live(each, device="cpu"),
        device="cpu",
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        half = prepared.halves.search
        prepared.measure(prepared.space.uniform(0.5), half)  # all is loaded
        asking, setting = [], []
        merged = live(surveyed, device="cpu")
        for ratio in RATIOS:
            values = prepared.space.uniform(ratio) | {"attention early": 0.0}
            setting.append(_seconds(_set, merged, prepared, values))
            asking.append(_seconds(prepared.measure, values, half))
        merging = []
        for ratio in RATIOS:
            shutil.rmtree(out, ignore_errors=True)
            merging.append(_seconds(_merge_and_load, prepared, ratio, out))
        on_disk = sum(file.stat().st_size for file in out.iterdir())
        search(recipe, Path(folder) / "found", trials=trials, device="cpu")
        journal = (Path(folder) / "found" / JOURNAL).stat().st_size
    table = Table(box=None)
    for column in ("", "seconds", "bytes written"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("new ratios in memory", f"{statistics.median(setting):.2f}", "0")
    table.add_row("merge to disk, and load", f"{statistics.median(merging):.2f}", f"{on_disk:,}")
    table.add_row(
        f"a trial: ratios, {len(half)} prompts, journal",
        f"{statistics.median(asking):.2f}",
        f"{journal // trials:,}",
    )
    Console().print(table)


def _merge_and_load(prepared: Search, ratio: float, out: Path) -> None:
    merge(prepared.recipe(prepared.space.uniform(ratio)), out, quiet=True)
    load(out, device="cpu")


def _set(merged: LiveMerge, prepared: Search, values: dict[str, float]) -> None:
    merged.set(prepared.recipe(values))


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    begun = time.process_time()
    work(*arguments)
    return time.process_time() - begun


if __name__ == "__main__":
    main()
