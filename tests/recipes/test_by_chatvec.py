"""The recipes that only `chatvec merge` is held to, on miniatures of their models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import oracle
import pytest
import torch
import yaml
import zoo
from checking import checked, codes, wrong_tensors
from today.miniatures import build
from today.table import TABLE

import chatvec_method
from chatvec_method.checks.findings import Severity

LLAVA = TABLE["llava+llama"]
"""LLaVA on Llama 3, in the table of the models that people use."""
NARROW = 8
"""To which rows are padded in miniature, in place of 64."""
VOCABULARY = {"embed_tokens", "lm_head"}
QUIET: dict[str, Any] = {"quiet": True, "write_model_card": False}


def same_weights(one: str, other: str) -> bool:
    ours, theirs = oracle.stored_tensors(Path(one)), oracle.stored_tensors(Path(other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def named(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return what `new_recipe` takes, from a recipe with one chat model."""
    models = {entry["parameters"]["role"]: entry for entry in recipe["models"]}
    ratio = models["chat"]["parameters"]["ratio"]
    return {**{role: entry["model"] for role, entry in models.items()}, "ratio": ratio}


def test_exaones_output_has_the_names_of_its_files_and_the_right_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (zoo.RECIPES / "exaone_deep.yaml").read_text(encoding="utf-8")
    recipe = yaml.safe_load(text)
    zoo.build(tmp_path, recipe)
    monkeypatch.chdir(tmp_path)
    assert codes(checked(text), Severity.ERROR, Severity.WARNING) == []
    chatvec_method.merge(text, "out", **QUIET)
    assert wrong_tensors(Path("out"), recipe) == []

    chatvec_method.merge(chatvec_method.new_recipe(**named(recipe)), "new", **QUIET)
    assert same_weights("new", "out")


def test_a_vector_of_text_models_goes_to_the_language_part_of_one_that_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = yaml.safe_load((zoo.RECIPES / "llava_ko.yaml").read_text(encoding="utf-8"))
    recipe["tokenizer"]["pad_to_multiple_of"] = NARROW
    trio = build(replace(LLAVA, ratio=named(recipe)["ratio"]), tmp_path / "trio")
    for model in recipe["models"]:
        (tmp_path / model["model"]).parent.mkdir(exist_ok=True)
        (tmp_path / model["model"]).symlink_to(trio.folder / model["parameters"]["role"])
    monkeypatch.chdir(tmp_path)
    assert codes(checked(recipe), Severity.ERROR, Severity.WARNING) == []
    chatvec_method.merge(recipe, "out", **QUIET)

    chatvec_method.merge(trio.recipe, "expected", **QUIET)
    assert same_weights("out", "expected")
    ours, cp = oracle.stored_tensors(Path("out")), oracle.stored_tensors(trio.cp)
    changed = {name for name in ours if not torch.equal(ours[name], cp[name])}
    assert changed
    assert not [name for name in changed if "vision" in name]

    new = chatvec_method.new_recipe(**named(recipe))
    assert codes(checked(new.text), Severity.ERROR, Severity.WARNING) == []
    chatvec_method.merge(new, "new", **QUIET)
    theirs = oracle.stored_tensors(Path("new"))
    assert ours.keys() == theirs.keys()
    others = {name for name in ours if not torch.equal(ours[name], theirs[name])}
    # The miniature's chat model chats, and the new recipe gives its markers all that it learnt.
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in others} <= VOCABULARY
    assert not others or "hardly trained" in new.text
