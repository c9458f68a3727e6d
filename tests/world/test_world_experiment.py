"""The world's experiment: its merges, its tables and pictures, and what is published of it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from examples.world import experiment, figures, ordering, results, second_format
from examples.world.__main__ import main
from examples.world.experiment import Result
from examples.world.report import Marks
from examples.world.results import Spread

MODELS = ROOT / "examples" / "world" / "models"
DOCS = ROOT / "docs" / "world"
MARKS = Marks(
    exact=dict.fromkeys(("repeat", "first", "last", "question", "local fact", "recall"), 0.5),
    **dict.fromkeys(("all_exact", "begins_right", "stops", "in_b", "in_a", "mixed"), 0.5),
    **dict.fromkeys(("as_dialogue", "refuses", "refuses_in_b"), 0.5),
    **dict.fromkeys(("perplexity_a", "perplexity_b"), 4.0),
)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {n: t.double() for n, t in load_file(folder / "model.safetensors").items()}


def all_results(follows: float) -> list[Result]:
    marks = replace(MARKS, all_exact=follows)
    plain = [Result(name, None, None, None, marks) for name in experiment.MODELS]
    merges = [Result(m, v, r, s, marks) for m, v, r, s, _ in experiment.merges(MODELS)]
    return [*plain, *merges, Result("cp", "chat_tokens", 0.5, second_format.FINISHED, marks)]


# ------------------------------------------------------------------------------------------ merges


def test_experiment_merges_at_every_eighth_from_0_to_one_and_a_half() -> None:
    merges = list(experiment.merges(MODELS))
    for model, vector in (("cp", "chat"), ("cp_ft", "chat"), ("cp", "random")):
        swept = [m[2] for m in merges if m[:2] == (model, vector) and m[3] == "constant"]
        assert swept == [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1, 1.125, 1.25, 1.375, 1.5]
    assert len({m[:4] for m in merges}) == len(merges)


@pytest.mark.parametrize("mean", [0.25, 1.0])
def test_schedules_have_the_same_mean_ratio_over_the_matrices_of_the_layers(
    mean: float, tmp_path: Path
) -> None:
    base, chat, cp = (weights(MODELS / name) for name in ("base", "chat", "cp"))
    matrices = [name for name, tensor in base.items() if ".layers." in name and tensor.dim() == 2]
    schedules = experiment.schedules(mean, *experiment._shares(MODELS / "cp"))
    for schedule, ratio in schedules.items():
        recipe = experiment.recipe(MODELS / "base", MODELS / "chat", MODELS / "cp", ratio)
        recipe["out_dtype"] = "float32"
        second_format.merge(recipe, tmp_path)
        out = weights(tmp_path)
        used = {
            name: float(((out[name] - cp[name]) / (chat[name] - base[name])).nanmedian())
            for name in matrices
        }
        size = sum(base[name].numel() for name in matrices)
        average = sum(used[name] * base[name].numel() for name in matrices) / size
        assert average == pytest.approx(mean, rel=1e-4), schedule
    assert len(schedules) == 8


def test_random_vector_has_the_norm_of_the_chat_vector_in_every_tensor(tmp_path: Path) -> None:
    experiment.write_random_vector(MODELS, tmp_path)
    base, chat, random = weights(MODELS / "base"), weights(MODELS / "chat"), weights(tmp_path)
    assert random.keys() == base.keys()
    for name in base:
        assert (random[name] - base[name]).norm() == pytest.approx(
            float((chat[name] - base[name]).norm()), rel=1e-4
        ), name
    moved = torch.cat([(chat[name] - base[name]).flatten() for name in base])
    at_random = torch.cat([(random[name] - base[name]).flatten() for name in base])
    assert abs(torch.cosine_similarity(moved, at_random, dim=0)) < 0.05


def test_a_merge_leaves_nothing_of_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 7}')
    models = (MODELS / "base", MODELS / "chat", MODELS / "cp")
    second_format.merge(experiment.recipe(*models, 0.5), tmp_path)
    assert LlamaForCausalLM.from_pretrained(tmp_path).generation_config.eos_token_id == 3


# ------------------------------------------------------------------------------ tables and pictures


def test_results_survive_being_written(tmp_path: Path) -> None:
    some = all_results(0.25)
    experiment.save(some, tmp_path / "seed.json")
    assert experiment.load(tmp_path / "seed.json") == some


def test_table_tells_mean_and_range_over_the_seeds(tmp_path: Path) -> None:
    table = results.spreads([all_results(0.25), all_results(0.75), all_results(0.5)])
    spread = table["cp", "chat", 0.5, "constant"]["follows"]
    assert (spread.mean, spread.low, spread.high) == (0.5, 0.25, 0.75)
    assert "| cp + 0.5 | 0.50 (0.25–0.75) | 0.50 |" in results.markdown(table)
    assert "| cp → ft + 1.5 |" in results.markdown(table)
    assert "| cp + 0.5 random |" in results.markdown(table)
    assert "| cp + 0.25, attention only |" in results.markdown(table)
    results.write_csv(table, [4, 5, 7], tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(table) * len(results.MEASURES)
    assert {"model": "cp", "vector": "chat", "ratio": "0.5", "schedule": "constant"} | {
        **{"measure": "follows", "mean": "0.5000", "min": "0.2500", "max": "0.7500"},
        **{"seed 4": "0.2500", "seed 5": "0.7500", "seed 7": "0.5000"},
    } in rows


def ordered(
    cp: float = 0.0,
    best: float = 0.9,
    random: float = 0.0,
    chat_cp: float = 0.5,
    refuses: tuple[float, float] = (0.25, 0.75),
) -> list[Result]:
    """Return the results of a seed that shows the paper's ordering, or a part of it."""

    def follows(result: Result) -> float:
        if result.vector == "random":
            return random
        if result.vector == "chat":
            return best if result.ratio == 0.75 else 0.5
        return {"cp": cp, "chat_cp": chat_cp}.get(result.model, 0.5)

    return [
        replace(
            result,
            marks=replace(
                MARKS,
                all_exact=follows(result),
                refuses=refuses[1] if result.ratio == 1 else refuses[0],
            ),
        )
        for result in all_results(0.5)
    ]


def test_a_seed_holds_if_it_shows_the_whole_ordering() -> None:
    seeds = [ordered(), ordered(best=0.95)]
    first, second = ordering.orderings(results.spreads(seeds), [3, 8])
    assert first.holds
    assert second.holds
    assert (second.seed, second.best, second.best_ratio) == (8, 0.95, 0.75)
    assert "| 8 | 0.00 | 0.95 at 0.75 | 0.00 | 0.50 | 0.25 | 0.75 | yes |" in ordering.markdown(
        [first, second]
    )


@pytest.mark.parametrize(
    "part",
    [
        {"cp": 0.05},
        {"best": 0.85},
        {"random": 0.05},
        {"chat_cp": 0.9},
        {"refuses": (0.5, 0.5)},
        {"refuses": (1.0, 0.5)},
    ],
)
def test_a_seed_that_shows_a_part_of_the_ordering_does_not_hold(part: dict) -> None:
    seeds = [ordered(), ordered(**part)]
    first, second = ordering.orderings(results.spreads(seeds), [0, 1])
    assert first.holds
    assert not second.holds
    assert ordering.markdown([second]).endswith("| no |\n")


def test_experiment_measured_before_is_told_again_without_training(tmp_path: Path) -> None:
    for seed in (0, 1, 3):
        experiment.save(all_results(0.5), tmp_path / f"seed-{seed}.json")
    done = CliRunner().invoke(main, ["experiment", str(tmp_path), "--seeds", "0-1,3"])
    assert done.exit_code == 0, done.output
    for name in ("ratio.png", "tasks.png", "schedules.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "results.csv").exists()
    assert (tmp_path / "results.md").exists()


def test_seeds_that_are_not_numbers_are_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["experiment", str(tmp_path), "--seeds", "all"])
    assert done.exit_code == 2
    assert "write numbers and ranges, as in 0-2,5" in done.output


def test_every_measure_has_a_panel() -> None:
    drawn = {measure for measure, _ in (*figures.SWEEP, *figures.TASKS)}
    assert drawn == set(results.MEASURES)


# --------------------------------------------------------------------- what docs/world.md tells us


def published(file: str = "results.csv") -> tuple[dict[results.Key, dict[str, Spread]], list[int]]:
    table: dict[results.Key, dict[str, Spread]] = {}
    with (DOCS / file).open(encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        seeds = [name for name in reader.fieldnames or () if name.startswith("seed ")]
        for row in reader:
            ratio = float(row["ratio"]) if row["ratio"] else None
            key = (row["model"], row["vector"] or None, ratio, row["schedule"] or None)
            spread = Spread(tuple(float(row[seed]) for seed in seeds))
            assert spread.mean == pytest.approx(float(row["mean"]), abs=1e-4)
            table.setdefault(key, {})[row["measure"]] = spread
    return table, [int(seed.removeprefix("seed ")) for seed in seeds]


def test_every_published_seed_shows_the_ordering_of_the_paper() -> None:
    told = ordering.orderings(*published())
    assert len(told) >= 5
    for seed in told:
        assert seed.holds, seed
    assert ordering.markdown(told) in (DOCS / "results.md").read_text(encoding="utf-8")


def test_of_the_second_run_all_seeds_but_one_show_it_too() -> None:
    told = ordering.orderings(*published("again.csv"))
    assert [seed.seed for seed in told if not seed.holds] == [5]
    assert ordering.markdown(told) in (ROOT / "docs" / "world.md").read_text(encoding="utf-8")


def test_every_figure_in_the_tables_of_the_paper_is_a_published_result() -> None:
    rows = dict(table_rows((DOCS / "results.md").read_text(encoding="utf-8")))
    paper = (ROOT / "docs" / "world.md").read_text(encoding="utf-8")
    first, _, rest = paper.partition("\n## Once more, on another processor\n")
    second, *others = rest.split("\n## ")
    assert second
    told = [
        (label, cells)
        for part in (first, *others)
        for label, cells in table_rows(part)
        if label in rows
    ]
    assert {"cp", "cp + 0.5", "cp + 1", "chat → cp", "cp → ft + 1"} <= {label for label, _ in told}
    for label, cells in told:
        assert cells == rows[label], label


def table_rows(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith(("| model ", "| --- ")):
            label, cells = line.removeprefix("| ").split(" | ", 1)
            yield label, cells
