"""When does a chat vector stop working: tokens of continual pretraining × ratio × schedule.

cp is trained for more and more steps on the same text, and each of these is merged at many ratios,
the same in all layers or sloped over them. Beside what the merges can do stands what is known
without asking them: how far cp has moved, how the two vectors lie to each other, and whether the
perplexity of text has a barrier on the way from cp to the merge.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from chatvec_method import evaluate, examine

from .batches import WIDTH
from .evaluate import TASKS
from .experiment import recipe
from .perplexity import plain_texts
from .settings import World
from .stages import STAGES, Stage, grow, is_finished, run_stage
from .training import Schedule

STEPS = (100, 200, 400, 800, 1600, 3200)
"""Of continual pretraining; 800 in the world's other experiments."""
RATIOS = tuple(step / 4 for step in range(7))  # 0 to 1.5
SCHEDULES = ("linear:1:0", "linear:0:1", "points:0:0.25,0.5:1,1:0.25")
"""Early, late and middle layers, with a mean ratio of 0.5 over the three layers."""
FORETELLS = {
    "moved": "‖cp − base‖ / ‖chat − base‖",
    "cosine": "cosine of the two vectors",
    "conflict": "share of |τ|·|λ| that pulls apart",
    "barrier": "barrier on the way to ratio 1, nats a byte",
}
"""What is known of a merge without asking it anything."""


@dataclass(frozen=True)
class Row:
    """One merge."""

    seed: int
    steps: int
    tokens: int
    ratio: float | None
    schedule: str | None
    moved: float
    cosine: float
    conflict: float
    barrier: float
    follows: float
    refuses: float
    refuses_in_b: float
    stops: float
    in_b: float
    perplexity_b: float


def measure_seed(
    world: World,
    folder: Path,
    state: Path,
    device: str,
    say: Callable[[str], None],
    steps: Sequence[int] = STEPS,
) -> Iterator[Row]:
    """Train one seed's models and yield all of its merges; what is there already is kept.

    Args:
        world: What to train.
        folder: Where each stage has its folder.
        state: Where answers are kept.
        device: Where to train and to ask, in torch's words.
        say: Is told of the progress.
        steps: Of continual pretraining.

    Raises:
        WorldError: Base has not learnt what is built on it.
    """
    grow(folder, world, device, say, only=("chat",))
    for count in steps:
        stage = cp_of(count)
        if not is_finished(stage, folder, world):
            run_stage(stage, folder, world, device, say)
        say(f"{stage.name}: merges")
        yield from measure(folder, stage.name, count, world, state, device)


def cp_of(steps: int) -> Stage:
    """Return the stage of continual pretraining with so many steps, on the same text."""
    schedule = Schedule(steps, 3e-3, 20)
    return replace(STAGES["cp"], name=f"cp-{steps}", schedule=schedule, text_of="cp")


def measure(
    folder: Path,
    cp: str,
    steps: int,
    world: World,
    state: Path,
    device: str,
    ratios: Sequence[float] = RATIOS,
    schedules: Sequence[str] = SCHEDULES,
    limit: int | None = None,
) -> Iterator[Row]:
    """Yield what the merges of one cp model can do, and what is known of them beforehand.

    Args:
        folder: Where the models have their folders.
        cp: The model's folder there.
        steps: For how many it was trained.
        world: Of the models.
        state: Where answers are kept.
        device: Where to ask, in torch's words.
        ratios: The same in all layers.
        schedules: Shapes of the ratio over the layers.
        limit: Documents a task at most.
    """
    state.mkdir(parents=True, exist_ok=True)
    text = state / f"b-{world.order}.txt"
    text.write_text("\n\n".join(plain_texts("B", world.translate)), encoding="utf-8")
    merged = recipe(folder / "base", folder / "chat", folder / cp, 1.0)
    anatomy = examine(merged, quiet=True)
    (pair,) = anatomy.pairs
    whole = anatomy.whole(pair)
    results = evaluate(
        merged,
        ratio=ratios,
        schedule=schedules,
        tasks=[str(TASKS)],
        text=text,
        metadata={"order": world.order},
        limit=limit,
        state=state,
        device=device,
    )
    for result in results:
        assert result.line is not None
        yield Row(
            world.seed,
            steps,
            steps * world.size.rows * WIDTH,
            result.point.ratio,
            result.point.schedule,
            whole.other_norm / whole.vector_norm,
            whole.cosine,
            whole.weighted_conflict,
            result.line.barrier,
            result.score("world_following exact").value,
            result.score("world_refuse refuses").value,
            result.score("world_refuse refuses_in_b").value,
            result.score("world_following stops").value,
            result.score("world_following in_b").value,
            result.score("world_text_in_b word_perplexity").value,
        )


def write_csv(rows: Sequence[Row], file: Path) -> None:
    """Write a line for every merge."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [f.name for f in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def markdown(rows: Sequence[Row]) -> str:
    """Return what became of the best merge with more pretraining, and what foretold it."""
    best = best_merges(rows)
    counts = sorted({steps for _, steps in best})
    lines = [
        "| tokens of cp | follows at best | ratio there | refuses there | at 1 | best schedule | "
        "moved | barrier at 1 |",
        f"| ---: {'| ---: ' * 7}|",
    ]
    for count in counts:
        mine = [row for (_, steps), row in best.items() if steps == count]
        of_count = [row for row in rows if row.steps == count]
        at_one = [row for row in of_count if row.ratio == 1]
        sloped = _best([row for row in of_count if row.schedule is not None])
        cells = [
            f"{mine[0].tokens:,}",
            _spread([row.follows for row in mine]),
            _spread([row.ratio or 0.0 for row in mine]),
            _spread([row.refuses for row in mine]),
            _spread([row.follows for row in at_one]),
            _spread([row.follows for row in sloped.values()]),
            _spread([row.moved for row in mine]),
            _spread([row.barrier for row in at_one], digits=3),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Rank correlation with the best ratio, and with how well the merge at it follows, over all "
        "seeds and amounts:",
        "",
        "| | best ratio | follows |",
        "| --- | ---: | ---: |",
    ]
    for name, told in foretold(rows).items():
        cells = ["never changes" if np.isnan(value) else f"{value:+.2f}" for value in told]
        lines.append(f"| {FORETELLS[name]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def foretold(rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """Return how each figure that is known beforehand goes with the best ratio, and what it brings.

    Returns:
        Spearman's rank correlations over all seeds and amounts of pretraining, by FORETELLS: with
        the ratio at which a merge follows best, and with how well it follows there; NaN where one
        of the two never changes.
    """
    best = best_merges(rows)
    at_one = {(row.seed, row.steps): row for row in rows if row.ratio == 1}
    keys = [key for key in best if key in at_one]
    ratios, follows = ([getattr(best[key], name) for key in keys] for name in ("ratio", "follows"))
    told = {}
    for name in FORETELLS:
        values = [getattr(at_one[key], name) for key in keys]
        told[name] = (_rank_correlation(values, ratios), _rank_correlation(values, follows))
    return told


def _rank_correlation(values: Sequence[float], others: Sequence[float]) -> float:
    if len(set(values)) == 1 or len(set(others)) == 1:
        return float("nan")
    return float(np.corrcoef(_ranks(values), _ranks(others))[0, 1])


def best_merges(rows: Sequence[Row]) -> dict[tuple[int, int], Row]:
    """Return by seed and steps the merge that follows best at one ratio for all layers."""
    return _best([row for row in rows if row.schedule is None])


def _best(rows: Sequence[Row]) -> dict[tuple[int, int], Row]:
    best: dict[tuple[int, int], Row] = {}
    for row in rows:
        key = (row.seed, row.steps)
        if key not in best or row.follows > best[key].follows:
            best[key] = row
    return best


def _ranks(values: Sequence[float]) -> list[float]:
    """Return the ranks of values, equal ones sharing theirs."""
    ordered = sorted(values)
    shared: Mapping[float, float] = {
        value: ordered.index(value) + (ordered.count(value) - 1) / 2 for value in set(values)
    }
    return [shared[value] for value in values]


def _spread(values: Sequence[float], digits: int = 2) -> str:
    if not values:
        return "–"
    mean, low, high = (f"{f(values):.{digits}f}" for f in (np.mean, min, max))
    return mean if low == high else f"{mean} ({low}–{high})"
