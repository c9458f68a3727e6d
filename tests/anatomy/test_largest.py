"""The largest squares of many that come some at a time, against all of them sorted."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from chatvec_method.anatomy import largest
from chatvec_method.anatomy.largest import Largest

SQUARES = st.lists(st.floats(0, 4, width=32), min_size=1, max_size=60)


@given(parts=st.lists(SQUARES, min_size=1, max_size=6), k=st.integers(1, 40))
def test_the_sum_is_that_of_the_largest_in_whatever_parts_they_come(
    parts: list[list[float]], k: int
) -> None:
    several = Largest(k)
    for part in parts:
        squares = torch.tensor(part)
        several.add(squares[squares > several.level])
    expected = sorted(chain.from_iterable(parts), reverse=True)[:k]
    assert several.sum == pytest.approx(sum(expected), rel=1e-12)


@given(squares=SQUARES, level=st.floats(0, 4, width=32), k=st.integers(1, 40))
def test_a_level_gives_the_right_sum_or_none(squares: list[float], level: float, k: int) -> None:
    k = min(k, len(squares))
    above = Largest(k, level)
    numbers = torch.tensor(squares)
    above.add(numbers[numbers > level])
    if above.sum is None:
        assert int((numbers > level).sum()) < k
    else:
        assert above.sum == pytest.approx(sum(sorted(squares, reverse=True)[:k]), rel=1e-12)


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
