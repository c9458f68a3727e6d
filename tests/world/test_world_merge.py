"""The miniature world's recipe, run by the stock command on the models that are shipped."""

from __future__ import annotations

from pathlib import Path

import oracle
import torch
import yaml
from conftest import ROOT, mergekit_yaml
from transformers import AutoTokenizer, LlamaForCausalLM
from zoo import RECIPES

from examples.world.exam import following, refusing
from examples.world.report import Paper, examine

RECIPE = RECIPES / "world.yaml"


def sit_exam(folder: Path) -> Paper:
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return examine(folder.name, model, tokenizer, following(), refusing())


def test_the_merge_follows_requests_that_cp_does_not(tmp_path: Path) -> None:
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    mergekit_yaml(RECIPE, str(tmp_path / "out"), cwd=ROOT)

    output = oracle.stored_tensors(tmp_path / "out")
    for name, expected in oracle.expected_output(ROOT, recipe).items():
        assert (oracle.steps_off(output[name], expected) == 0).all(), name
    cp = sit_exam(ROOT / recipe["base_model"])
    merge = sit_exam(tmp_path / "out")
    assert cp.marks.all_exact < 0.05
    assert merge.marks.all_exact > 0.85
    assert merge.marks.in_b > 0.95


def test_with_ratio_0_the_merge_answers_as_cp_does(tmp_path: Path) -> None:
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    next(m for m in recipe["models"] if "ratio" in m["parameters"])["parameters"]["ratio"] = 0
    (tmp_path / "zero.yaml").write_text(yaml.safe_dump(recipe))

    mergekit_yaml(tmp_path / "zero.yaml", str(tmp_path / "out"), cwd=ROOT)

    assert sit_exam(tmp_path / "out").answers == sit_exam(ROOT / recipe["base_model"]).answers
