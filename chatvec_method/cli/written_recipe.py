"""A recipe that a command makes: printed, shown as a diff, or written by us and as UTF-8.

A shell's `> recipe.yaml` empties the recipe before a command reads it, and on Windows writes it in
another encoding.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chatvec_method.cli.console import as_printed
from chatvec_method.cli.writing import write

if TYPE_CHECKING:
    from chatvec_method.recipe.file import Recipe


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say where its recipe goes."""
    command = click.option(
        "--diff", "as_diff", is_flag=True, help="Show what changes in the recipe, not all of it."
    )(command)
    return click.option(
        "-o",
        "--output",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Write the recipe there, which may be RECIPE itself, and do not print it.",
    )(command)


def deliver(before: Recipe, after: str, output: Path | None, *, as_diff: bool) -> None:
    """Print a changed recipe or how it differs, or write it, or both of the latter.

    Raises:
        ChatVecError: It cannot be written.
    """
    if as_diff:
        names = (f"{before.name} (before)", f"{output or before.name} (after)")
        old, new = before.text.splitlines(), after.splitlines()
        for line in difflib.unified_diff(old, new, *names, lineterm=""):
            colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
            click.secho(as_printed(line), fg=colour)
    elif output is None:
        click.echo(as_printed(after), nl=False)
    if output is not None:
        write(output, after)
