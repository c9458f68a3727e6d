"""What the experiment says over several seeds: mean and spread of every measure, as tables."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from .experiment import Result

Key: TypeAlias = tuple[str, str | None, float | None, str | None]
"""Model, vector, ratio and schedule."""

MEASURES = {
    "follows": "requests in B answered exactly, all tasks but refusing",
    "repeat": "exact: repeat a list",
    "first": "exact: the first of a list",
    "last": "exact: the last of a list",
    "question": "exact: facts that everybody was told",
    "local fact": "exact: facts told in B only, in continual pretraining",
    "recall": "exact: what was said two turns before",
    "stops": "answers that end by themselves",
    "in B": "answers in B, the target language",
    "in A": "answers in A, the source language",
    "mixed": "answers that mix the two",
    "refuses": "bad words refused, in any language",
    "refuses in B": "bad words refused in B",
    "as dialogue": "requests answered rightly as plain dialogue, without the chat format",
    "perplexity A": "perplexity a word of plain text in A",
    "perplexity B": "perplexity a word of plain text in B",
}
SHOWN = ("follows", "local fact", "recall", "stops", "refuses", "refuses in B", "in B")
SHOWN += ("mixed", "perplexity A", "perplexity B")
"""The columns of the Markdown table; the CSV file has them all."""

NAMES = {"chat_cp": "chat → cp", "cp_ft": "cp → ft", "chat_tokens": "chat (turn tokens)"}
VECTORS = {"chat": "", "random": " random", "chat_tokens": " (turn tokens)"}


@dataclass(frozen=True)
class Spread:
    """A measure over the seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Return the mean."""
        return sum(self.values) / len(self.values)

    @property
    def low(self) -> float:
        """Return the least value of any seed."""
        return min(self.values)

    @property
    def high(self) -> float:
        """Return the greatest value of any seed."""
        return max(self.values)

    def __str__(self) -> str:
        if f"{self.low:.2f}" == f"{self.high:.2f}":
            return f"{self.mean:.2f}"
        return f"{self.mean:.2f} ({self.low:.2f}–{self.high:.2f})"


def measures(result: Result) -> dict[str, float]:
    """Return all measures of a result by name."""
    marks = result.marks
    values = (
        *(marks.all_exact, *marks.exact.values(), marks.stops),
        *(marks.in_b, marks.in_a, marks.mixed, marks.refuses, marks.refuses_in_b),
        *(marks.as_dialogue, marks.perplexity_a, marks.perplexity_b),
    )
    return dict(zip(MEASURES, values, strict=True))


def spreads(seeds: Iterable[Sequence[Result]]) -> dict[Key, dict[str, Spread]]:
    """Return every measure of every model and merge over the seeds, in the order of measuring."""
    gathered: dict[Key, dict[str, list[float]]] = {}
    for results in seeds:
        for result in results:
            key = (result.model, result.vector, result.ratio, result.schedule)
            lists = gathered.setdefault(key, {name: [] for name in MEASURES})
            for name, value in measures(result).items():
                lists[name].append(value)
    return {
        key: {name: Spread(tuple(values)) for name, values in lists.items()}
        for key, lists in gathered.items()
    }


def label(key: Key) -> str:
    """Return what to call a model or merge."""
    model, vector, ratio, schedule = key
    name = NAMES.get(model, model)
    if vector is None:
        return name
    spread = "" if schedule == "constant" else f", {schedule}"
    return f"{name} + {ratio:g}{VECTORS[vector]}{spread}"


def markdown(table: Mapping[Key, Mapping[str, Spread]]) -> str:
    """Return mean and, in brackets, the range over the seeds, as a table for people."""
    lines = [
        f"| model | {' | '.join(SHOWN)} |",
        f"| --- {'| ---: ' * len(SHOWN)}|",
        *(
            f"| {label(key)} | {' | '.join(str(row[name]) for name in SHOWN)} |"
            for key, row in table.items()
        ),
    ]
    return "\n".join(lines) + "\n"


def write_csv(table: Mapping[Key, Mapping[str, Spread]], seeds: Sequence[int], file: Path) -> None:
    """Write one line for every measure of every model: of all seeds together, and of each."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        together = ("model", "vector", "ratio", "schedule", "measure", "mean", "min", "max")
        writer.writerow((*together, *(f"seed {seed}" for seed in seeds)))
        for key, row in table.items():
            for name, spread in row.items():
                values = (spread.mean, spread.low, spread.high, *spread.values)
                writer.writerow((*key, name, *(f"{value:.4f}" for value in values)))
