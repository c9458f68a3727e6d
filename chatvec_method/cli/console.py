"""What all commands print with: tables and colours on a terminal, plain text in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from chatvec_method.plain_text import plain, plain_json

if TYPE_CHECKING:
    from rich.console import (
        Console,
        ConsoleOptions,
        ConsoleRenderable,
        RenderHook,
        RenderResult,
    )
    from rich.table import Table

PIPE_WIDTH = 1000
"""In a pipe, lines are as long as they are: `grep` finds them whole."""


def console(stderr: bool = False) -> Console:
    """Return where to print: rich on a terminal, plain text anywhere else."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    made = Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)
    made.push_render_hook(_plain_hook())
    return made


def json_text(data: Any) -> str:
    """Return data as JSON for people and programs, in which nothing acts on a terminal."""
    return plain_json(json.dumps(data, indent=2, ensure_ascii=False))


def as_printed(text: str) -> str:
    """Return a file's text as it is, or where a terminal shows it, so that nothing in it acts."""
    return plain(text) if sys.stdout.isatty() else text


@cache
def _plain_hook() -> RenderHook:
    """Return what keeps the words of strangers from acting on the terminal; styles are ours."""
    from rich.console import RenderHook
    from rich.segment import Segment

    class Plain(RenderHook):
        def process_renderables(
            self, renderables: list[ConsoleRenderable]
        ) -> list[ConsoleRenderable]:
            return [Plainly(each) for each in renderables]

    class Plainly:
        def __init__(self, renderable: ConsoleRenderable) -> None:
            self.renderable = renderable

        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            for segment in console.render(self.renderable, options):
                if segment.control:
                    yield segment
                else:
                    yield Segment(plain(segment.text), segment.style)

    return Plain()


def table(
    title: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Sequence[int] = (),
    widths: Sequence[int] | None = None,
) -> Table:
    """Return a table; `right` are the columns of numbers, `widths` the columns' if they are set."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD if sys.stdout.isatty() else None,
        show_edge=False,
        pad_edge=False,
        header_style="dim" if sys.stdout.isatty() else "",
    )
    for i, name in enumerate(header):
        made.add_column(
            name,
            justify="right" if i in right else "left",
            overflow="fold",
            width=widths[i] if widths else None,
        )
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def quiet_libraries() -> None:
    """Leave of the libraries' messages only progress bars, and these to a terminal."""
    import huggingface_hub.utils
    import transformers.utils

    huggingface_hub.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
