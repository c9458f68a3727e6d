"""A checkpoint's safetensors files, written tensor by tensor in any order.

The header of a safetensors file says where in it each tensor lies. Where names, dtypes and shapes
are known beforehand, it can be written first and each tensor put in its place as it comes: no shard
is collected in memory, and none is copied. The files are byte for byte those that mergekit's writer
and the safetensors library make.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType

import torch
from torch import Tensor

from chatvec_method.facts.models import DTYPE_NAMES, TensorHeader

INDEX_FILE = "model.safetensors.index.json"
MERGEKIT_VERSION = "0.1.5"
"""As mergekit's writer has it in every index."""
ALIGNMENT = 8
"""Data begins at a multiple of this; so do all tensors, as the widest dtypes come first."""


@dataclass(frozen=True)
class Place:
    """Where a tensor's data lies."""

    file: str
    start: int
    """From the beginning of the file, in bytes."""
    header: TensorHeader


@dataclass(frozen=True)
class Layout:
    """The files of a checkpoint: what each begins with, and where each tensor goes."""

    beginnings: Mapping[str, bytes]
    """By file: length and text of its header."""
    sizes: Mapping[str, int]
    """By file, in bytes."""
    places: Mapping[str, Place]
    """By tensor."""
    index: str | None
    """The text of the index, None for a single file."""


def lay_out(
    headers: Mapping[str, TensorHeader], shard_size: int, version: str, stem: str = "model"
) -> Layout:
    """Return the files for tensors that come in a given order.

    Args:
        headers: Dtype and shape of each tensor, in the order in which mergekit would save them.
        shard_size: The most bytes of data in a file, but for a tensor that is larger by itself;
            0 or less for a single file.
        version: mergekit's, for the index.
        stem: With what the files' names begin.
    """
    shards = _shards(headers, shard_size)
    one = len(shards) == 1
    names = [
        f"{stem}.safetensors" if one else f"{stem}-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        for i in range(len(shards))
    ]
    beginnings: dict[str, bytes] = {}
    sizes: dict[str, int] = {}
    places: dict[str, Place] = {}
    for file, shard in zip(names, shards, strict=True):
        beginnings[file], sizes[file], placed = _file(file, shard)
        places |= placed
    weight_map = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
    total = sum(header.bytes for header in headers.values())
    metadata = {"total_size": total, "mergekit_version": version}
    index = {"metadata": metadata, "weight_map": weight_map}
    return Layout(beginnings, sizes, places, None if one else json.dumps(index, indent=2))


def _shards(headers: Mapping[str, TensorHeader], shard_size: int) -> list[dict[str, TensorHeader]]:
    shards: list[dict[str, TensorHeader]] = [{}]
    size = 0
    for name, header in headers.items():
        if shards[-1] and 0 < shard_size < size + header.bytes:
            shards.append({})
            size = 0
        shards[-1][name] = header
        size += header.bytes
    return shards


def _file(file: str, shard: Mapping[str, TensorHeader]) -> tuple[bytes, int, dict[str, Place]]:
    """Return a file's beginning, its size, and where its tensors lie."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offsets = {}
    end = 0
    # The library's order: the widest dtypes first, so that all are aligned, then by name.
    for name in sorted(shard, key=lambda name: (-_rank(shard[name].dtype), name)):
        header = shard[name]
        offsets[name], end = end, end + header.bytes
        entries[name] = {
            "dtype": DTYPE_NAMES[header.dtype],
            "shape": list(header.shape),
            "data_offsets": [offsets[name], end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    beginning = len(text).to_bytes(8, "little") + text
    places = {
        name: Place(file, len(beginning) + offset, shard[name]) for name, offset in offsets.items()
    }
    return beginning, len(beginning) + end, places


def _rank(dtype: torch.dtype) -> int:
    """Return a dtype's rank in the library's own order of dtypes."""
    order = ["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"]
    order += ["I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64"]
    return order.index(DTYPE_NAMES[dtype])


class ShardWriter:
    """Files of a fixed layout, into which tensors are put in any order, from any thread.

    Room for all of them is taken when it opens, so that a full disk shows before the work.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.layout = layout
        self.folder = folder
        self._missing = {
            name: math.prod(place.header.shape) for name, place in layout.places.items()
        }
        self._lock = Lock()
        self._files: dict[str, int] = {}

    def __enter__(self) -> ShardWriter:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        for file, beginning in self.layout.beginnings.items():
            descriptor = os.open(self.folder / file, flags, 0o666)
            self._files[file] = descriptor
            _reserve(descriptor, self.layout.sizes[file])
            _write_at(descriptor, memoryview(beginning), 0)
        return self

    def write(self, name: str, tensor: Tensor) -> None:
        """Put a tensor in its place.

        Raises:
            ValueError: It has another dtype or shape than its header says, or is there already.
        """
        header = self.layout.places[name].header
        if (tensor.dtype, tuple(tensor.shape)) != (header.dtype, header.shape):
            raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}, not {header}")
        self.write_elements(name, 0, tensor)

    def write_elements(self, name: str, start: int, part: Tensor) -> None:
        """Put some of a tensor's elements in their place, from the one numbered `start` on.

        Raises:
            ValueError: They have another dtype than the header says, or do not belong there.
        """
        place = self.layout.places[name]
        end = start + part.numel()
        if part.dtype != place.header.dtype or end > math.prod(place.header.shape):
            raise ValueError(f"{name}: {part.dtype} up to element {end}, not {place.header}")
        data = part.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        position = place.start + start * place.header.dtype.itemsize
        # The system lets only one thread write to a file, and the others would wait for it busily.
        with self._lock:
            if part.numel() > self._missing[name]:
                raise ValueError(f"{name} is written twice")
            self._missing[name] -= part.numel()
            _write_at(self._files[place.file], data.data, position)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
        if error is not None:
            return
        if missing := [name for name, elements in self._missing.items() if elements]:
            raise ValueError(f"{missing[0]} was not written, or not all of it")
        if self.layout.index is not None:
            (self.folder / INDEX_FILE).write_text(self.layout.index, encoding="utf-8")


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate") and size:
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.truncate(descriptor, size)


def _write_at(descriptor: int, data: memoryview, start: int) -> None:
    """Write all of the data; the system may take less of it at a time."""
    if not hasattr(os, "pwrite"):  # Windows
        os.lseek(descriptor, start, os.SEEK_SET)
        while data:
            data = data[os.write(descriptor, data) :]
        return
    while data:
        written = os.pwrite(descriptor, data, start)
        start, data = start + written, data[written:]
