"""`python -m tests.fuzz`: all trials, or one of them again."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections import Counter
from pathlib import Path

import click

from tests.fuzz.processes import run
from tests.fuzz.trials import MOST_BYTES, MOST_SECONDS, TRIALS, Outcome, trial

ROOT = Path(__file__).resolve().parents[2]
"""Where the recipes' models are to be found."""


TOLD_AFTER = 500
"""Trials."""


@click.command()
@click.option("--recipes", default=20_000, show_default=True, help="How many recipes.")
@click.option("--folders", default=1_000, show_default=True, help="How many families of models.")
@click.option("--vector-recipes", default=5_000, show_default=True, help="Those with vectors.")
@click.option("--vector-folders", default=500, show_default=True, help="Vectors and adapters.")
@click.option("--outputs", default=500, show_default=True, help="Changed after their merge.")
@click.option("--seed", default=0, show_default=True, help="Another one makes others.")
@click.option("--jobs", default=multiprocessing.cpu_count(), show_default=True)
@click.option("--only", metavar="'KIND N'", help="One trial, as in --only 'recipe 123'.")
def main(seed: int, jobs: int, only: str | None, **numbers: int) -> None:
    """Try changed recipes and model folders; tell what stops, hangs, or takes too much."""
    os.chdir(ROOT)
    if only is not None:
        kind, number = only.split()
        outcome = trial(kind, int(number), seed)
        print(f"{outcome.ended}, {outcome.seconds:.1f} s {outcome.problem}")
        return
    kinds = {kind.replace("_", "-").removesuffix("s"): count for kind, count in numbers.items()}
    trials = [(kind, i) for kind in TRIALS for i in range(kinds[kind])]
    ended: Counter[str] = Counter()
    problems, begun = 0, time.monotonic()
    slowest = largest = Outcome("", "", 0.0, 0)
    for count, outcome in enumerate(run(trials, seed, jobs), 1):
        ended[f"{outcome.name.split()[0]} {outcome.ended}"] += 1
        slowest = max(slowest, outcome, key=lambda each: each.seconds)
        largest = max(largest, outcome, key=lambda each: each.bytes)
        if outcome.problem:
            problems += 1
            print(f"--- {outcome.name}: {outcome.problem.strip()}", flush=True)
        if count % TOLD_AFTER == 0:
            minutes = (time.monotonic() - begun) / 60
            print(f"{count} of {len(trials)} in {minutes:.1f} minutes", flush=True)
    for what, count in sorted(ended.items()):
        print(f"{count:6} {what}")
    print(
        f"{problems} of {len(trials)} are wrong "
        f"({', '.join(f'{count} {kind}s' for kind, count in kinds.items())}); the "
        f"slowest took {slowest.seconds:.1f} s of {MOST_SECONDS:g} ({slowest.name}), the largest "
        f"{largest.bytes / 1e9:.2f} GB of {MOST_BYTES / 1e9:g} ({largest.name})"
    )
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
