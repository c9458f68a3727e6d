"""A recipe whose cp model sees, on miniatures of its models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import oracle
import pytest
import torch
import yaml
import zoo
from checking import checked, codes
from today.miniatures import build
from today.table import TABLE

import chatvec_method
from chatvec_method.checks.findings import Severity

MINIATURES = {"llava_ko": "llava+llama"}
"""Of which architecture in the table of models that people use each recipe's models are."""
NARROW = 8
"""To which rows are padded in miniature, in place of 64."""


@pytest.mark.parametrize("name", zoo.SEEING)
def test_a_vector_of_text_models_goes_to_the_language_part_of_one_that_sees(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe: dict[str, Any] = yaml.safe_load((zoo.RECIPES / f"{name}.yaml").read_text())
    recipe["tokenizer"]["pad_to_multiple_of"] = NARROW
    entry = TABLE[MINIATURES[name]]
    (chat,) = [e for e in recipe["models"] if e["parameters"]["role"] == "chat"]
    trio = build(replace(entry, ratio=chat["parameters"]["ratio"]), tmp_path / "trio")
    for model in recipe["models"]:
        (tmp_path / model["model"]).parent.mkdir(exist_ok=True)
        (tmp_path / model["model"]).symlink_to(trio.folder / model["parameters"]["role"])
    monkeypatch.chdir(tmp_path)

    assert codes(checked(recipe), Severity.ERROR, Severity.WARNING) == []
    chatvec_method.merge(recipe, "out", quiet=True, write_model_card=False)

    chatvec_method.merge(trio.recipe, "expected", quiet=True, write_model_card=False)
    ours, expected = oracle.stored_tensors(Path("out")), oracle.stored_tensors(Path("expected"))
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[tensor], expected[tensor]) for tensor in ours)
    cp = oracle.stored_tensors(trio.cp)
    changed = {tensor for tensor in ours if not torch.equal(ours[tensor], cp[tensor])}
    assert changed
    assert not [tensor for tensor in changed if "vision" in tensor]
