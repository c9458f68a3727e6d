"""Writes docs/demo.svg, what `chatvec demo` prints on a terminal: `python docs/recording.py`."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
from contextlib import suppress
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parent / "demo.svg"
COLUMNS = 120
COMMAND = "chatvec demo"


def printed() -> str:
    """Return what the demo prints now on a terminal, with its colours."""
    root = Path(__file__).resolve().parent.parent
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, COLUMNS, 0, 0))
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.Popen(
            [sys.executable, "-m", "chatvec_method", *COMMAND.split()[1:]],
            env={**os.environ, "PYTHONPATH": str(root), "TERM": "xterm-256color"},
            cwd=folder,
            stdout=theirs,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        sent = b""
        with suppress(OSError):  # how Linux tells that the other end is closed
            while part := os.read(ours, 1 << 16):
                sent += part
        if run.wait() != 0:
            raise SystemExit("chatvec demo failed.")
    return sent.decode("utf-8").replace("\r\n", "\n")


def svg(text: str) -> str:
    """Return a picture of a terminal that has this on it."""
    screen = Console(width=COLUMNS, record=True, file=StringIO(), force_terminal=True)
    screen.print(f"$ {COMMAND}", style="bold")
    screen.print(Text.from_ansi(text), soft_wrap=True)
    return screen.export_svg(title=COMMAND, unique_id="demo")


if __name__ == "__main__":
    PICTURE.write_text(svg(printed()), encoding="utf-8")
