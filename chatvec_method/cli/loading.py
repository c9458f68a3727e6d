"""What a command says while it loads the libraries that it needs, which takes seconds."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CLEAR_LINE = "\r\x1b[K"


@contextmanager
def loading(what: str, *, quiet: bool = False) -> Iterator[None]:
    """Say on a terminal what is being loaded, until it is.

    Libraries make a million objects that stay. A fifth of the time would go to the garbage
    collector, which looks through all of them again and again and finds nothing.

    Args:
        what: The libraries, in the words of a person.
        quiet: Whether to say nothing.
    """
    shown = not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    if shown:
        print(f"Loading {what} ...", end="", file=sys.stderr, flush=True)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        if shown:
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)
