"""Does a schedule over parts and depth pay: hypervolume against trials, for several ways to search.

Every trial is asked both halves of the exam. The Pareto set is chosen on the searching half; its
hypervolume is taken on the other one, which no search has seen. Quality and closeness go there from
0 to 1: closeness from that of the merge at ratio 1.25 to that of cp.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean

import matplotlib

matplotlib.use("Agg")
import numpy as np
import optuna
from cmaes import CMA
from matplotlib import pyplot as plt

from chatvec_method import live, survey
from chatvec_method.evaluation.evaluating import Wanted
from chatvec_method.searching import sampling, starts
from chatvec_method.searching.outcome import score
from chatvec_method.searching.search import Asked, Search
from chatvec_method.searching.space import Space

from .evaluate import TASKS
from .experiment import recipe
from .figures import BLUE, GRAY, GREEN, ORANGE, PINK, STYLE
from .settings import World

OBJECTIVES = (
    "quality=world_following exact+world_refuse refuses",
    "closeness=world_following in_b+world_text_in_b word_perplexity",
)
SPACE, LAYERS = "parts+depth", "layers"
LONGEST_TEXT = 40
"""Documents of plain text, and prompts of a task; there are 40 at most of the latter."""
SIGMA = 0.25
"""CMA-ES's first step, from 0.5 in all layers."""
WAYS = {
    "one ratio for all": (GRAY, "-"),
    "at random": (PINK, ":"),
    "starts, then at random": (PINK, "--"),
    "starts, then TPE": (BLUE, "-"),
    "starts, then GP": (GREEN, "-."),
    "a number a layer, TPE": (ORANGE, "--"),
    "a number a layer, CMA-ES": (ORANGE, "-"),
}
"""Ways to search, with their colour and dashes in the picture."""

Values = tuple[float, float]
"""Quality and closeness."""


@dataclass(frozen=True)
class Trial:
    """A trial of one way to search."""

    way: str
    number: int
    numbers: Mapping[str, float]
    search: Values
    report: Values


class Exam:
    """The merges of one world, asked both halves of its exam; no ratios are asked twice."""

    def __init__(self, folder: Path, cp: str, world: World, device: str) -> None:
        merged = survey(recipe(folder / "base", folder / "chat", folder / cp, 1.0), quiet=True)
        wanted = Wanted(tasks=[str(TASKS)], limit=LONGEST_TEXT, metadata={"order": world.order})
        self.spaces = {
            name: Search(
                merged,
                wanted,
                Asked(0, OBJECTIVES, name, seed=world.seed),
                open_live=lambda each: live(each, device=device),
                device=device,
            )
            for name in (SPACE, LAYERS)
        }
        self._asked: dict[str, tuple[Values, Values]] = {}
        self.agreements = cache(lambda: starts.agreements_of(merged))

    def ask(self, space: str, numbers: Mapping[str, float]) -> tuple[Values, Values]:
        """Return quality and closeness, on the searching and on the reporting half."""
        search = self.spaces[space]
        made = search.recipe(numbers)
        if made.text not in self._asked:
            halves = (search.halves.search, search.halves.report)
            marks = search.measure_recipe(made, [*halves[0], *halves[1]])
            of_halves = []
            for half in halves:
                ids = {place.id for place in half}
                own = {
                    name: {each: mark for each, mark in of_figure.items() if each in ids}
                    for name, of_figure in marks.items()
                }
                quality, closeness = search.sought.values(own)
                of_halves.append((quality, closeness))
            self._asked[made.text] = (of_halves[0], of_halves[1])
        return self._asked[made.text]


def measure(
    folder: Path, cp: str, world: World, count: int, device: str, say: Callable[[str], None]
) -> list[Trial]:
    """Search one world in every way, with so many trials each.

    Args:
        folder: With the models base and chat.
        cp: The folder of cp there.
        world: Theirs.
        count: Trials of each way.
        device: Where to ask, in torch's words.
        say: Is told of the progress.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    exam = Exam(folder, cp, world, device)
    ends = [exam.ask(SPACE, exam.spaces[SPACE].space.uniform(ratio))[0][1] for ratio in (1.25, 0)]
    every = []
    for way in WAYS:
        own = list(_trials(exam, way, count, world.seed, (ends[0], ends[1])))
        best = max(own, key=lambda trial: sum(trial.search))
        say(f"{way}: {len(own)} trials; best quality {best.search[0]:.3f} at {best.search[1]:.3f}")
        every += own
    return every


def _trials(exam: Exam, way: str, count: int, seed: int, ends: Values) -> Iterator[Trial]:
    space = LAYERS if way.startswith("a number a layer") else SPACE
    proposed = _proposals(exam, way, count, seed, ends)
    try:
        numbers = next(proposed)
        for number in range(count):
            search, report = exam.ask(space, numbers)
            yield Trial(way, number, numbers, search, report)
            numbers = proposed.send(search)
    except StopIteration:
        return


def _proposals(exam: Exam, way: str, count: int, seed: int, ends: Values) -> Iterator:
    """Yield numbers to try, and receive what became of each."""
    if way == "one ratio for all":
        for ratio in _ever_finer(count):
            yield exam.spaces[SPACE].space.uniform(ratio)
        return
    if way.endswith("CMA-ES"):
        yield from _by_cmaes(exam, seed, ends)
    begun: list = []
    if way.startswith("starts"):
        begun = yield from _starts(exam)
    make = {"TPE": sampling.tpe, "GP": sampling.gp}.get(way.rpartition(" ")[2], sampling.at_random)
    space = LAYERS if way.startswith("a number a layer") else SPACE
    yield from _by_optuna(exam.spaces[space].space, make(len(begun)), seed, begun)


def _starts(exam: Exam) -> Iterator:
    """Yield the points where `chatvec search` begins; return all with what became of them."""
    search = exam.spaces[SPACE]
    tried = []
    coarse = starts.coarse_starts(search.space)
    for start in coarse:
        values = yield start.values
        tried.append((start.values, values))
    ranges = [(min(column), max(column)) for column in zip(*(v for _, v in tried), strict=True)]
    scores = [score(search.sought.objectives, ranges, values) for _, values in tried]
    best = coarse[scores.index(max(scores))].uniform
    beside = starts.uniform_beside(search.space, best, starts.FINE)
    for start in (*beside, *starts.other_starts(search.space, best, exam.agreements)):
        values = yield start.values
        tried.append((start.values, values))
    return tried


def _by_optuna(space: Space, make: sampling.Make, seed: int, begun: Sequence) -> Iterator:
    """Yield what a sampler of optuna's proposes after some trials."""
    ranges = space.ranges
    study = optuna.create_study(
        directions=["maximize", "maximize"], sampler=sampling.SeededByTrial(make, seed)
    )
    for numbers, values in begun:
        study.add_trial(
            optuna.create_trial(params=dict(numbers), distributions=ranges, values=values)
        )
    while True:
        trial = study.ask(ranges)
        values = yield trial.params
        study.tell(trial, values)


def _by_cmaes(exam: Exam, seed: int, ends: Values) -> Iterator:
    """Yield what CMA-ES proposes, for the mean of quality and closeness, both from 0 to 1."""
    space = exam.spaces[LAYERS].space
    count = len(space.numbers)
    bounds = np.array([[space.low, space.high]] * count)
    evolution = CMA(mean=np.full(count, 0.5), sigma=SIGMA, bounds=bounds, seed=seed)
    while True:
        generation = []
        for _ in range(evolution.population_size):
            point = evolution.ask()
            numbers = zip(space.numbers, point.round(4).tolist(), strict=True)
            quality, closeness = yield dict(numbers)
            generation.append((point, -(quality + _scaled(closeness, ends)) / 2))
        evolution.tell(generation)


def _ever_finer(count: int) -> Iterator[float]:
    """Yield ratios from 0 to 1.25, at first far from each other, then between those before."""
    parts, done = 5, set()
    while True:
        for i in range(parts + 1):
            ratio = round(1.25 * i / parts, 6)
            if ratio not in done:
                done.add(ratio)
                yield ratio
                if len(done) == count:
                    return
        parts *= 2


def _scaled(closeness: float, ends: Values) -> float:
    return (closeness - ends[0]) / (ends[1] - ends[0])


# ---------------------------------------------------------------------------------- the hypervolume


def hypervolumes(trials: Sequence[Trial]) -> dict[str, list[float]]:
    """Return by way the hypervolume on the reporting half, after each trial.

    Args:
        trials: Of one world, in all ways.
    """
    grid = {t.numbers["embeddings"]: t for t in trials if t.way == "one ratio for all"}
    ends = (grid[1.25].report[1], grid[0.0].report[1])
    return {
        way: [
            _hypervolume(own[: count + 1], ends)
            for own in [[t for t in trials if t.way == way]]
            for count in range(len(own))
        ]
        for way in WAYS
    }


def _hypervolume(trials: Sequence[Trial], ends: Values) -> float:
    """Return the area that the Pareto set of the searching half covers on the reporting half."""
    front = [
        t
        for t in trials
        if not any(
            all(o >= v for o, v in zip(other.search, t.search, strict=True))
            and other.search != t.search
            for other in trials
        )
    ]
    points = sorted(((t.report[0], _scaled(t.report[1], ends)) for t in front), reverse=True)
    area = height = 0.0
    for place, (_, closeness) in enumerate(points):
        height = max(height, closeness, 0.0)
        next_ = points[place + 1][0] if place + 1 < len(points) else 0.0
        area += (points[place][0] - next_) * height
    return area


def save(trials: Sequence[Trial], file: Path) -> None:
    """Write trials as JSON."""
    rows = [
        {
            "way": t.way,
            "number": t.number,
            "numbers": dict(t.numbers),
            "search": t.search,
            "report": t.report,
        }
        for t in trials
    ]
    file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def load(file: Path, count: int) -> list[Trial]:
    """Read the first trials of each way that `save` wrote."""
    rows = json.loads(file.read_text(encoding="utf-8"))
    return [
        Trial(r["way"], r["number"], r["numbers"], tuple(r["search"]), tuple(r["report"]))
        for r in rows
        if r["number"] < count
    ]


def write_csv(curves: Mapping[int, Mapping[str, Sequence[float]]], file: Path) -> None:
    """Write every seed's hypervolume after each trial, a line each."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["seed", "way", "trials", "hypervolume"])
        for seed, by_way in curves.items():
            for way, values in by_way.items():
                writer.writerows(
                    [seed, way, count, f"{value:.4f}"] for count, value in enumerate(values, 1)
                )


def markdown(curves: Mapping[int, Mapping[str, Sequence[float]]], every: Sequence[int]) -> str:
    """Return the hypervolume after some numbers of trials: the mean of seeds, and their range."""
    lines = [
        f"| | {' | '.join(f'after {count}' for count in every)} | better than one ratio in |",
        f"| --- | {'---: | ' * len(every)}---: |",
    ]
    seeds = list(curves)
    for way in WAYS:
        cells = []
        for count in every:
            at = [curves[seed][way][count - 1] for seed in seeds]
            cells.append(f"{mean(at):.3f} ({min(at):.3f}–{max(at):.3f})")
        last = [curves[seed][way][-1] > curves[seed]["one ratio for all"][-1] for seed in seeds]
        versus = "" if way == "one ratio for all" else f"{sum(last)} of {len(seeds)} seeds"
        lines.append(f"| {way} | {' | '.join(cells)} | {versus} |")
    return "\n".join(lines) + "\n"


def draw(curves: Mapping[int, Mapping[str, Sequence[float]]], file: Path) -> None:
    """Draw the hypervolume over the trials: a line for the mean of seeds, thin ones for each."""
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(9, 5), layout="constrained")
        for way, (colour, dashes) in WAYS.items():
            of_seeds = [by_way[way] for by_way in curves.values()]
            means = [mean(values) for values in zip(*of_seeds, strict=True)]
            count = range(1, len(means) + 1)
            axis.plot(count, means, color=colour, linestyle=dashes, lw=2.2, label=way)
            for values in of_seeds:
                axis.plot(count, values, color=colour, linestyle=dashes, lw=0.6, alpha=0.35)
        axis.set_xticks(range(0, len(means) + 1, 5))
        axis.set_xlabel("trials")
        axis.set_ylabel("hypervolume on prompts that no search saw")
        axis.legend(loc="lower right")
        axis.set_title(
            f"Mean of {len(curves)} worlds (thin: each of them)", fontsize=11, loc="left"
        )
        figure.savefig(file, dpi=110)
        plt.close(figure)
