"""Writes docs/demo.svg, what `chatvec demo` prints on a terminal: `python docs/recording.py`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parent / "demo.svg"
COLUMNS = 100
COMMAND = "chatvec demo"


def printed() -> str:
    """Return what the demo prints now, with its colours."""
    settings = {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "PYTHONIOENCODING": "utf-8"}
    root = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(
            [sys.executable, "-m", "chatvec_method", *COMMAND.split()[1:]],
            env={**os.environ, "PYTHONPATH": str(root), **settings},
            cwd=folder,
            check=True,
            capture_output=True,
            encoding="utf-8",
        )
    return run.stdout


def svg(text: str) -> str:
    """Return a picture of a terminal that has this on it."""
    screen = Console(width=COLUMNS, record=True, file=StringIO(), force_terminal=True)
    screen.print(f"$ {COMMAND}", style="bold")
    screen.print(Text.from_ansi(text), soft_wrap=True)
    return screen.export_svg(title=COMMAND, unique_id="demo")


if __name__ == "__main__":
    PICTURE.write_text(svg(printed()), encoding="utf-8")
