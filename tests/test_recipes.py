"""Every shared recipe, run verbatim by the stock command, against the float64 oracle."""

from __future__ import annotations

import json
from pathlib import Path

import oracle
import pytest
import yaml
import zoo
from conftest import RECIPES, mergekit_yaml

MODEL_RECIPES = sorted(file for file in RECIPES.glob("*.yaml") if file.stem != "world")


@pytest.mark.parametrize("file", MODEL_RECIPES, ids=lambda file: file.stem)
def test_stock_command_gives_the_correctly_rounded_sum(file: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
    zoo.build(tmp_path, recipe)

    mergekit_yaml(file, "out", cwd=tmp_path)

    expected = oracle.expected_output(tmp_path, recipe)
    output = oracle.output_tensors(tmp_path / "out")
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

    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == recipe["out_dtype"]
    assert config["vocab_size"] == len(output["model.embed_tokens.weight"])
