"""Trials in several processes, which may stop, or never come back."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait

import psutil

from tests.fuzz.trials import Outcome, trial

LONGEST_SECONDS = 60.0
"""Processor time after which a trial counts as one without an end."""
LONGEST_WAIT_SECONDS = 300.0
"""After which it counts as one that waits for what never comes, from a pipe for one."""
LOOK_SECONDS = 5.0
Trial = tuple[str, int]
Running = tuple[multiprocessing.process.BaseProcess, list[Trial], float, float]
"""A process, what it has still to do, and its processor time and the clock's when it last had done
something."""


def run(trials: list[Trial], seed: int, jobs: int) -> Iterator[Outcome]:
    """Yield what became of each trial, of several processes, one of which may never come back."""
    context = multiprocessing.get_context("spawn")
    shares = [trials[i::jobs] for i in range(jobs)]
    running: dict[Connection, Running] = {}

    def start(share: list[Trial]) -> None:
        if share:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(theirs, share, seed), daemon=False)
            process.start()
            theirs.close()
            running[ours] = (process, share, 0.0, time.monotonic())

    for share in shares:
        start(share)

    def give_up(connection: Connection) -> Outcome | None:
        process, share, _, _ = running.pop(connection)
        process.kill()
        process.join()
        if not share:
            return None
        kind, number = share[0]
        start(share[1:])
        return Outcome(f"{kind} {number}", "hung", 0.0, 0, "no end, or the process's")

    while running:
        for connection in wait(list(running), LOOK_SECONDS):
            assert isinstance(connection, Connection)
            process, share, _, _ = running[connection]
            try:
                outcome = connection.recv()
            except EOFError:
                lost = give_up(connection)
                if lost is not None:
                    yield lost
                continue
            share.pop(0)
            running[connection] = (process, share, _seconds(process), time.monotonic())
            yield outcome
        for connection, (process, _, before, since) in list(running.items()):
            waits = time.monotonic() - since > LONGEST_WAIT_SECONDS
            if waits or _seconds(process) - before > LONGEST_SECONDS:
                lost = give_up(connection)
                if lost is not None:
                    yield lost


def _seconds(process: multiprocessing.process.BaseProcess) -> float:
    """Return the processor time that a process took so far."""
    try:
        times = psutil.Process(process.pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _work(connection: Connection, trials: list[Trial], seed: int) -> None:
    for kind, number in trials:
        connection.send(trial(kind, number, seed))
