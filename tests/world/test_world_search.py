"""The comparison of ways to search: what each proposes, and what its hypervolume is."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import ROOT

from examples.world import search
from examples.world.__main__ import main
from examples.world.search import WAYS, Exam, Trial
from examples.world.settings import World

COUNT = 13
"""Trials of each way: more than there are starts."""


def like(numbers: Mapping[str, float]) -> tuple[search.Values, search.Values]:
    """Return made-up values: most quality at 0.8 everywhere, and most closeness at 0."""
    mean = sum(numbers.values()) / len(numbers)
    values = (1 - abs(mean - 0.8), 0.7 - 0.1 * mean)
    return values, values


@pytest.fixture(scope="module")
def trials() -> list[Trial]:
    """Return the trials of all ways in the world of this repository, of which nothing is asked."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(ROOT)
        patched.setattr(Exam, "ask", lambda self, space, numbers: like(numbers))
        models = ROOT / "examples" / "world" / "models"
        return search.measure(models, "cp", World(1), COUNT, "cpu", lambda _: None)


def test_every_way_proposes_as_many_ratios_as_are_asked_for_within_bounds(
    trials: list[Trial],
) -> None:
    for way in WAYS:
        own = [trial for trial in trials if trial.way == way]
        assert [trial.number for trial in own] == list(range(COUNT))
        assert all(0 <= number <= 1.25 for trial in own for number in trial.numbers.values())
        assert {len(trial.numbers) for trial in own} == {4 if "layer" in way else 7}
        assert len({tuple(trial.numbers.values()) for trial in own}) >= COUNT - 2
    begun = [
        [t.numbers for t in trials if t.way == way][:10] for way in WAYS if way.startswith("starts")
    ]
    assert begun[0] == begun[1] == begun[2]


def test_one_ratio_for_all_goes_ever_finer(trials: list[Trial]) -> None:
    uniform = [t.numbers for t in trials if t.way == "one ratio for all"]
    assert [each["embeddings"] for each in uniform[:6]] == [0, 0.25, 0.5, 0.75, 1, 1.25]
    assert uniform[6]["embeddings"] == 0.125
    assert {len(set(each.values())) for each in uniform} == {1}


def trial(number: int, searched: search.Values, reported: search.Values) -> Trial:
    return Trial("one ratio for all", number, {"embeddings": 0.0}, searched, reported)


def test_the_hypervolume_is_of_the_searching_halfs_pareto_set_on_the_other_half() -> None:
    ends = (0.5, 0.7)
    front = [trial(0, (0.5, 0.7), (0.4, 0.7)), trial(1, (1.0, 0.6), (0.8, 0.6))]
    assert search._hypervolume(front, ends) == pytest.approx(0.4 * 1.0 + 0.4 * 0.5)
    lucky = trial(2, (0.9, 0.55), (1.0, 0.7))  # beaten by 1 while searching
    assert search._hypervolume([*front, lucky], ends) == pytest.approx(0.6)
    assert search._hypervolume([trial(0, (0.5, 0.4), (0.4, 0.3))], ends) == 0


def test_the_command_tells_of_worlds_that_were_searched(
    trials: list[Trial], tmp_path: Path
) -> None:
    for seed in (1, 2):
        search.save(trials, tmp_path / f"search-{seed}.json")
    command = ["search", str(tmp_path), "--seeds", "1,2", "--trials", "12"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    with (tmp_path / "search.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(WAYS) * 12
    table = (tmp_path / "search.md").read_text()
    assert "| after 5 | after 10 | after 12 |" in table
    assert (tmp_path / "search.png").stat().st_size > 10_000
