"""Hashes of bytes, block by block, so that threads can share a tensor and hash it as they write it.

A hash is the XXH3-128 of the XXH3-128 digests (16 bytes each, as xxhash has them) of all blocks of
4 MiB, the last of which may be shorter; no bytes are no blocks. It tells what a disk, a network or
a bug has changed. Whoever changes a file on purpose can change its hash with it: XXH3 is no
cryptographic hash, and need not be one here. On one core it takes 16 GB a second, blake3 2 and
sha256 1 to 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import xxhash

BLOCK = 1 << 22
"""Bytes."""


def rule() -> str:
    """Return how a hash is computed, in words that go with it."""
    return f"xxh3_128 of the xxh3_128 digests of all blocks of {BLOCK} bytes"


def blocks(size: int) -> Iterator[slice]:
    """Yield the blocks of so many bytes."""
    for start in range(0, size, BLOCK):
        yield slice(start, min(start + BLOCK, size))


def digest(block: memoryview | bytes) -> bytes:
    """Return a block's digest."""
    return xxhash.xxh3_128_digest(block)


def joined(digests: Iterable[bytes]) -> str:
    """Return the hash of bytes whose blocks have these digests, in their order."""
    return xxhash.xxh3_128_hexdigest(b"".join(digests))


def hash_of(content: memoryview | bytes) -> str:
    """Return the hash of some bytes."""
    view = memoryview(content)
    return joined(digest(view[block]) for block in blocks(len(view)))


def hash_of_file(file: Path) -> str:
    """Return the hash of what a file holds, of which one block is in memory at a time."""
    with file.open("rb") as stream:
        return joined(iter(lambda: _next_digest(stream), b""))


def _next_digest(stream: BinaryIO) -> bytes:
    block = stream.read(BLOCK)
    return digest(block) if block else b""
