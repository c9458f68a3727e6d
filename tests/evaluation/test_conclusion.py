"""The sentence at the end of a sweep."""

from __future__ import annotations

import pytest

from chatvec_method.evaluation.conclusion import conclusion, smallest_ratio
from chatvec_method.evaluation.scores import Score


def scores(follows: float, refuses: float, language: float) -> tuple[Score, ...]:
    def score(axis: str, value: float) -> Score:
        return Score(axis, "ko", value, (value - 0.1, value + 0.1), 60, "share", True, "rules")

    return score("follows", follows), score("refuses", refuses), score("language", language)


@pytest.mark.parametrize(
    ("table", "ratio"),
    [
        ({0: (0, 0, 1), 0.5: (0.75, 0.85, 1), 1: (0.8, 0.9, 1)}, 0.5),
        ({0: (0, 0, 1), 0.5: (0.75, 0.6, 1), 1: (0.8, 0.9, 0.96)}, 1),
        ({0: (0, 0, 1), 0.5: (0.75, 0.6, 1), 1: (0.8, 0.9, 0.95)}, None),
        ({0: (0, 0, 1), 0.5: (0.8, 0.3, 1), 1: (0.3, 0.9, 1)}, None),
    ],
)
def test_the_smallest_ratio_that_does_as_well_as_the_best_in_the_language(
    table: dict[float, tuple[float, float, float]], ratio: float | None
) -> None:
    by_ratio = {each: scores(*values) for each, values in table.items()}
    assert smallest_ratio(by_ratio, "ko") == ratio
    said = conclusion(by_ratio, "ko")
    assert said is not None
    if ratio is None:
        assert "a schedule per layer is worth trying" in said
    else:
        assert said.startswith(f"ko: {ratio:g} is the smallest ratio at which follows and refuses")


def test_what_never_follows_has_no_best_ratio() -> None:
    by_ratio = {0.0: scores(0, 0, 1), 1.0: scores(0, 0.5, 1)}
    assert conclusion(by_ratio, "ko") == "ko: at no ratio is there an answer that follows."


def test_a_ratio_whose_answers_have_no_letters_is_not_the_one() -> None:
    silent = tuple(each for each in scores(0.8, 0.9, 1) if each.axis != "language")
    assert smallest_ratio({0.0: silent, 1.0: scores(0.8, 0.9, 1)}, "ko") == 1


def test_of_ratios_that_tie_the_smallest_is_named() -> None:
    by_ratio = {ratio: scores(0.8, 0.9, 1) for ratio in (1.0, 0.25, 0.5)}
    assert smallest_ratio(by_ratio, "ko") == 0.25


def test_one_ratio_alone_says_nothing() -> None:
    assert conclusion({1.0: scores(1, 1, 1)}, "ko") is None
