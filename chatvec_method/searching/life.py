"""Signs of life of the workers of a search, and whose trials are to be done again.

optuna has heartbeats in databases alone, not in journals and not through its proxy. These are in
all of its storages the same: while a worker is at a trial, it counts up a number that belongs to
the trial. Whoever sees the same number for too long, by his own clock, takes the worker for dead;
no two clocks are compared. On the same machine nobody has to wait: there the process itself tells.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import psutil

BEAT, WORKER = "beat", "worker"
"""What a trial has among its attributes: the number, and whose it is."""


@dataclass(frozen=True)
class Pace:
    """How often there are signs of life, and how long one waits for them."""

    beat: float = 15.0
    """Seconds between two."""
    patience: float = 180.0
    """Seconds without any after which a worker is taken for dead. File systems of a network may
    show a change as late as after a minute."""
    look: float = 1.0
    """Seconds between two looks at what others do, while there is nothing to do oneself."""


def whose() -> dict[str, Any]:
    """Return what tells this process from every other one, here and on other machines."""
    process = psutil.Process()
    return {"home": _home(), "pid": process.pid, "born": process.create_time()}


def _home() -> str | None:
    """Return what processes have in common that can see each other; None where that is not known.

    That is the machine since it was started, and the container.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 (a name, and no path)
    except OSError:
        return None


def is_gone(worker: Any) -> bool:
    """Tell whether a worker is known to be dead: its process is not there, where it would be."""
    try:
        home, pid, born = worker["home"], int(worker["pid"]), float(worker["born"])
    except (KeyError, TypeError, ValueError):
        return False
    if home is None or home != _home():
        return False
    try:
        return bool(psutil.Process(pid).create_time() != born)
    except psutil.NoSuchProcess:
        return True


@contextmanager
def beating(trial: optuna.Trial, pace: Pace) -> Iterator[None]:
    """Give signs of life for a trial meanwhile."""
    trial.set_user_attr(WORKER, whose())
    over = threading.Event()

    def beat() -> None:
        count = 0
        while not over.wait(pace.beat):
            count += 1
            # Where the storage is away for a while, the next one may reach it; and where others
            # have given the trial up, whoever is at it finds that out when it is told.
            with contextlib.suppress(Exception):
                trial.set_user_attr(BEAT, count)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Watch:
    """Who of the others is still at work."""

    def __init__(self, pace: Pace, clock: Callable[[], float] = time.monotonic) -> None:
        self._pace, self._clock = pace, clock
        self._seen: dict[int, tuple[Any, float]] = {}

    def is_dead(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Tell whether a running trial's worker is dead, by this look and those before."""
        if is_gone(trial.user_attrs.get(WORKER)):
            return True
        now, beat = self._clock(), trial.user_attrs.get(BEAT)
        last, since = self._seen.get(trial.number, (None, None))
        if since is None or last != beat:
            self._seen[trial.number] = (beat, now)
            return False
        return bool(now - since > self._pace.patience)
