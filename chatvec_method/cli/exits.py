"""How a command ends: the exit codes, the same in all commands, warnings, errors for `--json`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import click

from chatvec_method.errors import ChatVecError, ChatVecWarning

ERROR, USAGE, WARNINGS, DIFFERENT, INTERRUPTED = 1, 2, 3, 4, 130
EXIT_CODES = {
    0: "Done; there may be warnings and advice.",
    ERROR: "It could not be done, or the recipe has errors; the message says what is at fault.",
    USAGE: "The command line cannot be read: a word is missing, unknown or of the wrong kind.",
    WARNINGS: "Only of `check --strict`: the recipe has warnings, and no errors.",
    DIFFERENT: "Only of `verify`: OUT is not what was written, or not what its recipe makes.",
    INTERRUPTED: "Ctrl-C. `chatvec chat` takes the first one as the end of an answer.",
}


@contextmanager
def told(arguments: Sequence[str]) -> Iterator[None]:
    """Let an error end the command with its exit code, and under `--json` be JSON as well.

    A `ChatVecWarning` is a line on stderr.

    Args:
        arguments: What was written behind `chatvec`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", ChatVecWarning)
            warnings.showwarning = _show_warning
            yield
    except click.ClickException as error:
        if "--json" in arguments:
            click.echo(json.dumps({"error": as_data(error)}, indent=2, ensure_ascii=False))
        raise
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of ours as a sentence, and any other as Python does."""
    if issubclass(category, ChatVecWarning):
        click.echo(f"Warning: {message}", err=True)
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        click.echo(text, file=file, err=True, nl=False)


def as_data(error: click.ClickException) -> dict[str, Any]:
    """Return an error as `--json` has it: what kind, what is wrong, what to do instead."""
    if isinstance(error, ChatVecError):
        return {"code": error.code, "problem": error.problem, "fix": error.fix}
    kind = "usage" if isinstance(error, click.UsageError) else "error"
    return {"code": kind, "problem": error.format_message(), "fix": None}
