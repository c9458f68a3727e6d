"""How far a search is: a bar on a terminal, and a line for every trial of this worker."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from chatvec_method.searching.search import News


@contextmanager
def told() -> Iterator[Callable[[News], None]]:
    """Yield what tells of a search on stderr."""
    from rich import progress
    from rich.console import Console

    out = Console(file=sys.stderr, highlight=False, markup=False)
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[left]}"),
    )
    begun: tuple[float, int] | None = None
    with progress.Progress(
        *columns, console=out, transient=True, disable=not out.is_terminal
    ) as drawn:
        bar = drawn.add_task("Loading", total=None, left="")

        def show(news: News) -> None:
            nonlocal begun
            if news.trial is not None:
                drawn.console.print(line(news.trial, news.objectives), soft_wrap=True)
            if begun is None:
                begun = (time.monotonic(), news.done)
            doing, done, total, left = "Trials", news.done, news.wanted, ""
            if news.reported is not None:
                doing, (done, total) = "Reporting half", news.reported
            elif news.others:
                left = f"waiting for {news.others} at other workers"
            elif news.done > begun[1]:
                seconds = (time.monotonic() - begun[0]) / (news.done - begun[1])
                rest = timedelta(seconds=round(seconds * max(0, news.wanted - news.done)))
                left = f"about {rest} left"
            drawn.update(bar, description=doing, completed=done, total=total, left=left)

        yield show


def line(trial: FrozenTrial, objectives: Sequence[str]) -> str:
    """Return what became of a trial."""
    attributes = trial.user_attrs
    name = f" ({attributes['name']})" if "name" in attributes else ""
    seconds = f"{attributes.get('seconds', 0):.1f} s"
    if trial.values is None:
        return (
            f"trial {trial.number}{name}: ended after {attributes['prompts']} prompts, on which "
            f"trial {attributes['beaten by']} is better; {seconds}"
        )
    named = zip(objectives, trial.values, strict=True)
    values = ", ".join(f"{name} {value:.3f}" for name, value in named)
    return f"trial {trial.number}{name}: {values}; {seconds}"
