"""The largest squares of many that come some at a time, against all of them sorted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chatvec_method.anatomy import largest
from chatvec_method.anatomy.largest import Largest


def some_squares(seed: int, count: int, distinct: int) -> torch.Tensor:
    """Return squares, some of them equal where there are few distinct ones, and some 0."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(distinct, (count,), generator=generator).float().square() / 7


COUNTS, DISTINCT = st.integers(1, 300), st.sampled_from([1, 2, 5, 1000])


@settings(deadline=None)
@given(st.integers(0, 99), COUNTS, DISTINCT, st.integers(1, 9), st.integers(1, 60))
def test_the_sum_is_that_of_the_largest_in_whatever_parts_they_come(
    seed: int, count: int, distinct: int, parts: int, k: int
) -> None:
    squares = some_squares(seed, count, distinct)
    several = Largest(k)
    for part in squares.chunk(parts):
        several.add(part[part > several.level])
    expected = sum(sorted(squares.tolist(), reverse=True)[:k])
    assert several.sum == pytest.approx(expected, rel=1e-12)


@settings(deadline=None)
@given(st.integers(0, 99), COUNTS, DISTINCT, st.floats(0, 1), st.integers(1, 60))
def test_above_any_level_the_sum_is_right_or_none(
    seed: int, count: int, distinct: int, height: float, k: int
) -> None:
    squares, k = some_squares(seed, count, distinct), min(k, count)
    level = height * float(squares.max())
    above = Largest(k, level)
    above.add(squares[squares > level])
    if above.sum is None:
        assert int((squares > level).sum()) < k
    else:
        expected = sum(sorted(squares.tolist(), reverse=True)[:k])
        assert above.sum == pytest.approx(expected, rel=1e-12)


def test_what_cannot_be_among_the_largest_is_dropped() -> None:
    several = Largest(10)
    for part in torch.rand((100, 50), generator=torch.Generator().manual_seed(0)):
        several.add(part[part > several.level])
        assert len(np.concatenate(several._parts)) <= largest.SPARE * 10
    assert several.level > 0.99


@pytest.mark.parametrize("ties", [1, 1000, 100_000])
def test_more_than_the_largest_are_above_the_level_of_a_sample(ties: int) -> None:
    squares = torch.rand(100_000 // ties, generator=torch.Generator().manual_seed(0)).square()
    squares = squares.repeat_interleave(ties)
    assert int((squares > largest.level(squares)).sum()) >= largest.count(len(squares))
