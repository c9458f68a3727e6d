"""Trials in several processes, which may stop, or never come back."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait

from tests.fuzz.trials import Outcome, trial

SILENCE_SECONDS = 60.0
"""After so long without a word from a process, its trial counts as one without an end."""
Trial = tuple[str, int]


def run(trials: list[Trial], seed: int, jobs: int) -> Iterator[Outcome]:
    """Yield what became of each trial, of several processes, one of which may never come back."""
    context = multiprocessing.get_context("spawn")
    shares = [trials[i::jobs] for i in range(jobs)]
    running: dict[Connection, tuple[multiprocessing.process.BaseProcess, list[Trial]]] = {}

    def start(share: list[Trial]) -> None:
        if share:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(theirs, share, seed), daemon=False)
            process.start()
            theirs.close()
            running[ours] = (process, share)

    for share in shares:
        start(share)
    while running:
        ready = wait(list(running), SILENCE_SECONDS)
        for connection in ready or list(running):
            assert isinstance(connection, Connection)
            process, share = running[connection]
            try:
                outcome = connection.recv() if ready else None
            except EOFError:
                outcome = None
            if outcome is None:
                process.kill()
                process.join()
                del running[connection]
                if share:
                    kind, number = share[0]
                    yield Outcome(f"{kind} {number}", "hung", 0.0, 0, "no end, or the process's")
                    start(share[1:])
                continue
            yield outcome
            share.pop(0)
            if not share:
                process.join()
                del running[connection]


def _work(connection: Connection, trials: list[Trial], seed: int) -> None:
    for kind, number in trials:
        connection.send(trial(kind, number, seed))
