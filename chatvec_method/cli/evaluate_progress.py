"""How far an evaluation is, and how long it will take, on one line of a terminal."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chatvec_method.evaluation.sweep import Step

DOING = {
    "generate_until": "answers",
    "loglikelihood": "choices",
    "loglikelihood_rolling": "reads",
    "judge": "is judged",
}


class TimeLeft:
    """Estimates the time that is left from that which new responses took, kind by kind."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._new: defaultdict[str, int] = defaultdict(int)
        self._totals: dict[str, int] = {}
        self._last: tuple[int, str, int] | None = None
        self._since = clock()

    def after(self, step: Step) -> float | None:
        """Return the seconds that are left after a step, None where nothing is known yet.

        A point is taken to want as much as the one before it; what was kept takes no time.
        """
        now = self._clock()
        if self._last is not None and self._last[:2] == (step.number, step.kind):
            new = step.done - self._last[2]
            if new > 0:
                self._seconds[step.kind] += now - self._since
                self._new[step.kind] += new
        self._last, self._since = (step.number, step.kind, step.done), now
        self._totals[step.kind] = max(step.total, self._totals.get(step.kind, 0))
        if not self._new:
            return None
        left = 0.0
        for kind, total in self._totals.items():
            requests = (step.points - step.number) * total
            if kind == step.kind:
                requests += step.total - step.done
            if self._new[kind]:
                left += requests * self._seconds[kind] / self._new[kind]
        return left


@contextmanager
def told() -> Iterator[Callable[[Step], None]]:
    """Yield what shows how far an evaluation is; nothing where stderr is no terminal."""
    from rich import progress
    from rich.console import Console

    out = Console(file=sys.stderr)
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[left]}"),
    )
    with progress.Progress(
        *columns, console=out, transient=True, disable=not out.is_terminal
    ) as drawn:
        bar = drawn.add_task("Loading", total=None, left="")
        estimate = TimeLeft()

        def show(step: Step) -> None:
            left = estimate.after(step)
            drawn.update(
                bar,
                description=f"{step.point.label} ({step.number} of {step.points}) "
                f"{DOING.get(step.kind, step.kind)}",
                completed=step.done,
                total=step.total,
                left="" if left is None else f"about {timedelta(seconds=round(left))} left",
            )

        yield show
