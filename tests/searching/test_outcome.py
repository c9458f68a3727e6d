"""What was found: the recipes that none beats, the suggested one, and what is said of one ratio."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from made_up import BOTH, passed, read

from chatvec_method.searching.outcome import (
    Candidate,
    Outcome,
    Tried,
    best_uniform,
    pareto,
)

NAMES = ("a", "b")


def tried(number: int, *values: float, uniform: float | None = None, holds: bool = True) -> Tried:
    """Return a trial with what it follows and how it reads, of which less is better."""
    name = None if uniform is None else f"uniform {uniform:g}"
    numbers = dict(zip(NAMES, (number / 10, uniform or 0.0), strict=True))
    return Tried(number, name, uniform, numbers, values or None, values, holds, 1.0)


def test_no_recipe_of_the_pareto_set_is_beaten() -> None:
    trials = [
        tried(0, 0.0, 1.5, uniform=0.0),
        tried(1, 0.8, 1.6),
        tried(2, 0.7, 1.7),  # by 1
        tried(3, 0.9, 2.0),
        tried(4, 0.9, 2.1),  # by 3
        tried(5, 0.99, 1.4, holds=False),  # breaks a limit
        tried(6),  # ended early
    ]
    assert [each.number for each in pareto(trials, BOTH.objectives)] == [3, 1, 0]


def test_equal_ratios_are_one_recipe_and_equal_values_of_others_are_two() -> None:
    twice = [
        tried(1, 0.8, 1.6),
        Tried(2, None, None, {"a": 0.1, "b": 0.0}, (0.8, 1.6), (), True, 1.0),
    ]
    assert [each.number for each in pareto(twice, BOTH.objectives)] == [1]
    assert len(pareto([*twice, tried(3, 0.8, 1.6)], BOTH.objectives)) == 2


def test_the_best_uniform_ratio_holds_all_limits() -> None:
    trials = [
        tried(0, 0.0, 1.5, uniform=0.0),
        tried(1, 0.8, 1.6, uniform=0.5),
        tried(2, 0.95, 1.6, uniform=0.75, holds=False),
        tried(3, 0.9, 9.0, uniform=1.0),
    ]
    best = best_uniform(trials, BOTH.objectives)
    assert best is not None
    assert best.uniform == 0.5
    assert best_uniform([tried(4, 0.9, 1.5)], BOTH.objectives) is None


def outcome(*found: tuple[Tried, Any, Any], uniform: int | None = 0) -> Outcome:
    """Return an outcome of trials, each with its marks on the reporting half."""
    candidates = [
        Candidate(t, SimpleNamespace(text=""), {}, {"follows": follows, "reads": reads})  # type: ignore[arg-type]
        for t, follows, reads in found
    ]
    worst = tried(9, 0.0, 2.0)
    return Outcome(
        BOTH,
        (*(each.tried for each in candidates), worst),
        tuple(
            each
            for each in candidates
            if each.tried in pareto([t for t, *_ in found], BOTH.objectives)
        ),
        None if uniform is None else candidates[uniform],
        (40, 40),
        {},
    )


FLAT = (tried(0, 0.5, 1.6, uniform=0.5), passed([1] * 20 + [0] * 20), read([0.5] * 10))


@pytest.mark.parametrize(
    ("follows", "said"),
    [
        ([1] * 40, "it beats the best uniform ratio, 0.5"),
        ([1] * 20 + [0] * 20, "Nothing beats the best uniform ratio, 0.5"),
        ([1] * 21 + [0] * 19, "chance can do that"),
        ([0] * 40, "there the suggested recipe is worse"),
    ],
)
def test_what_is_said_depends_on_the_half_that_no_trial_saw(follows: list[int], said: str) -> None:
    better = (tried(1, 0.9, 1.6), passed(follows), read([0.5] * 10))
    assert said in outcome(FLAT, better).sentences[-1]


def test_a_difference_that_is_certain_and_tiny_is_nothing() -> None:
    tiny = (tried(1, 0.51, 1.6), passed([1] * 20 + [0] * 20), read([0.499] * 10))
    last = outcome(FLAT, tiny).sentences[-1]
    assert last.startswith("Nothing beats")
    assert "too little to matter" in last


def test_where_the_uniform_ratio_is_the_best_it_is_suggested() -> None:
    worse = (tried(1, 0.4, 1.7), passed([1] * 10 + [0] * 30), read([0.6] * 10))
    found = outcome(FLAT, worse)
    assert found.suggested is not None
    assert found.suggested.tried.number == 0
    assert found.sentences[-1] == "That is the best uniform ratio, 0.5, itself: nothing beats it."


def test_where_no_trial_holds_the_limits_nothing_is_suggested() -> None:
    found = Outcome(BOTH, (tried(0, 0.5, 1.6, holds=False),), (), None, (4, 4), {})
    assert found.sentences == [
        "No trial holds all limits on the searching half: there is nothing to suggest."
    ]
