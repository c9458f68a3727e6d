"""The tensors of a folder, read from its files in pieces: nothing of them is kept, nor mapped.

A mapped file that somebody cuts short ends the process; one that is read ends in a message. Only
pickles are mapped, as torch reads them no other way.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from chatvec_method.errors import DIFFERS, ChatVecError, first_line
from chatvec_method.facts.models import TensorHeader

CHUNK = 1 << 20
"""Elements that are read together."""
AGAIN = "Merge or download it again."
WEIGHTS_FILES = ("*.safetensors", "*.bin")


class StoredTensors:
    """The tensors that lie in a folder's files; any thread may ask."""

    def __init__(self, folder: Path, headers: Mapping[str, TensorHeader]) -> None:
        """Open the files.

        Args:
            folder: Where they are.
            headers: Of all tensors in them.

        Raises:
            ChatVecError: A file is damaged, or none that transformers reads.
        """
        self.folder = folder
        self.headers = headers
        self._pickles: dict[str, dict[str, Any]] = {}
        for file in sorted({header.file for header in headers.values()}):
            if file.endswith(".safetensors"):
                _check_safetensors(folder / file)
            else:
                self._pickles[file] = _unpickled(folder / file)

    def elements(self, name: str, elements: slice) -> Tensor:
        """Return some elements of a tensor, in a row.

        Raises:
            ChatVecError: The file ends before them.
        """
        header = self.headers[name]
        if header.start is None:
            tensor: Tensor = self._pickles[header.file][name]
            return tensor.reshape(-1)[elements]
        size = header.dtype.itemsize
        part = torch.empty((elements.stop - elements.start) * size, dtype=torch.uint8)
        self._read(name, elements.start * size, part.numpy().data)
        return part.view(header.dtype)

    def bytes(self, name: str, part: slice, buffer: bytearray) -> memoryview:
        """Return some bytes of a tensor, where they can be had: in a buffer, or in a mapped file.

        Args:
            name: The tensor.
            part: Which of its bytes.
            buffer: Room for as many; each thread uses its own again, which is twice as fast.

        Raises:
            ChatVecError: The file ends before them.
        """
        if self.headers[name].start is None:
            whole = self._pickles[self.headers[name].file][name].contiguous()
            return memoryview(whole.view(-1).view(torch.uint8).numpy())[part]
        view = memoryview(buffer)[: part.stop - part.start]
        self._read(name, part.start, view)
        return view

    def _read(self, name: str, start: int, into: memoryview) -> None:
        header, done = self.headers[name], 0
        with (self.folder / header.file).open("rb", buffering=0) as file:
            file.seek((header.start or 0) + start)
            while done < len(into):
                read = file.readinto(into[done:])
                if not read:
                    raise ChatVecError(
                        f"{self.folder / header.file} ends within {name}, which its header "
                        "announces.",
                        AGAIN,
                        DIFFERS,
                    )
                done += read

    def chunks(self, name: str) -> Iterator[slice]:
        """Yield pieces that make up all elements of a tensor."""
        size = math.prod(self.headers[name].shape)
        for start in range(0, size, CHUNK):
            yield slice(start, min(start + CHUNK, size))


def check_no_others(folder: Path, headers: Mapping[str, TensorHeader]) -> None:
    """Check that a folder has no files of weights but those in which these tensors lie.

    Raises:
        ChatVecError: It has.
    """
    files = {header.file for header in headers.values()}
    for file in sorted(file for pattern in WEIGHTS_FILES for file in folder.glob(pattern)):
        if file.name not in files:
            raise ChatVecError(
                f"{file} has weights that nobody loads: transformers takes {min(files)} and what "
                "belongs to it.",
                "Remove the files that do not belong there, or merge again.",
                DIFFERS,
            )


def forget(folder: Path) -> None:
    """Let the system forget what it holds of a folder's files in memory, where it can be told so.

    What is read next comes from the disk, but for what has not been written to it yet or is mapped
    by somebody.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    for path in folder.iterdir():
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _unpickled(file: Path) -> dict[str, Any]:
    try:
        tensors: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged pickle fails in many ways
        problem = f"{file} cannot be read ({first_line(error)})."
        raise ChatVecError(problem, AGAIN, DIFFERS) from error
    return tensors


def _check_safetensors(file: Path) -> None:
    try:
        with safe_open(file, "pt") as opened:
            written_by = (opened.metadata() or {}).get("format")
    except SafetensorError as error:
        problem = f"{file} is no safetensors file ({first_line(error)})."
        raise ChatVecError(problem, AGAIN, DIFFERS) from None
    if written_by != "pt":
        raise ChatVecError(
            f"{file} does not say that it is PyTorch's (`format: pt` in its header), so that "
            "transformers would not load it.",
            AGAIN,
            DIFFERS,
        )
