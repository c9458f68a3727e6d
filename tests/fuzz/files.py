"""Which files of a changed folder may be read, to change them once more."""

from __future__ import annotations

from pathlib import Path

MOST_BYTES = 1 << 24


def is_readable(file: Path) -> bool:
    """Tell whether something is a file, and no pipe that an earlier change left, nor a huge one."""
    return file.is_file() and file.stat().st_size < MOST_BYTES
