"""Every shared recipe, run verbatim by the stock command, against the float64 oracle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import hub
import oracle
import pytest
import yaml
import zoo
from conftest import run_stock


@pytest.mark.parametrize("file", zoo.MODEL_RECIPES, ids=lambda file: file.stem)
def test_stock_command_gives_the_correctly_rounded_sum(
    file: Path, merged_by_stock: Callable[[Path], Path]
) -> None:
    recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
    folder = merged_by_stock(file)

    expected = oracle.expected_output(folder, recipe)
    output = oracle.stored_tensors(folder / "stock")
    assert output.keys() == expected.keys()
    elements = wrong = 0
    for name, tensor in output.items():
        assert str(tensor.dtype) == f"torch.{recipe['out_dtype']}", name
        assert tensor.shape == expected[name].shape, name
        steps = oracle.steps_off(tensor, expected[name])
        assert steps.max(initial=0) <= 1, name
        elements += steps.size
        wrong += (steps > 0).sum()
    assert wrong <= 1e-5 * elements, f"{wrong} of {elements} elements are not correctly rounded"

    config = json.loads((folder / "stock" / "config.json").read_text())
    assert config["dtype"] == recipe["out_dtype"]
    assert config["vocab_size"] == len(output["model.embed_tokens.weight"])


def test_model_card_names_the_method_and_the_paper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = zoo.RECIPES / "swallow_ms.yaml"
    zoo.build(tmp_path, yaml.safe_load(file.read_text(encoding="utf-8")))
    monkeypatch.chdir(tmp_path)

    with hub.serving(tmp_path / "hub") as without_models:
        hub.ask(without_models, monkeypatch, tmp_path / "cache")
        written = run_stock(str(file), "out", "--write-model-card", "--quiet")
    assert written.exit_code == 0, written.output
    assert without_models.requests, "the card names the models as the hub has them"

    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "[Chat Vector](https://arxiv.org/abs/2310.04799)" in card
    assert (tmp_path / "out" / "mergekit_config.yml").read_text() == file.read_text()
