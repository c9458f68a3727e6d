"""Whom a worker takes for dead."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import optuna
import psutil
import pytest

from chatvec_method.searching import life
from chatvec_method.searching.life import BEAT, WORKER, Pace, Watch, is_gone, whose

ELSEWHERE = {"home": "another machine", "pid": 1, "born": 0.0}


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def running(**attributes: Any) -> optuna.trial.FrozenTrial:
    trial = optuna.create_trial(state=optuna.trial.TrialState.RUNNING, user_attrs=attributes)
    trial.number = 3
    return trial


def test_a_worker_elsewhere_is_dead_when_it_gives_no_sign_of_life_for_too_long() -> None:
    clock = Clock()
    watch = Watch(Pace(patience=60), clock)
    beat = 0

    def is_dead_at(now: float, beat: int) -> bool:
        clock.now = now
        return watch.is_dead(running(**{WORKER: ELSEWHERE, BEAT: beat}))

    assert not is_dead_at(1000, beat)  # the first look
    assert not is_dead_at(1059, beat)
    assert not is_dead_at(1061, beat + 1)
    assert not is_dead_at(1120, beat + 1)
    assert is_dead_at(1122, beat + 1)


def test_a_worker_that_was_killed_before_it_said_who_it_is_is_dead_as_well() -> None:
    clock = Clock()
    watch = Watch(Pace(patience=60), clock)
    assert not watch.is_dead(running())
    clock.now = 61
    assert watch.is_dead(running())


def test_a_process_of_this_machine_is_dead_as_soon_as_it_is_gone() -> None:
    if whose()["home"] is None:
        pytest.skip("this system does not say which machine it is")
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    born = psutil.Process(child.pid).create_time()
    worker = {**whose(), "pid": child.pid, "born": born}
    assert not is_gone(worker)
    assert is_gone({**worker, "born": born - 5})  # another process with its number
    child.kill()
    child.wait()
    assert is_gone(worker)
    assert not is_gone({**worker, "home": ELSEWHERE["home"]})


def test_where_processes_cannot_be_seen_nobody_is_taken_for_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = {**whose(), "pid": 2**22 - 1, "born": 0.0}
    monkeypatch.setattr(life, "_home", lambda: None)
    assert not is_gone(worker)
    assert not is_gone({**worker, "home": None})
    assert not is_gone("nobody")
