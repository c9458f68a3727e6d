"""What tells one model from another, without reading all of it.

A model on the hub is its commit. A folder is its small files whole, and of its weight files the
beginning and 4 kB from the middle of every tensor, or 256 pieces of those that have no header.
Training, or a merge at another ratio, changes next to every element of the tensors that it touches,
so it changes the sample too; a single element that was changed by hand may go unseen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.intake import check_folder
from chatvec_method.snapshots import snapshot_of

SMALL = (".json", ".jinja", ".model", ".txt", ".tiktoken", ".py")
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
NOT_THE_MODEL = ("training_args.bin", "optimizer.pt", "scheduler.pt", "trainer_state.json")
PIECE = 4096
PIECES = 256
LARGEST_HEADER_BYTES = 100_000_000
"""Of a safetensors file, which itself reads no larger one."""


def identity(model: str, revision: str | None = None) -> str:
    """Return what tells a model from every other one.

    Args:
        model: A folder, or a name on the hub.
        revision: Of one on the hub; None for the newest.

    Raises:
        ChatVecError: There is no such model, here or on the hub.
    """
    folder = Path(model)
    if folder.is_dir():
        return f"folder {_fingerprint(folder)}"
    try:
        return f"{model} {snapshot_of(model, revision).folder.name}"
    except ChatVecError:
        raise
    except Exception as error:  # the hub's library raises what it likes
        raise ChatVecError(
            f"{model} is no folder, and the hub does not give it ({first_line(error)}).",
            "Write the folder of a model, or owner/name.",
        ) from error


def _fingerprint(folder: Path) -> str:
    check_folder(folder)
    fingerprint = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if not file.is_file() or file.name in NOT_THE_MODEL:
            continue
        if file.suffix in SMALL:
            pieces: Iterator[bytes] = iter([file.read_bytes()])
        elif file.suffix in WEIGHTS:
            pieces = _sample(file)
        else:
            continue
        fingerprint.update(f"\0{file.name}\0{file.stat().st_size}\0".encode())
        for piece in pieces:
            fingerprint.update(piece)
    return fingerprint.hexdigest()


def _sample(file: Path) -> Iterator[bytes]:
    """Yield pieces of a weight file that are as good as all of it to tell it from another."""
    with file.open("rb") as stream:
        places = _middles(stream) if file.suffix == ".safetensors" else None
        if places is None:
            size = file.stat().st_size
            places = [size * i // PIECES for i in range(PIECES)]
        for place in places:
            stream.seek(place)
            yield stream.read(PIECE)


def _middles(stream: BinaryIO) -> list[int] | None:
    """Return where the tensors of a safetensors file have their middle, None if it is no such."""
    length = int.from_bytes(stream.read(8), "little")
    if length > LARGEST_HEADER_BYTES:
        return None
    try:
        header = json.loads(stream.read(length))
        ends = [each["data_offsets"] for name, each in header.items() if name[:2] != "__"]
        places = [0, *(8 + length + (start + end) // 2 for start, end in sorted(ends))]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return places if all(isinstance(each, int) and each >= 0 for each in places) else None
