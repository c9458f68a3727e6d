"""Hashes: what another program computes by the rule that is written beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
import xxhash

from chatvec_method import hashes


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 30, 35])
def test_a_hash_is_that_of_the_blocks_digests(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatvec_method.hashes.BLOCK", 10)
    content = bytes(range(size))
    digests = b"".join(xxhash.xxh3_128(content[i : i + 10]).digest() for i in range(0, size, 10))
    assert hashes.hash_of(content) == xxhash.xxh3_128(digests).hexdigest()
    (tmp_path / "file").write_bytes(content)
    assert hashes.hash_of_file(tmp_path / "file") == hashes.hash_of(content)
    assert "10 bytes" in hashes.rule()


def test_the_same_blocks_in_another_order_are_another_hash() -> None:
    one, other = hashes.digest(b"one"), hashes.digest(b"other")
    assert hashes.joined([one, other]) != hashes.joined([other, one])
