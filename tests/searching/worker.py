"""A worker of a made-up search, as a process of its own: `python worker.py STORAGE WANTED LOG`.

Every trial is a line in LOG when it begins, one when it is measured, and one when it is done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import optuna
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection

from chatvec_method.searching.life import Pace
from chatvec_method.searching.storage import open_storage, open_study
from chatvec_method.searching.trials import Ended, Start, work

STUDY = "made up"
RANGES = {"a": FloatDistribution(0, 1), "b": FloatDistribution(0, 1)}
STARTS = [Start(f"start {i}", {"a": i / 4, "b": 1 - i / 4}) for i in range(5)]
SECONDS = 0.15
"""Of a trial."""


def study_in(where: str) -> optuna.Study:
    """Return the study in a storage."""
    return open_study(
        open_storage(where),
        STUDY,
        [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE],
        ["up", "down"],
        {"made": "up"},
        optuna.samplers.RandomSampler(),
    )


def main(where: str, wanted: int, log: Path) -> None:
    """Do trials until there are enough."""

    def note(what: str, number: int) -> None:
        with log.open("a") as file:
            file.write(f"{what} {number}\n")

    def attempt(trial: optuna.Trial, values: Mapping[str, float]) -> Ended:
        note("begun", trial.number)
        time.sleep(SECONDS)
        note("measured", trial.number)
        early = trial.number % 5 == 4
        return Ended(None if early else list(values.values()), {}, {"seconds": SECONDS})

    work(
        study_in(where),
        RANGES,
        wanted,
        lambda _: STARTS,
        attempt,
        pace=Pace(beat=5, patience=60, look=0.05),
        on_trial=lambda trial: note("done", trial.number),
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
