"""What is left where nobody has foreseen an error: one line, and the way to see the rest."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from chatvec_method.errors import LONGEST_REASON, ChatVecError, first_line
from chatvec_method.plain_text import cut

DEBUG = "CHATVEC_DEBUG"
"""The environment variable with which an error keeps its traceback."""


@contextmanager
def in_one_line() -> Iterator[None]:
    """Turn an error that nobody has foreseen into one line that names the file it is about."""
    try:
        yield
    except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
        raise
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        if isinstance(error, OSError) and error.strerror:  # what the system says needs no report
            raise ChatVecError(
                f"{cut(_file(error), LONGEST_REASON)}: {error.strerror}.",
                "Look at that file, its folder and its disk, or write another name.",
                code="file-error",
            ) from error
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise ChatVecError(
            f"{_file(error)}: {reason}.",
            f"`{DEBUG}=1` before the command shows where that happened; please report it.",
            code="unforeseen",
        ) from error


def _file(error: BaseException) -> str:
    """Return the file that an error names, else the files and folders on the command line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.filename is not None:
            return str(cause.filename)
        cause = cause.__cause__ or cause.__context__
    written = [word for word in sys.argv[1:] if not word.startswith("-")]
    return ", ".join(word for word in written if _exists(word)) or "chatvec"


def _exists(word: str) -> bool:
    try:
        return Path(word).exists()
    except (OSError, ValueError):  # no name that a file could have
        return False
