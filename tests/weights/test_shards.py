"""Shards written tensor by tensor: byte for byte what mergekit's writer makes."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mergekit.io.tensor_writer import TensorWriter

from chatvec_method.facts.models import SAFETENSORS_DTYPES, TensorHeader
from chatvec_method.weights.shards import MERGEKIT_VERSION, Layout, ShardWriter, lay_out

DTYPES = sorted(SAFETENSORS_DTYPES.values(), key=str)


def tensors_of(kinds: list[tuple[torch.dtype, tuple[int, ...]]]) -> dict[str, torch.Tensor]:
    return {
        f"model.layers.{i}.층": (100 * torch.randn(shape)).to(dtype)
        for i, (dtype, shape) in enumerate(kinds)
    }


def layout_of(tensors: dict[str, torch.Tensor], shard_size: int) -> Layout:
    headers = {name: TensorHeader(t.dtype, tuple(t.shape), "") for name, t in tensors.items()}
    return lay_out(headers, shard_size, MERGEKIT_VERSION)


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@settings(max_examples=50, deadline=None)
@given(
    kinds=st.lists(
        st.tuples(
            st.sampled_from(DTYPES),
            st.sampled_from([(), (0, 3), (1,), (7,), (3, 5), (2, 3, 4), (64, 9)]),
        ),
        min_size=1,
        max_size=20,
    ),
    shard_size=st.sampled_from([0, 1, 100, 1000, 10**9]),
)
def test_files_are_those_of_mergekits_writer(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[tuple[torch.dtype, tuple[int, ...]]],
    shard_size: int,
) -> None:
    theirs, ours = tmp_path_factory.mktemp("theirs"), tmp_path_factory.mktemp("ours")
    tensors = tensors_of(kinds)
    writer = TensorWriter(str(theirs), max_shard_size=shard_size)
    for name, tensor in tensors.items():
        writer.save_tensor(name, tensor)
    writer.finalize()

    names = random.Random(0).sample(sorted(tensors), len(tensors))
    with ShardWriter(ours, layout_of(tensors, shard_size)) as shards:
        for name in names:
            shards.write(name, tensors[name])

    assert files(ours) == files(theirs)


def test_a_tensor_may_come_in_pieces_in_any_order(tmp_path: Path) -> None:
    tensor = torch.randn(10, 7)
    (tmp_path / "whole").mkdir()
    (tmp_path / "pieces").mkdir()
    with ShardWriter(tmp_path / "whole", layout_of({"a": tensor}, 0)) as shards:
        shards.write("a", tensor)
    with ShardWriter(tmp_path / "pieces", layout_of({"a": tensor}, 0)) as shards:
        for start in (60, 0, 30):
            shards.write_elements("a", start, tensor.view(-1)[start : start + 30])
    assert files(tmp_path / "pieces") == files(tmp_path / "whole")


def test_what_does_not_fit_the_header_is_refused(tmp_path: Path) -> None:
    tensor = torch.zeros(4)
    for wrong in (tensor.half(), torch.zeros(5), torch.zeros(2, 2)):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        with (
            pytest.raises(ValueError, match="a is torch"),
            ShardWriter(folder, layout_of({"a": tensor}, 0)) as shards,
        ):
            shards.write("a", wrong)


def test_a_missing_or_repeated_tensor_is_noticed(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(4), "b": torch.ones(4)}
    (tmp_path / "missing").mkdir()
    (tmp_path / "twice").mkdir()
    with (
        pytest.raises(ValueError, match="b was not written"),
        ShardWriter(tmp_path / "missing", layout_of(tensors, 0)) as shards,
    ):
        shards.write("a", tensors["a"])
    with ShardWriter(tmp_path / "twice", layout_of(tensors, 0)) as shards:
        for name, tensor in tensors.items():
            shards.write(name, tensor)
        with pytest.raises(ValueError, match="a is written twice"):
            shards.write("a", tensors["a"])


def test_no_room_shows_before_any_tensor_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        ShardWriter(tmp_path, layout_of({"a": torch.zeros(4)}, 0)).__enter__()
