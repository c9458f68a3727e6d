"""How far some work is, and what shows it: bars on a terminal or in a notebook, else lines."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from typing import TextIO

    from rich import progress as rich_progress
    from rich.console import Console

SHOWN = {
    "fetch": "Fetching",
    "read": "Reading",
    "merge": "Merging",
    "recompute": "Computing",
    "verify": "Verifying",
}
"""The phases that have a bar, in bytes; the others are quickly done."""
SECONDS_BETWEEN_LINES = 1.0
"""Where there is no terminal: what takes no longer is told by the line with which it begins."""
STEP = 10
"""Percent: so often such lines tell how far a phase is."""
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
    """In bytes: for `fetch` of what has to be downloaded, 0 where all is here; for `read` of the
    models, and for `merge`, `recompute` and `verify` of the output; None where they are not known.
    1 for `finish`."""
    model: str = ""
    """For `fetch`: whose files are coming."""


@contextmanager
def bars(*, quiet: bool = False, transient: bool = False) -> Iterator[Callable[[Progress], None]]:
    """Yield what shows how far some work is: a bar for each phase, with bytes and time left.

    Where stderr is neither a terminal nor a notebook's, there is a line for every phase, for every
    model that is fetched, and for every tenth of what takes long.

    Args:
        quiet: Whether to show nothing.
        transient: Whether the bars go away at the end. Then a phase has no line of its own.
    """
    from rich import progress
    from rich.console import Console
    from rich.table import Column

    # Console.is_terminal would be true of a pipe, too, where FORCE_COLOR is set.
    out = Console(file=sys.stderr)
    whole = Column(no_wrap=True)
    columns = (
        progress.TextColumn("{task.description:<9}", table_column=whole),
        progress.BarColumn(bar_width=None, table_column=Column(ratio=1, max_width=40)),
        progress.DownloadColumn(table_column=whole),
        progress.TransferSpeedColumn(table_column=whole),
        progress.TimeRemainingColumn(table_column=whole),
    )
    if quiet:
        yield lambda _: None
    elif not (sys.stderr.isatty() or out.is_jupyter):
        yield _Lines(sys.stderr, begin=not transient).show
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
            expand=True,
            redirect_stdout=False,  # these are the process's, and several threads may have bars
            redirect_stderr=False,
        ) as drawn:
            yield _shower(drawn, lambda: None)


@contextmanager
def status(*, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Yield what tells in one line of a terminal what is being done; it goes away at the end.

    Args:
        quiet: Whether to show nothing.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(
        console=Console(file=sys.stderr),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as line:

        def say(what: str) -> None:
            line.update(Text(what, "dim", no_wrap=True, overflow="ellipsis"), refresh=True)

        yield say


def _shower(drawn: rich_progress.Progress, after: Callable[[], None]) -> Callable[[Progress], None]:
    """Return what puts the state of some work into bars."""
    tasks: dict[str, rich_progress.TaskID] = {}

    def show(state: Progress) -> None:
        if state.phase not in SHOWN or state.total == 0:
            return
        if state.phase not in tasks:
            tasks[state.phase] = drawn.add_task(SHOWN[state.phase], total=state.total)
        drawn.update(tasks[state.phase], completed=state.done, total=state.total)
        after()

    return show


class _Lines:
    """Lines in a file, for `nohup`, a pipe or a CI's log."""

    def __init__(self, stream: TextIO, *, begin: bool) -> None:
        self._stream = stream
        self._begin = begin
        self._phase = ""
        self._model = ""
        self._percent = 0
        self._latest = time.monotonic()

    def show(self, state: Progress) -> None:
        """Write a line, if something has begun, or a tenth is done since the latest."""
        if state.phase not in SHOWN or state.total == 0:
            return
        percent = 100 * state.done // state.total if state.total else 0
        if state.phase != self._phase:
            self._phase, self._percent = state.phase, 0
            self._latest = time.monotonic()
            if self._begin:
                self._write(self._beginning(state))
        elif state.model != self._model:
            self._write(self._beginning(state))
        elif percent - self._percent >= STEP:
            self._percent = percent - percent % STEP
            if time.monotonic() - self._latest >= SECONDS_BETWEEN_LINES:
                self._write(f"{SHOWN[state.phase]}: {self._percent} %")
        self._model = state.model

    def _beginning(self, state: Progress) -> str:
        """Return `Fetching owner/name (0 B of 65 GB)` or `Merging (21 GB)`."""
        from rich.filesize import decimal

        words = [SHOWN[state.phase], state.model]
        if state.total is not None:
            done = f"{decimal(state.done)} of " if state.model else ""
            words.append(f"({done}{decimal(state.total)})")
        return " ".join(filter(None, words))

    def _write(self, line: str) -> None:
        self._latest = time.monotonic()
        print(line, file=self._stream, flush=True)


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
