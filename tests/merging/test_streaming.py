"""Weights streamed into their place: byte for byte what stock mergekit writes."""

from __future__ import annotations

import os
import random
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
import zoo
from conftest import Merge, Recipe
from mergekit.common import ModelReference
from safetensors.torch import load_file, save_file
from surveying import ready as surveyed

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.checkpoint import Source
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.merging.streaming import stream_weights
from chatvec_method.merging.verify import verify
from chatvec_method.weights.reading import Reader


def weights(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("model*")}


def stream(
    found: ReadySurvey, folder: Path, on_bytes: Callable[[int], None] = lambda _: None
) -> None:
    stream_weights(found, folder, Reader(found.plan.checkpoints), on_bytes)


def streamed(found: ReadySurvey, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    stream(found, folder)
    return weights(folder)


@pytest.mark.parametrize("file", zoo.MODEL_RECIPES, ids=lambda file: file.stem)
def test_shared_recipes_give_the_bytes_of_the_stock_command(
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    merged_by_stock: Callable[[Path], Path],
) -> None:
    folder = merged_by_stock(file)
    monkeypatch.chdir(folder)
    stock = tmp_path / "stock"
    shutil.copytree(folder / "stock", stock)
    found = surveyed(file.read_text(encoding="utf-8"), out_shard_size=30000)
    assert len(weights(stock)) > 3
    files = streamed(found, tmp_path / "streamed")
    if any(tensor.in_stock for tensor in found.plan.tensors):
        # Experts one by one, as cp's files have them; mergekit joins them.
        ours, theirs = (oracle.checkpoint(folder) for folder in (tmp_path / "streamed", stock))
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    else:
        assert files == weights(stock)

    # And what stock mergekit wrote is found right by reading it, and wrong where it is.
    verification = verify(stock, found, found.options, deep=True)
    tensors = oracle.stored_tensors(stock)
    assert verification.elements == sum(tensor.numel() for tensor in tensors.values())
    name = random.Random(file.stem).choice(sorted(tensors))
    shard = next(s for s in stock.glob("*.safetensors") if name in load_file(s))
    changed = load_file(shard)
    changed[name].view(-1).view(torch.int16)[-1] += 1
    shard.unlink()
    save_file(changed, shard, metadata={"format": "pt"})
    with pytest.raises(ChatVecError, match="1 rounding step away") as wrong:
        verify(stock, found, found.options, deep=True)
    assert wrong.value.problem.startswith(f"{name}, ")


@pytest.mark.parametrize(
    "change",
    [
        {"out_dtype": "float32"},
        {"dtype": "float32", "out_dtype": "float16"},
        {"parameters": {"ratio": 0.7}},
        {"parameters": {"ratio": [{"filter": "mlp", "value": 0}, {"value": [0, 0.3, 1]}]}},
        {"parameters": {"ratio": 0}},
    ],
    ids=str,
)
def test_dtypes_and_ratios_give_the_bytes_of_the_stock_command(
    change: Recipe, recipe: Recipe, tmp_path: Path, merge: object
) -> None:
    del recipe["models"][1]["parameters"]["ratio"]
    recipe = {"parameters": {"ratio": 1.0}, **recipe, **change}
    stock: Merge = merge(recipe)  # type: ignore[operator]
    assert streamed(surveyed(recipe), tmp_path / "streamed") == weights(stock.out)


def test_progress_comes_to_the_size_of_the_output(recipe: Recipe, tmp_path: Path) -> None:
    found = surveyed(recipe)
    told: list[int] = []
    (tmp_path / "out").mkdir()
    stream(found, tmp_path / "out", told.append)
    stored = sum(h.bytes for m, h in found.models[found.plan.roles.cp].tensors.items())
    assert sum(told) == stored
    assert len(told) == len(found.plan.tensors)


def test_damaged_weights_are_told(recipe: Recipe, tmp_path: Path) -> None:
    damaged = tmp_path / "chat"
    shutil.copytree(recipe["models"][1]["model"], damaged)
    shard = sorted(damaged.glob("*.safetensors"))[0]
    tensors = load_file(shard)
    name = next(iter(tensors))
    tensors[name].view(-1)[3] = torch.nan
    save_file(tensors, shard, metadata={"format": "pt"})
    recipe["models"][1]["model"] = str(damaged)

    (tmp_path / "out").mkdir()
    with pytest.raises(ChatVecError, match="NaN or infinite") as error:
        stream(surveyed(recipe), tmp_path / "out")
    assert str(damaged) in error.value.problem


def test_tensors_longer_than_a_part_are_cut_and_put_together(
    recipe: Recipe, tmp_path: Path, merge: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe["models"][1]["parameters"]["ratio"] = [{"filter": "mlp", "value": 0}, {"value": 0.3}]
    stock: Merge = merge(recipe)  # type: ignore[operator]
    monkeypatch.setattr("chatvec_method.hashes.BLOCK", 200)
    assert streamed(surveyed(recipe), tmp_path / "streamed") == weights(stock.out)


def test_damage_in_any_part_is_told(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatvec_method.hashes.BLOCK", 200)
    test_damaged_weights_are_told(recipe, tmp_path)


def test_base_and_chat_are_not_opened_where_the_ratio_is_0(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratio = [{"filter": "mlp", "value": 0}, {"value": 1.0}]
    recipe["models"][1]["parameters"]["ratio"] = ratio
    loaded: list[tuple[str, str]] = []
    tensor = Reader.tensor

    def noted(self: Reader, model: ModelReference, source: Source) -> torch.Tensor:
        loaded.append((str(model), source.weights[0].name))
        return tensor(self, model, source)

    monkeypatch.setattr(Reader, "tensor", noted)
    (tmp_path / "out").mkdir()
    stream(surveyed(recipe), tmp_path / "out")
    base, _, cp = (entry["model"] for entry in recipe["models"])
    assert {model for model, tensor in loaded if "mlp" in tensor} == {cp}
    assert {model for model, tensor in loaded if "self_attn" in tensor} > {base, cp}
    assert len(loaded) == len(set(loaded))


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system is not to be told")
def test_the_system_is_told_of_all_that_is_needed_and_nothing_else(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratio = [{"filter": "mlp", "value": 0}, {"value": 1.0}]
    recipe["models"][1]["parameters"]["ratio"] = ratio
    told: dict[Path, int] = defaultdict(int)

    def noted(file: int, _start: int, length: int, _advice: int) -> None:
        told[Path(f"/proc/self/fd/{file}").readlink()] += length

    monkeypatch.setattr(os, "posix_fadvise", noted)
    (tmp_path / "out").mkdir()
    found = surveyed(recipe)
    stream(found, tmp_path / "out")
    for model in found.plan.roles.all:
        tensors = found.models[model].tensors
        assert tensors is not None
        needed = [t.name for t in found.plan.tensors if model in t.readers]
        folder = Path(str(model)).resolve()
        read = sum(length for path, length in told.items() if path.parent == folder)
        assert read == sum(tensors[name].bytes for name in needed)
