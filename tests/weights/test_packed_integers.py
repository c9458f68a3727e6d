"""Integers in words, as compressed-tensors itself packs and unpacks them."""

from __future__ import annotations

import pytest
import torch

from chatvec_method.weights.packed_integers import packed, unpacked

ROWS, COLUMNS = 24, 96


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_words_are_those_of_compressed_tensors(bits: int) -> None:
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    half = 2 ** (bits - 1)
    torch.manual_seed(bits)
    integers = torch.randint(-half, half, (ROWS, COLUMNS), dtype=torch.int8)
    integers.view(-1)[: 2 * half] = torch.arange(-half, half)  # all there are
    words = packed(integers, bits)
    assert torch.equal(words, helpers.pack_to_int32(integers, bits))
    every_other = integers[:, ::2]
    assert torch.equal(packed(every_other, bits), helpers.pack_to_int32(every_other, bits))
    for rows in (slice(None), slice(5, 7), slice(None, None, 3)):
        theirs = helpers.unpack_from_int32(words[rows], bits, integers.shape)
        assert torch.equal(unpacked(words[rows], bits).int() - half, theirs.int())
