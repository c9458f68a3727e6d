"""`chatvec_hashes.json`: what was written, told beside it, for whoever reads it later.

It has the hash of every tensor, of the header of every safetensors file, in which there is nothing
else, and of every other file but the card, which is for people to edit, and itself. A copy or an
upload takes it along.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatvec_method.errors import DIFFERS, ChatVecError, first_line
from chatvec_method.finishing.files import FileChange, as_bytes
from chatvec_method.hashes import hash_of, hash_of_file, rule

HASHES_FILE, CARD_FILE = "chatvec_hashes.json", "README.md"
WEIGHTS_FILES = (".safetensors", ".bin")
HIDDEN = re.compile(r"(^|/)\.")
"""In the names of files that a download or a version control leaves in a folder."""
LOADED_FILES = (".json", ".jinja", ".model", ".tiktoken", ".txt", ".py")
"""The endings of files besides weights that a library may load as a part of a model."""
LENGTH_BYTES = 8
"""At the beginning of a safetensors file: how long its header is."""
LARGEST_HEADER_BYTES = 100_000_000
"""As safetensors has it."""
LARGEST_BYTES = 1 << 26
"""Of the file; one of 100,000 tensors has a tenth of that."""


@dataclass(frozen=True)
class Hashes:
    """Of what was written into an output, each by its name."""

    tensors: Mapping[str, str]
    files: Mapping[str, str]

    def with_changes(self, changes: Iterable[FileChange]) -> Hashes:
        """Return what they are after files have been written."""
        files = dict(self.files)
        for change in changes:
            files.pop(change.name, None)
            if change.after is not None and change.name not in (HASHES_FILE, CARD_FILE):
                files[change.name] = hash_of(as_bytes(change.after))
        return Hashes(self.tensors, dict(sorted(files.items())))

    def text(self) -> str:
        """Return what the file says."""
        content = {"hash": rule(), "tensors": dict(self.tensors), "files": dict(self.files)}
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def hashed_files(out: Path) -> dict[str, Path]:
    """Return an output's files by name: not its card, hashes and hidden files.

    Safetensors in folders of their own are none of the output's.
    """
    files = {f.relative_to(out).as_posix(): f for f in sorted(out.rglob("*")) if f.is_file()}
    return {
        name: file
        for name, file in files.items()
        if (file.parent == out or file.suffix != ".safetensors")
        and name not in (HASHES_FILE, CARD_FILE)
        and not HIDDEN.search(name)
    }


def hash_of_output_file(file: Path) -> str:
    """Return the hash of a file: of a safetensors file that of its header.

    Its tensors have their own. Of a pickle it is that of the whole: between its tensors is what
    torch reads before it has one.
    """
    if file.suffix != ".safetensors":
        return hash_of_file(file)
    with file.open("rb") as stream:
        length = stream.read(LENGTH_BYTES)
        size = min(int.from_bytes(length, "little"), LARGEST_HEADER_BYTES)
        return hash_of(length + stream.read(size))


def unhashed_files(out: Path, written: Hashes) -> tuple[str, ...]:
    """Return the files of an output of which its hashes tell nothing.

    They are the card, what came later, and weights in folders of their own. The weights beside the
    config have the hashes of their tensors.
    """
    names = (f.relative_to(out).as_posix() for f in sorted(out.rglob("*")) if f.is_file())
    return tuple(
        name
        for name in names
        if name not in written.files
        and name != HASHES_FILE
        and not HIDDEN.search(name)
        and ("/" in name or not name.endswith(WEIGHTS_FILES))
    )


def write_hashes(out: Path, tensors: Mapping[str, str]) -> None:
    """Write the hashes of an output's tensors, and of the files that lie there."""
    files = {name: hash_of_output_file(file) for name, file in hashed_files(out).items()}
    (out / HASHES_FILE).write_text(Hashes(tensors, files).text(), encoding="utf-8")


def read_hashes(out: Path) -> Hashes | None:
    """Return the hashes that lie in a folder; None where there are none.

    Raises:
        ChatVecError: The file is damaged, or of a version that computes hashes otherwise.
    """
    file = out / HASHES_FILE
    if not file.is_file():
        return None
    if file.stat().st_size > LARGEST_BYTES:
        raise _unreadable(file, f"it is larger than {LARGEST_BYTES >> 20} MB")
    try:
        content = json.loads(file.read_bytes().decode("utf-8"), object_pairs_hook=_each_once)
        used, tensors, files = content["hash"], content["tensors"], content["files"]
        texts = [*tensors.items(), *files.items()]
        readable = len(content) == 3 and all(isinstance(value, str) for _, value in texts)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unreadable(file, first_line(error)) from error
    if not readable or used != rule():
        raise _unreadable(file, "its hashes are none that this version knows")
    return Hashes(tensors, files)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; of a name that is there twice, one was another."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("it has a name twice")
    return content


def _unreadable(file: Path, why: str) -> ChatVecError:
    return ChatVecError(
        f"{file} cannot be read ({why}).",
        "Take it from where OUT was written, or remove it: then nothing tells what was written.",
        DIFFERS,
    )
