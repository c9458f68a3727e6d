"""What is to be put right if this process is killed, noted where the one that started it reads it.

The system ends a process at once where memory runs out, or where a mapped file is cut short: no
code of the process's own runs any more. `cli.outliving` keeps another beside each command. In a
Python program nobody reads the notes, and none are made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_notebooks: list[int] = []


@dataclass
class Aftermath:
    """What a process noted."""

    targets: list[Path] = field(default_factory=list)
    """Folders that it was writing under a hidden name."""
    folders: list[Path] = field(default_factory=list)
    """Folders that it made above them."""
    sizes: dict[Path, int] = field(default_factory=dict)
    """Bytes of the files that it has mapped."""

    def cut_short(self) -> Path | None:
        """Return a file that has been cut short, or is gone, since it was mapped."""
        return next((file for file, size in self.sizes.items() if _size(file) < size), None)


def keep(descriptor: int) -> None:
    """Write notes to a file from now on."""
    _notebooks[:] = [descriptor]


def note_target(target: Path) -> None:
    """Note a folder that will be written under a hidden name."""
    _note({"target": str(target.absolute())})


def note_folder(folder: Path) -> None:
    """Note a folder that is being made, of which nothing is to be left if it stays empty."""
    _note({"folder": str(folder.absolute())})


def note_mapped(file: Path) -> None:
    """Note a file that is being mapped."""
    _note({"mapped": str(file.absolute()), "bytes": _size(file)})


def _note(said: Mapping[str, object]) -> None:
    for descriptor in _notebooks:
        os.write(descriptor, json.dumps(said).encode() + b"\n")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def read(descriptor: int) -> Aftermath:
    """Return all that was noted in a file."""
    aftermath = Aftermath()
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(os.dup(descriptor), encoding="ascii") as lines:
        for line in lines:
            said = json.loads(line)
            if "target" in said:
                aftermath.targets.append(Path(said["target"]))
            elif "folder" in said:
                aftermath.folders.append(Path(said["folder"]))
            else:
                aftermath.sizes[Path(said["mapped"])] = said["bytes"]
    return aftermath
