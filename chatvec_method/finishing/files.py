"""Files of an output, each replaced in one step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from chatvec_method.errors import ChatVecError

Content: TypeAlias = "str | bytes | None"
"""Of a file: text, or bytes where it is none; None where there is no file."""


@dataclass(frozen=True)
class FileChange:
    """What became of a file of the output."""

    name: str
    before: Content = field(repr=False)
    after: Content = field(repr=False)


def json_text(text: str, old: Mapping[str, Any], new: dict[str, Any]) -> str:
    """Return a JSON file's text with new content, written as the old is."""
    if new == old:
        return text
    if list(old) == sorted(old):
        new = dict(sorted(new.items()))
    return json.dumps(new, indent=2, ensure_ascii=False) + ("\n" if text.endswith("\n") else "")


def json_content(data: bytes) -> dict[str, Any] | None:
    """Return what a JSON file says; None if it is none, or no mapping."""
    try:
        content = json.loads(data.decode("utf-8"))
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def content_of(file: Path) -> Content:
    """Return a file's text, or its bytes where it is none; None where there is no file."""
    return as_content(file.read_bytes()) if file.is_file() else None


def as_content(data: bytes) -> str | bytes:
    """Return the text that some bytes are, or the bytes where they are none."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


def as_bytes(content: str | bytes) -> bytes:
    """Return what a file of that content holds."""
    return content.encode("utf-8") if isinstance(content, str) else content


def write_content(file: Path, content: Content) -> None:
    """Replace a file in one step."""
    partial = file.with_name(f".{file.name}.chatvec-partial")
    try:
        if content is None:
            file.unlink()
            return
        # Somebody who made the folder may have put a link there, to be written through.
        partial.unlink(missing_ok=True)
        with partial.open("xb") as stream:
            stream.write(as_bytes(content))
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ChatVecError(
            f"{file} cannot be written ({error.strerror or error}).",
            "See that the folder may be written to and that the disk has room.",
        ) from error
