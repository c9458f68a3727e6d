"""When a chat vector stops working: what is measured of each merge, and told of all of them."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from conftest import ROOT

from examples.world.endurance import Row, foretold, markdown, measure, write_csv
from examples.world.figures import draw_endurance
from examples.world.settings import World

MODELS = ROOT / "examples" / "world" / "models"
ROW = Row(0, 100, 102_400, 1.0, None, 2.0, 0.01, 0.5, 0.0, 0.5, 0.5, 0.5, 1.0, 1.0, 4.0)


def test_merges_are_measured_with_what_is_known_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    rows = list(
        measure(MODELS, "cp", 800, World(1), tmp_path, "cpu", (0.0, 0.5), ("linear:1:0",), limit=4)
    )
    assert [(row.ratio, row.schedule) for row in rows] == [
        (0, None),
        (0.5, None),
        (None, "linear:1:0"),
    ]
    assert {row.tokens for row in rows} == {800 * 16 * 64}
    assert {round(row.moved, 2) for row in rows} == {3.66}
    cp, half, _ = rows
    assert cp.follows == cp.barrier == 0
    assert half.follows > 0.7

    write_csv(rows, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(newline="") as file:
        assert [float(row["follows"]) for row in csv.DictReader(file)] == [r.follows for r in rows]


def test_what_falls_as_cp_moves_is_foretold_by_that(tmp_path: Path) -> None:
    rows = [
        replace(ROW, seed=seed, steps=steps, tokens=steps * 1024, ratio=ratio, **figures)
        for seed in (0, 1)
        for steps in (100, 200, 400)
        for ratio in (0.5, 1.0)
        for figures in [{"moved": float(steps), "follows": ratio * (1 - steps / 500) - seed / 100}]
    ]
    rows += [replace(row, ratio=None, schedule="linear:1:0", follows=0.25) for row in rows[:1]]
    told = foretold(rows)
    assert told["moved"][1] == pytest.approx(-1, abs=0.1)
    assert math.isnan(told["moved"][0])  # the best ratio is always 1
    assert all(map(math.isnan, told["cosine"]))

    lines = markdown(rows).splitlines()
    assert lines[2].startswith("| 102,400 | 0.80 (0.79–0.80) | 1.00 | 0.50 | ")
    assert lines[4].startswith("| 409,600 | ")
    (moved,) = [line for line in lines if line.startswith("| ‖cp − base‖ / ‖chat − base‖ |")]
    assert moved.startswith("| ‖cp − base‖ / ‖chat − base‖ | never changes | -")

    draw_endurance(rows, tmp_path / "endurance.png")
    assert (tmp_path / "endurance.png").stat().st_size > 10_000


def test_the_table_of_the_docs_is_that_of_the_published_rows() -> None:
    with (ROOT / "docs" / "world" / "endurance.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    paper = (ROOT / "docs" / "world.md").read_text(encoding="utf-8")

    def mean(how: str, measure: str) -> str:
        of_how = [row for row in of_steps if how in (row["ratio"], row["schedule"])]
        return f"{fmean(float(row[measure]) for row in of_how):.2f}"

    for steps in ("100", "200", "400", "800", "1600", "3200"):
        of_steps = [row for row in rows if row["steps"] == steps]
        ratios = ("0.25", "0.5", "0.75", "1.0", "1.25", "1.5", "linear:1:0")
        one_a_seed: dict[str, dict[str, str]] = {}
        for row in of_steps:
            best = one_a_seed.get(row["seed"])
            if row["ratio"] and (best is None or float(row["follows"]) > float(best["follows"])):
                one_a_seed[row["seed"]] = row
        cells = [
            f"{int(of_steps[0]['tokens']):,}",
            f"{fmean(float(row['moved']) for row in of_steps):.1f}",
            *(mean(ratio, "follows") for ratio in ratios),
            f"{fmean(float(row['ratio']) for row in one_a_seed.values()):.2f}",
            *(mean(ratio, "refuses") for ratio in ("0.5", "1.0")),
        ]
        assert f"| {' | '.join(cells)} |" in paper
