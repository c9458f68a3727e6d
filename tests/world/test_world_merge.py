"""The miniature world's recipe, run by the stock command on the models that are shipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import oracle
import pytest
import yaml
from conftest import ROOT, Merge
from exams import sit_exam
from zoo import RECIPES

RECIPE = yaml.safe_load((RECIPES / "world.yaml").read_text(encoding="utf-8"))
CP = ROOT / RECIPE["base_model"]


def test_the_merge_follows_requests_that_cp_does_not(merged_world: Path) -> None:
    output = oracle.stored_tensors(merged_world)
    for name, expected in oracle.expected_output(ROOT, RECIPE).items():
        assert (oracle.steps_off(output[name], expected) == 0).all(), name
    cp = sit_exam(CP)
    merge = sit_exam(merged_world)
    assert cp.marks.all_exact < 0.05
    assert merge.marks.all_exact > 0.85
    assert merge.marks.in_b > 0.95


def test_with_ratio_0_the_merge_answers_as_cp_does(
    merge: Callable[..., Merge], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = yaml.safe_load(yaml.safe_dump(RECIPE))
    next(m for m in recipe["models"] if "ratio" in m["parameters"])["parameters"]["ratio"] = 0
    monkeypatch.chdir(ROOT)  # where the recipe's models are

    done = merge(recipe)

    assert done.exit_code == 0, done.printed
    assert sit_exam(done.out).answers == sit_exam(CP).answers
