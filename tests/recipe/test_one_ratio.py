"""One ratio for a whole recipe, whatever it said before."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from conftest import CHAT, Recipe
from surveying import ready

from chatvec_method.cli import main
from chatvec_method.recipe.one_ratio import with_one_ratio

PER_LAYER = """\
merge_method: chat_vector # the paper's
base_model: cp
models:
  - model: base
    parameters: {role: base}
  - model: chat
    parameters:
      role: chat
      ratio: # by part
        - {filter: mlp, value: [0.5, 1]}
        - {value: 1}
  - model: other
    parameters: {role: chat}
  - model: cp
    parameters: {role: cp}
parameters: {ratio: 0.25}
"""


def test_every_chat_model_has_it_and_nothing_else_does() -> None:
    raw = yaml.safe_load(PER_LAYER)
    text = with_one_ratio(PER_LAYER, raw, 0.7)

    assert text.splitlines()[0] == PER_LAYER.splitlines()[0]
    written = yaml.safe_load(text)
    settings = [entry["parameters"] for entry in written["models"]]
    chats = [{"role": "chat", "ratio": 0.7}] * 2
    assert settings == [{"role": "base"}, *chats, {"role": "cp"}]
    assert written["parameters"] == {}


@pytest.mark.parametrize("ratio", [0.0, 0.5, -1.5])
def test_every_tensor_gets_it(recipe: Recipe, ratio: float) -> None:
    recipe["models"][CHAT]["parameters"]["ratio"] = [{"filter": "mlp", "value": [1.0, 0.5]}, 0.3]
    recipe["models"][CHAT]["parameters"]["ratio"][1] = {"value": 0.3}
    text = with_one_ratio(yaml.safe_dump(recipe), recipe, ratio)

    plan = ready(text).plan
    assert {value for tensor in plan.tensors for value in tensor.ratios.values()} == {ratio}


def test_merge_takes_it_and_writes_it_into_the_outputs_recipe(
    recipe: Recipe, tmp_path: Path
) -> None:
    file, out = tmp_path / "recipe.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(recipe))
    result = CliRunner().invoke(main, ["merge", str(file), str(out), "--ratio", "0.25"])

    assert result.exit_code == 0, result.output
    written = yaml.safe_load((out / "mergekit_config.yml").read_text())
    assert written["models"][CHAT]["parameters"] == {"role": "chat", "ratio": 0.25}
    assert yaml.safe_load(file.read_text()) == recipe
