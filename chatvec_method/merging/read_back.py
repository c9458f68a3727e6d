"""An output read back from its files, every byte of it, and held against its hashes.

What is read comes from where the system has it: its memory, if the file was written or read just
now, else the disk. Whoever wants to know of the disk lets it `forget` first.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from chatvec_method import hashes
from chatvec_method.errors import DIFFERS, ChatVecError
from chatvec_method.facts.models import tensors_in
from chatvec_method.finishing.hashes_file import (
    HASHES_FILE,
    LOADED_FILES,
    WEIGHTS_FILES,
    Hashes,
    hash_of_output_file,
    hashed_files,
)
from chatvec_method.weights.stored import StoredTensors, check_no_others
from chatvec_method.workers import workers

FIX = "Merge again, or take it once more from where it was written."


def read_back(
    out: Path,
    written: Hashes,
    on_bytes: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Hold an output against the hashes of what was written, and return the bytes of its tensors.

    Args:
        out: The output.
        written: The hashes.
        on_bytes: Is told how many bytes of tensors have been read, and how many there are.

    Raises:
        ChatVecError: A tensor or a file is another, is missing or was added; names the first.
    """
    _check_files(out, written)
    headers, problem = tensors_in(out)
    if problem:
        raise ChatVecError(f"{out}: {problem}.", FIX, DIFFERS)
    for name in written.tensors:
        if name not in headers:
            raise ChatVecError(f"{name} is missing in {out}.", FIX, DIFFERS)
    for name in headers:
        if name not in written.tensors:
            raise ChatVecError(f"{name} was added to {out}.", FIX, DIFFERS)
    check_no_others(out, headers)
    stored = StoredTensors(out, headers)
    names = sorted(headers, key=lambda name: (headers[name].file, headers[name].start or 0, name))
    blocks = [(name, block) for name in names for block in hashes.blocks(headers[name].bytes)]

    own = threading.local()

    def digest(block: tuple[str, slice]) -> bytes:
        if not hasattr(own, "buffer"):
            own.buffer = bytearray(hashes.BLOCK)
        return hashes.digest(stored.bytes(*block, own.buffer))

    digests: dict[str, list[bytes]] = defaultdict(list)
    done, total = 0, sum(header.bytes for header in headers.values())
    with workers() as at_work:
        for (name, block), each in zip(blocks, at_work.pool.map(digest, blocks), strict=True):
            digests[name].append(each)
            done += block.stop - block.start
            on_bytes(done, total)
            if block.stop == headers[name].bytes:
                _check_tensor(name, digests.pop(name), written, out)
    for name in names:
        if not headers[name].bytes:
            _check_tensor(name, [], written, out)
    return total


def _check_tensor(name: str, digests: list[bytes], written: Hashes, out: Path) -> None:
    if hashes.joined(digests) != written.tensors[name]:
        raise ChatVecError(
            f"{name} in {out} is not what was written: its hash is another than in {HASHES_FILE}.",
            FIX,
            DIFFERS,
        )


def check_file(name: str, out: Path, written: Hashes) -> None:
    """Hold one of an output's files against its hash.

    Args:
        name: The file's.
        out: The output.
        written: The hashes.

    Raises:
        ChatVecError: It is another, or has none.
    """
    if hash_of_output_file(out / name) != written.files.get(name):
        of_weights = name.endswith((*WEIGHTS_FILES, ".index.json"))
        raise ChatVecError(
            f"{name} in {out} is not what was written: its hash is another than in {HASHES_FILE}.",
            FIX
            if of_weights
            else "Take it once more from where it was written, or run `chatvec finish` on the "
            "folder, which writes it anew.",
            DIFFERS,
        )


def _check_files(out: Path, written: Hashes) -> None:
    here = hashed_files(out)
    for name in written.files:
        if name not in here:
            raise ChatVecError(f"{name} is missing in {out}.", FIX, DIFFERS)
        check_file(name, out, written)
    for name in here:
        if name not in written.files and name.endswith(LOADED_FILES):
            raise ChatVecError(
                f"{name} was added to {out}, and may be loaded with it.",
                "Remove it, if you do not know what it is for.",
                DIFFERS,
            )
