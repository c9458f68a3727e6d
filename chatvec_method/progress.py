"""How far a piece of work is, and bars that show it: on a terminal and in a notebook."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich import progress as rich_progress
    from rich.console import Console

SHOWN = {
    "read": "Reading",
    "merge": "Merging",
    "recompute": "Computing",
    "verify": "Verifying",
}
"""The phases that have a bar, in bytes; the others are quickly done."""
SECONDS_BETWEEN_PICTURES = 0.2
"""In a notebook, where each goes to the browser."""
NOTEBOOK_WIDTH = 100
"""Characters; a notebook does not say how wide it is."""
HTML = '<pre style="white-space:pre;line-height:normal;font-family:monospace">{code}</pre>'


@dataclass(frozen=True)
class Progress:
    """How far a piece of work is."""

    phase: Literal["fetch", "read", "merge", "finish", "recompute", "verify"]
    done: int
    total: int | None
    """In models for `fetch`, which downloads those that are on the hub; in bytes of the models for
    `read`, and of the output for `merge`, `recompute` and `verify`, None where they are not known;
    1 for `finish`."""


@contextmanager
def bars(*, quiet: bool = False, transient: bool = False) -> Iterator[Callable[[Progress], None]]:
    """Yield what shows how far some work is: a bar for each phase, with bytes and time left.

    Shows nothing where stderr is neither a terminal nor a notebook's.

    Args:
        quiet: Whether to show nothing anyway.
        transient: Whether the bars go away at the end.
    """
    from rich import progress
    from rich.console import Console

    out = Console(file=sys.stderr)
    columns = (
        progress.TextColumn("{task.description:<9}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    if quiet or not (out.is_terminal or out.is_jupyter):
        yield lambda _: None
    elif out.is_jupyter:
        drawn = progress.Progress(*columns, auto_refresh=False)
        picture = _Picture(drawn)
        yield _shower(drawn, picture.update)
        picture.close(remove=transient)
    else:
        with progress.Progress(
            *columns,
            console=out,
            transient=transient,
            redirect_stdout=False,  # these are the process's, and several threads may have bars
            redirect_stderr=False,
        ) as drawn:
            yield _shower(drawn, lambda: None)


def _shower(drawn: rich_progress.Progress, after: Callable[[], None]) -> Callable[[Progress], None]:
    """Return what puts the state of some work into bars."""
    tasks: dict[str, rich_progress.TaskID] = {}

    def show(state: Progress) -> None:
        if state.phase not in SHOWN:
            return
        if state.phase not in tasks:
            tasks[state.phase] = drawn.add_task(SHOWN[state.phase])
        drawn.update(tasks[state.phase], completed=state.done, total=state.total)
        after()

    return show


class _Picture:
    """Bars in a notebook: one output of the cell, replaced again and again.

    rich would need ipywidgets for that, and leaves the last picture undrawn.
    """

    def __init__(self, drawn: rich_progress.Progress) -> None:
        self._drawn = drawn
        self._id = f"chatvec-{id(self)}-{time.monotonic_ns()}"
        self._latest = 0.0

    def update(self) -> None:
        """Draw the bars, unless that was done just now."""
        if time.monotonic() - self._latest >= SECONDS_BETWEEN_PICTURES:
            self._draw()

    def close(self, *, remove: bool) -> None:
        """Draw the bars for the last time, or nothing in their place."""
        if self._latest:
            self._draw(remove=remove)

    def _draw(self, *, remove: bool = False) -> None:
        from IPython.display import display

        page = _page()
        if not remove:
            page.print(self._drawn.get_renderable())
        data = {
            "text/html": page.export_html(inline_styles=True, code_format=HTML, clear=False),
            "text/plain": page.export_text(),
        }
        display(data, raw=True, display_id=self._id, update=bool(self._latest))
        self._latest = time.monotonic()


def _page() -> Console:
    from rich.console import Console

    return Console(
        file=io.StringIO(),
        record=True,
        width=NOTEBOOK_WIDTH,
        force_terminal=True,
        force_jupyter=False,
        color_system="truecolor",
    )
