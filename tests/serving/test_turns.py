"""Whose turn it is."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from chatvec_method.errors import ChatVecError
from chatvec_method.serving.turns import BUSY, CLOSED, OVERTAKING, Turns


@dataclass(frozen=True)
class Waiting:
    """Someone who waits."""

    key: str
    number: int = 0


def turns_of(*keys: str) -> Turns[Waiting]:
    turns: Turns[Waiting] = Turns(100)
    for number, key in enumerate(keys):
        turns.add(Waiting(key, number))
    return turns


def order(turns: Turns[Waiting]) -> list[int]:
    """Return in which order they come, the model being what the last one wanted."""
    key, numbers = None, []
    while len(turns):
        one = turns.next(key)
        assert one is not None
        key = one.key
        numbers.append(one.number)
    return numbers


def test_the_oldest_comes_first() -> None:
    assert order(turns_of("a", "b", "c")) == [0, 1, 2]


def test_who_wants_what_the_model_is_goes_first() -> None:
    assert order(turns_of("a", "b", "a", "b", "a")) == [0, 2, 4, 1, 3]


def test_the_oldest_is_overtaken_a_few_times_and_no_more() -> None:
    came = order(turns_of("a", "b", *["a"] * 20))
    assert came.index(1) == 1 + OVERTAKING


def test_who_is_kept_waiting_anew_can_be_overtaken_anew() -> None:
    came = order(turns_of("a", "b", *["a"] * OVERTAKING, "c", *["b"] * OVERTAKING))
    assert came.index(2 + OVERTAKING) == 2 + 2 * OVERTAKING


def test_one_more_than_may_wait_is_refused() -> None:
    turns: Turns[Waiting] = Turns(2)
    turns.add(Waiting("a"))
    turns.add(Waiting("b"))
    with pytest.raises(ChatVecError, match="2 requests wait already") as refused:
        turns.add(Waiting("c"))
    assert refused.value.code == BUSY
    turns.next(None)
    turns.add(Waiting("c"))


def test_who_leaves_is_not_served_though_another_wants_the_same() -> None:
    turns = turns_of("a")
    leaver = Waiting("a", 0)
    turns.add(leaver)
    assert turns.remove(leaver)
    assert not turns.remove(leaver)
    assert order(turns) == [0]


def test_nobody_is_served_once_it_is_closed() -> None:
    turns = turns_of("a", "b")
    taken: list[Waiting | None] = []
    waiting = threading.Thread(target=lambda: [taken.append(turns.next(None)) for _ in range(3)])
    waiting.start()
    while len(turns):
        pass
    assert turns.close() == []
    waiting.join()
    assert taken[2] is None
    with pytest.raises(ChatVecError) as refused:
        turns.add(Waiting("c"))
    assert refused.value.code == CLOSED
