"""What all commands print with: tables and colours on a terminal, plain text in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH = 1000
"""In a pipe, lines are as long as they are: `grep` finds them whole."""


def console(stderr: bool = False) -> Console:
    """Return where to print: rich on a terminal, plain text anywhere else."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


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
