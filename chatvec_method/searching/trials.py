"""The trials of a search, shared by any number of workers, each done once.

What a storage of optuna's does in one step, for one worker alone, is this: to give a new trial its
number, and to change a trial's state. All that workers agree on follows from it.

- A trial counts unless it has failed. Of those that count, the first ones by their number are
  wanted, as many as were asked for; who finds his own behind them drops it.
- What is to be done once, such as a start, is a job with a name. It may be put into the queue
  twice by two workers at a time; then the trial with the lower number does it, and the other one
  is dropped.
- Whoever finds a worker dead puts its trial into the queue as a job (`again 7`), and only then
  lets it fail. A failed trial without such a job gets one, so that a death in between loses
  nothing.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from chatvec_method.searching.life import Pace, Watch, beating

JOB, NAME, DROPPED, UNIFORM = "job", "name", "dropped", "uniform"
"""What a trial has among its attributes: the job that it does, what a start is called, why it was
dropped, and the ratio of one that is the same everywhere."""
AGAIN = re.compile(r"again (\d{1,9})")
"""A job that does a failed trial once more."""
MOST_TRIES = 3
"""Of a trial: it may be the trial that kills its workers."""
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Start:
    """A point where the search begins."""

    name: str
    values: Mapping[str, float]
    uniform: float | None = None
    """The ratio, where it is the same everywhere."""

    @property
    def job(self) -> str:
        """Return what the job of trying it is called."""
        return f"start {self.name}"


@dataclass(frozen=True)
class Ended:
    """What became of a trial."""

    values: Sequence[float] | None
    """None if it ended early."""
    constraints: Mapping[str, float]
    attributes: Mapping[str, Any]
    """What is kept of it besides."""


Ranges = Mapping[str, FloatDistribution]
Try = Callable[[optuna.Trial, Mapping[str, float]], Ended]
"""Tries the ratios of a trial."""
Starts = Callable[[Sequence[FrozenTrial]], Sequence[Start]]
"""Returns where to begin, by what is finished by now."""


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that are finished, running or waiting, by number."""
    return [trial for trial in trials if trial.state is not TrialState.FAIL]


def finished(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that are finished, in full or early, by number."""
    return [trial for trial in trials if trial.state in DONE]


def work(
    study: optuna.Study,
    ranges: Ranges,
    wanted: int,
    starts: Starts,
    attempt: Try,
    *,
    pace: Pace,
    on_trial: Callable[[FrozenTrial], None],
    on_wait: Callable[[int], None] = lambda _: None,
) -> None:
    """Do trials until as many are finished as are wanted, by this worker and by others.

    Args:
        study: Theirs.
        ranges: What each number that is searched is drawn from.
        wanted: So many.
        starts: Where to begin.
        attempt: Tries the ratios of one.
        pace: Of the signs of life.
        on_trial: Is told of every trial that this worker has finished.
        on_wait: Is told how many trials others are at, while there is nothing to do but wait.
    """
    watch = Watch(pace)
    while True:
        do_again(study, watch)
        trials = study.get_trials(deepcopy=False)
        if len(finished(trials)) >= wanted:
            return
        room = wanted - len(counted(trials))
        for start in missing_starts(trials, starts(trials))[: max(room, 0)]:
            _queue(study, start.values, {JOB: start.job, NAME: start.name, UNIFORM: start.uniform})
            room -= 1
        waiting = any(t.state is TrialState.WAITING for t in study.get_trials(deepcopy=False))
        if room <= 0 and not waiting:
            on_wait(sum(trial.state is TrialState.RUNNING for trial in trials))
            time.sleep(pace.look)
            continue
        _one(study, ranges, wanted, attempt, pace, on_trial)


def missing_starts(trials: Sequence[FrozenTrial], starts: Sequence[Start]) -> list[Start]:
    """Return the starts that nobody has put into the queue yet."""
    jobs = {trial.user_attrs.get(JOB) for trial in trials if DROPPED not in trial.user_attrs}
    return [start for start in starts if start.job not in jobs]


def is_pending(trials: Sequence[FrozenTrial], starts: Sequence[Start]) -> bool:
    """Tell whether one of some starts is still to be tried, or being tried."""
    names = {start.name for start in starts}
    return any(
        trial.user_attrs.get(NAME) in names
        for trial in trials
        if trial.state in (TrialState.WAITING, TrialState.RUNNING)
    )


def do_again(study: optuna.Study, watch: Watch) -> None:
    """Put the trials of workers that are dead into the queue again."""
    trials = study.get_trials(deepcopy=False)
    for trial in trials:
        dead = trial.state is TrialState.RUNNING and watch.is_dead(trial)
        failed = trial.state is TrialState.FAIL and DROPPED not in trial.user_attrs
        if (dead or failed) and _may_be_tried(trials, trial) and not _is_queued(trials, trial):
            _queue(study, trial.params, _as_before(trial) | {JOB: _again(trial)})
        if dead:
            _fail(study, trial.number)


def _one(
    study: optuna.Study,
    ranges: Ranges,
    wanted: int,
    attempt: Try,
    pace: Pace,
    on_trial: Callable[[FrozenTrial], None],
) -> None:
    """Take the next trial, if it is ours to do, and do it."""
    trial = study.ask()
    try:
        with beating(trial, pace):
            reason = _superfluous(study, trial, wanted)
            if reason is not None:
                trial.set_user_attr(DROPPED, reason)
                study.tell(trial, state=TrialState.FAIL)
                return
            values = {
                name: trial.suggest_float(name, each.low, each.high, step=each.step)
                for name, each in ranges.items()
            }
            ended = attempt(trial, values)
            for name, value in ended.attributes.items():
                trial.set_user_attr(name, value)
            for name, excess in ended.constraints.items():
                trial.set_constraint(name, excess)
    except BaseException:  # also Ctrl-C: nobody has to wait for signs of life
        with contextlib.suppress(Exception):
            _give_up(study, trial.number)
        raise
    try:
        if ended.values is None:
            done = study.tell(trial, state=TrialState.PRUNED)
        else:
            done = study.tell(trial, list(ended.values))
    except (UpdateFinishedTrialError, ValueError):
        if study.get_trials(deepcopy=False)[trial.number].state is TrialState.FAIL:
            return  # others took us for dead, and do it again
        raise
    on_trial(done)


def _superfluous(study: optuna.Study, trial: optuna.Trial, wanted: int) -> str | None:
    """Return why a trial is not to be done; None if it is."""
    before = study.get_trials(deepcopy=False)[: trial.number]
    job = trial.user_attrs.get(JOB)
    # One that has failed counts here, too: it is done again under another name.
    taken = [each for each in before if DROPPED not in each.user_attrs]
    if job is not None and any(each.user_attrs.get(JOB) == job for each in taken):
        return "another trial does it"
    return "there are enough" if len(counted(before)) >= wanted else None


def _give_up(study: optuna.Study, number: int) -> None:
    trials = study.get_trials(deepcopy=False)
    trial = trials[number]
    if trial.state is TrialState.RUNNING:
        if _may_be_tried(trials, trial):
            _queue(study, trial.params, _as_before(trial) | {JOB: _again(trial)})
        _fail(study, number)


def _queue(study: optuna.Study, values: Mapping[str, float], attributes: Mapping[str, Any]) -> None:
    known = {name: value for name, value in attributes.items() if value is not None}
    study.enqueue_trial(dict(values), user_attrs=known)


def _fail(study: optuna.Study, number: int) -> None:
    with contextlib.suppress(UpdateFinishedTrialError, ValueError):  # by another, in this moment
        study.tell(number, state=TrialState.FAIL)


def _again(trial: FrozenTrial) -> str:
    return f"again {trial.number}"


def _as_before(trial: FrozenTrial) -> dict[str, Any]:
    """Return the attributes that a trial had when it was put into the queue."""
    return {name: trial.user_attrs.get(name) for name in (NAME, UNIFORM)}


def _is_queued(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> bool:
    """Tell whether somebody has put a trial into the queue again."""
    return any(
        each.user_attrs.get(JOB) == _again(trial) and DROPPED not in each.user_attrs
        for each in trials
    )


def _may_be_tried(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> bool:
    """Tell whether a trial may be tried once more."""
    tries = 1
    while tries < MOST_TRIES and (before := AGAIN.fullmatch(str(trial.user_attrs.get(JOB)))):
        earlier = int(before[1])
        if earlier >= trial.number:  # nobody's of ours: the storage may be from anybody
            return False
        trial = trials[earlier]
        tries += 1
    return tries < MOST_TRIES
