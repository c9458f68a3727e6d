"""What is sought: how it is written, and what two recipes differ by on the same prompts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from made_up import BOTH, FIGURES, passed, places, read

from chatvec_method import ChatVecError
from chatvec_method.searching.ending import better_beyond_doubt
from chatvec_method.searching.halves import STAGES, halves_of
from chatvec_method.searching.kept import packed, rounded, unpacked
from chatvec_method.searching.objectives import difference, interval_of, sought

MARKS = {"follows": passed([1, 1, 0, 0]), "reads": read([0.5, 0.7]), "loops": passed([1, 0, 0, 0])}


def test_a_figure_alone_is_taken_as_it_is() -> None:
    follows, reads = BOTH.objectives
    assert (follows.maximise, reads.maximise) == (True, False)
    assert BOTH.values(MARKS) == [0.5, pytest.approx(math.exp(0.6))]


def test_in_a_mean_all_figures_go_from_0_to_1_and_up() -> None:
    of_three = sought(["all=follows+loops+reads", "follows"], FIGURES).objectives[0]
    assert of_three.name == "all"
    assert of_three.maximise
    expected = (0.5 + (1 - 0.25) + 1 / math.exp(0.6)) / 3
    assert of_three.measure.value(MARKS) == pytest.approx(expected)


def test_a_sign_says_what_nobody_else_does() -> None:
    found = sought(["-length", "+loops"], FIGURES)
    assert [each.maximise for each in found.objectives] == [False, True]


def test_a_limit_is_broken_by_what_it_lacks() -> None:
    (least, most) = sought(
        ["follows", "reads", "follows>=0.75", "loops <= 0.2"], FIGURES
    ).constraints
    assert least.excess(MARKS) == pytest.approx(0.25)
    assert most.excess(MARKS) == pytest.approx(0.05)
    assert least.excess({**MARKS, "follows": passed([1, 1, 1, 1])}) == pytest.approx(-0.25)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["follows"], "two objectives or more"),
        (["follows", "folows"], "nothing measures `folows`"),
        (["length", "follows"], "`\\+length` or `-length`"),
        (["follows+length", "reads"], "`length` cannot be part of a mean"),
        (["q=follows", "q=reads"], "two objectives are called q"),
        (["follows", "reads", "follows>=1e"], "no number"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_write(texts: list[str], said: str) -> None:
    with pytest.raises(ChatVecError, match=said):
        sought(texts, FIGURES)


def test_the_difference_of_two_recipes_is_a_paired_one() -> None:
    follows = BOTH.objectives[0].measure
    one, other = {"follows": passed([1] * 30 + [0] * 30)}, {"follows": passed([1] * 27 + [0] * 33)}
    value, (low, high) = difference(follows, one, other)
    assert value == pytest.approx(0.05)
    assert 0 <= low < value < high
    apart = np.subtract(interval_of(follows, one)[0], interval_of(follows, other)[1])
    assert apart < -0.1  # as if they had been asked different prompts
    assert difference(follows, one, one) == (0, (0, 0))


def test_an_answer_that_does_not_count_for_one_recipe_may_count_for_the_other() -> None:
    follows = BOTH.objectives[0].measure
    some = {
        "follows": {name: mark for name, mark in passed([1, 1, 1, 1]).items() if name != "task/0"}
    }
    assert difference(follows, some, {"follows": passed([0, 0, 0, 0])})[0] == 1
    assert difference(follows, {"follows": {}}, {"follows": passed([0, 0])})[0] == 0


# --------------------------------------------------------------------------------- halves, and kept


def test_halves_share_every_stratum_and_no_prompt() -> None:
    every = [*places(9, "a"), *places(4, "b")]
    halves = halves_of(every, seed=1)
    assert {p.id for p in halves.search} | {p.id for p in halves.report} == {p.id for p in every}
    assert not {p.id for p in halves.search} & {p.id for p in halves.report}
    assert [sum(p.task == "a" for p in half) for half in (halves.search, halves.report)] == [5, 4]
    assert halves_of(every, seed=1) == halves
    assert halves_of(every, seed=2) != halves
    stages = list(halves.stages())
    assert len(stages) == len(STAGES)
    assert sorted(p.id for stage in stages for p in stage) == sorted(p.id for p in halves.search)
    assert {p.task for p in stages[0]} == {"a", "b"}


def test_one_prompt_alone_cannot_be_halved() -> None:
    with pytest.raises(ChatVecError, match="of b there is one prompt only"):
        halves_of([*places(2, "a"), *places(1, "b")], seed=0)


def test_marks_are_kept_short_and_come_back_as_they_were() -> None:
    half = [*places(4), *places(2, "text")]
    marks = rounded({"follows": passed([1, 0, 1, 1]), "reads": read([0.123456, 0.7])})
    del marks["follows"]["task/2"]  # an answer that does not count
    figures = [FIGURES["follows"], FIGURES["reads"]]
    kept = packed(marks, figures, half)
    assert kept["follows"] == "10-1"
    assert unpacked(kept, figures, half) == marks


def test_a_model_that_overflows_reads_as_badly_as_can_be() -> None:
    marks = rounded({**MARKS, "reads": read([0.5, math.nan])})
    values = BOTH.values(marks)
    assert values[0] == 0.5
    assert 1e20 < values[1] < math.inf


# ----------------------------------------------------------------------------------- ending early

GOOD = {"follows": passed([1] * 20), "reads": read([0.5, 0.51, 0.52, 0.5])}


@pytest.mark.parametrize(
    ("passes", "losses", "ends"),
    [
        ([0] * 20, [0.9, 0.9, 0.8, 0.9], True),  # worse in both
        ([0] * 20, [0.5, 0.51, 0.52, 0.5], True),  # worse in one, the same in the other
        ([0] * 20, [0.4, 0.41, 0.42, 0.4], False),  # it reads better
        ([1] * 19 + [0], [0.5, 0.51, 0.52, 0.5], False),  # one prompt may be chance
        ([1] * 20, [0.5, 0.51, 0.52, 0.5], False),  # the same
    ],
)
def test_a_trial_ends_early_only_where_another_is_better_beyond_doubt(
    passes: list[int], losses: list[float], ends: bool
) -> None:
    marks = {"follows": passed(passes), "reads": read(losses)}
    asked = [*(place.id for place in places(20)), *(place.id for place in places(4, "text"))]
    found = better_beyond_doubt(BOTH, marks, asked, [(7, GOOD)])
    assert found == (7 if ends else None)


def test_only_the_prompts_that_both_were_asked_count() -> None:
    marks = {"follows": passed([1, 1, 1]), "reads": read([0.5])}
    further = {"follows": passed([1, 1, 1] + [0] * 17), "reads": read([0.4, 9, 9, 9])}
    assert (
        better_beyond_doubt(BOTH, marks, ["task/0", "task/1", "task/2", "text/0"], [(3, further)])
        == 3
    )
