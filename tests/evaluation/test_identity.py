"""What tells one model from another: its weights and small files, and not its card or its place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file

from chatvec_method import ChatVecError
from chatvec_method.evaluation.identity import identity

CHAT = ROOT / "examples" / "world" / "models" / "chat"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CHAT, tmp_path / "elsewhere"))


def test_the_same_model_in_another_place_is_the_same(copy: Path) -> None:
    (copy / "README.md").write_text("Another card.")
    (copy / "optimizer.pt").write_bytes(b"of the training")
    assert identity(str(copy)) == identity(str(CHAT))


def test_a_tensor_that_was_trained_is_another_model(copy: Path) -> None:
    file = copy / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.1.mlp.down_proj.weight"
    tensors[name] = tensors[name] * 1.01
    save_file(tensors, file, metadata={"format": "pt"})
    assert identity(str(copy)) != identity(str(CHAT))


@pytest.mark.parametrize("name", ["chat_template.jinja", "generation_config.json", "config.json"])
def test_another_small_file_is_another_model(copy: Path, name: str) -> None:
    (copy / name).write_text((copy / name).read_text() + " ")
    assert identity(str(copy)) != identity(str(CHAT))


def test_weights_without_a_header_are_told_apart_too(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    generator = torch.Generator().manual_seed(0)
    (copy / "pytorch_model.bin").write_bytes(
        torch.randint(0, 256, (100_000,), generator=generator, dtype=torch.uint8).numpy().tobytes()
    )
    one = identity(str(copy))
    (copy / "pytorch_model.bin").write_bytes(
        torch.randint(0, 256, (100_000,), generator=generator, dtype=torch.uint8).numpy().tobytes()
    )
    assert identity(str(copy)) != one


@pytest.mark.parametrize("length", [0, 8, 1 << 40, (1 << 64) - 1])
@pytest.mark.parametrize(
    "header", [b"[]", b"{}", b'{"x": 5}', b'{"x": {"data_offsets": [-9, -9]}}']
)
def test_a_header_by_a_stranger_is_survived(length: int, header: bytes, copy: Path) -> None:
    content = (length or len(header)).to_bytes(8, "little") + header
    (copy / "model.safetensors").write_bytes(content)
    assert identity(str(copy)).startswith("folder ")


def test_files_that_no_model_has_are_refused(copy: Path) -> None:
    with (copy / "more.json").open("wb") as stream:
        stream.truncate(3 << 30)
    with pytest.raises(ChatVecError, match=r"more\.json is larger than"):
        identity(str(copy))
    (copy / "more.json").unlink()
    (copy / "more.json").symlink_to("/etc/hostname")
    with pytest.raises(ChatVecError, match=r"more\.json is a link"):
        identity(str(copy))


def test_what_is_no_model_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object, **__: object) -> str:
        raise OSError("offline\nand more")

    monkeypatch.setattr("chatvec_method.evaluation.identity.snapshot_of", nothing)
    with pytest.raises(ChatVecError, match=r"a/b is no folder, and the hub does not give it \(off"):
        identity("a/b")
