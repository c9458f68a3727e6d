"""A cp that was expanded in depth: recognised, and its `slices:` written."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hub
import oracle
import pytest
import torch
import zoo
from checking import as_text, checked, codes, mended, the
from click.testing import CliRunner
from conftest import CHAT, CP, Merge, Recipe, plain_recipe
from safetensors.torch import save_file

from chatvec_method.checks.report import Severity
from chatvec_method.cli import main
from chatvec_method.recipe.edits import edited

ERROR, WARNING = Severity.ERROR, Severity.WARNING
LAYERS = 4
KIND = zoo.Kind("llama", LAYERS, 32000, torch.bfloat16)
BY_DEPTH = [
    {"filter": "layers.1.", "value": 0.25},
    {"filter": "mlp", "value": [0, 1]},
    {"value": [1.0, 0.8, 0.6, 0.4]},
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with base, two chats and cp, of LAYERS layers each."""
    folder = tmp_path_factory.mktemp("depth")
    kinds = {
        "base": KIND,
        "chat": zoo.Kind("llama", LAYERS, 32000, torch.bfloat16, template=zoo.LLAMA_2_TEMPLATE),
        "chat2": KIND,
        "cp": KIND,
    }
    zoo.build_family(folder, kinds, base=["base"], chat=["chat", "chat2"], cp=["cp"])
    return folder


@pytest.fixture
def expanded(models: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """Return a function that makes a recipe whose cp has copies of layers, as LLaMA-Pro does."""

    def make(layers: Sequence[int | None], *, zero: bool = True, trained: float = 0.002) -> Recipe:
        """Take these layers of cp; None is an inserted copy of the one before."""
        cp = oracle.stored_tensors(models / "cp")
        generator = torch.Generator().manual_seed(1)
        tensors = {name: t for name, t in cp.items() if ".layers." not in name}
        source = 0
        for i, layer in enumerate(layers):
            source = source if layer is None else layer
            for name, tensor in cp.items():
                prefix = f"model.layers.{source}."
                if name.startswith(prefix):
                    new = tensor.clone()
                    if layer is None:
                        if zero and re.search("o_proj|down_proj", name):
                            new = torch.zeros_like(new)
                        new += trained * torch.randn(new.shape, generator=generator).bfloat16()
                    tensors[name.replace(prefix, f"model.layers.{i}.")] = new
        folder = shutil.copytree(models / "cp", tmp_path / "deep")
        for file in folder.glob("model*"):
            file.unlink()
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        config = json.loads((folder / "config.json").read_text())
        config["num_hidden_layers"] = len(layers)
        (folder / "config.json").write_text(json.dumps(config))
        recipe = plain_recipe(models)
        recipe["base_model"] = recipe["models"][CP]["model"] = str(folder)
        return recipe

    return make


def expected(
    recipe: Recipe, layers: Sequence[int | None], ratio: Callable[[str, int], float]
) -> Any:
    """Return cp + ratio · (chat − base) in float64, by base's layer; cp's where it is inserted."""
    base, chat, cp = (oracle.stored_tensors(Path(m["model"])) for m in recipe["models"])
    own = [layer for layer in layers if layer is not None]
    numbers = dict(zip(own, range(len(own)), strict=True))
    out = {}
    for name, tensor in cp.items():
        match = re.search(r"layers\.(\d+)\.", name)
        layer = layers[int(match[1])] if match else None
        if match and layer is None:
            out[name] = tensor.double()
            continue
        other = (
            name.replace(match[0], f"layers.{numbers[layer]}.")
            if match and layer is not None
            else name
        )
        vector = chat[other].double() - base[other].double()
        out[name] = tensor.double() + ratio(other, numbers.get(layer, 0)) * vector
    return out


def assert_right(out: Path, wanted: dict[str, torch.Tensor]) -> None:
    output = oracle.stored_tensors(out)
    assert output.keys() == wanted.keys()
    for name, values in wanted.items():
        assert oracle.steps_off(output[name], values.numpy()).max() <= 1, name


SHAPES: list[Sequence[int | None]] = [
    [0, 1, None, 2, 3, None],
    [0, None, 1, None, 2, None, 3, None],
    [0, 1, None, None, 2, 3],
    [0, 1, 2, 3, None, None, None, None, None],
]


@pytest.mark.parametrize("layers", SHAPES, ids=str)
@pytest.mark.parametrize("zero", [True, False], ids=["from zero", "copied"])
def test_an_expanded_cp_is_told_and_merges_right_with_the_slices_that_are_written(
    layers: Sequence[int | None],
    zero: bool,
    expanded: Callable[..., Recipe],
    merge: Callable[..., Merge],
    tmp_path: Path,
) -> None:
    recipe = expanded(layers, zero=zero)
    report = checked(recipe)
    assert codes(report, ERROR) == ["depth-expanded"]
    finding = the("depth-expanded", report)
    inserted = [str(i) for i, layer in enumerate(layers) if layer is None]
    listed = " and ".join([", ".join(inserted[:-1]), inserted[-1]])
    assert f"Of its layers, numbers {listed} are inserted" in finding.message
    assert finding.place == recipe["base_model"]

    fixed = mended(recipe)

    assert codes(checked(fixed), ERROR, WARNING) == []
    wanted = expected(recipe, layers, lambda name, layer: 1.0)
    assert_right(merge(fixed).out, wanted)
    (tmp_path / "fixed.yaml").write_text(as_text(fixed))
    arguments = ["merge", str(tmp_path / "fixed.yaml"), str(tmp_path / "ours")]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert_right(tmp_path / "ours", wanted)


def test_lists_and_filters_mean_in_the_slices_what_they_meant_before(
    expanded: Callable[..., Recipe], merge: Callable[..., Merge]
) -> None:
    layers = [0, 1, None, 2, 3, None]
    recipe = expanded(layers)
    recipe["models"][CHAT]["parameters"]["ratio"] = BY_DEPTH

    def ratio(name: str, layer: int) -> float:
        if "layers.1." in name:
            return 0.25
        if "mlp" in name:
            return layer / (LAYERS - 1)
        return [1.0, 0.8, 0.6, 0.4][layer] if "layers" in name else 1.0

    fixed = mended(recipe)
    report = checked(fixed)
    assert codes(report, ERROR) == []
    assert_right(merge(fixed).out, expected(recipe, layers, ratio))


def test_a_shared_ratio_and_several_chats_are_kept(
    models: Path, expanded: Callable[..., Recipe]
) -> None:
    recipe = expanded([0, 1, None, 2, 3])
    del recipe["models"][CHAT]["parameters"]["ratio"]
    second = {"model": str(models / "chat2"), "parameters": {"role": "chat", "ratio": 0.2}}
    recipe["models"].append(second)
    recipe["parameters"] = {"ratio": 0.7}
    fixed = mended(recipe)
    assert codes(checked(fixed), ERROR, WARNING) == []
    plan = checked(fixed).survey.plan
    assert plan is not None
    by_layer: dict[int | None, set[tuple[float, ...]]] = {}
    for tensor in plan.tensors:
        by_layer.setdefault(tensor.layer, set()).add(tuple(tensor.ratios.values()))
    assert by_layer == {
        **{key: {(0.7, 0.2)} for key in (None, 0, 1, 3, 4)},
        2: {(0.0, 0.0)},
    }


def test_comments_stay_and_the_slices_can_be_read(expanded: Callable[..., Recipe]) -> None:
    recipe = expanded([0, 1, None, 2, 3])
    text = "# deep\n" + as_text(recipe).replace("role: cp", "role: cp # LLaMA-Pro")
    fixed = edited(text, checked(text).edits)
    assert "# deep\n" in fixed
    assert "# LLaMA-Pro\n" in fixed
    lines = [line for line in fixed.splitlines() if "layer_range: [1, 2]" in line]
    assert len(lines) == 2  # base's and chat's for the inserted layer, which was copied from there
    assert max(len(line) for line in fixed.splitlines()) < 60 + len(recipe["base_model"]) + 60


def test_layers_that_are_not_base_s_are_models_that_are_not_related(
    models: Path, tmp_path: Path
) -> None:
    stranger = zoo.Kind("llama", LAYERS + 2, 32000, torch.bfloat16)
    zoo.build_family(tmp_path, {"stranger": stranger}, base=["stranger"], chat=[], cp=[])
    recipe = plain_recipe(models)
    recipe["base_model"] = recipe["models"][CP]["model"] = str(tmp_path / "stranger")
    report = checked(recipe)
    assert "not-related" in codes(report, ERROR)
    assert "depth-expanded" not in codes(report)


def test_pickles_are_looked_into_too(expanded: Callable[..., Recipe]) -> None:
    recipe = expanded([0, 1, None, 2, 3])
    cp = Path(recipe["base_model"])
    torch.save(oracle.stored_tensors(cp), cp / "pytorch_model.bin")
    (cp / "model.safetensors").unlink()
    assert "Of its layers, number 2 is inserted" in the("depth-expanded", checked(recipe)).message


def test_on_the_hub_it_is_told_by_the_count(
    expanded: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = expanded([0, 1, None, 2, 3])
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "o").symlink_to(tmp_path)
    recipe["base_model"] = recipe["models"][CP]["model"] = "o/deep"
    with hub.serving(tmp_path / "shelf") as served:
        hub.ask(served, monkeypatch, tmp_path / "cache")
        finding = the("depth-expanded", checked(recipe))
    assert finding.severity is ERROR
    assert f"has {LAYERS + 1} layers" in finding.message
    assert "check again" in finding.fix
    assert finding.edits == ()
