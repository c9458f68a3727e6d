"""A difference of two models, published as a folder of its own and taken for a model."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import hub
import oracle
import pytest
import torch
from checking import checked, codes, the
from conftest import BASE, CHAT, CP, Recipe, plain_recipe
from safetensors.torch import save_file
from sparse import build_sparse_model
from transformers import AutoConfig, AutoModelForCausalLM

from chatvec_method.checks.report import Severity
from chatvec_method.checks.vectors import vector_findings

ERROR = Severity.ERROR


@pytest.fixture
def differing(tmp_path: Path) -> Callable[..., Recipe]:
    """Return a function that puts a difference of two models in the place of one."""

    def make(recipe: Recipe, place: int, of: int, minus: int, times: float = 1) -> Recipe:
        paths = [Path(entry["model"]) for entry in recipe["models"]]
        whole, other = oracle.stored_tensors(paths[of]), oracle.stored_tensors(paths[minus])
        vector = {n: (times * (whole[n].float() - other[n].float())).bfloat16() for n in whole}
        folder = shutil.copytree(paths[of], tmp_path / f"difference-{place}")
        for file in folder.glob("model*"):
            file.unlink()
        save_file(vector, folder / "model.safetensors", {"format": "pt"})
        if recipe["base_model"] == str(paths[place]):
            recipe["base_model"] = str(folder)
        recipe["models"][place]["model"] = str(folder)
        return recipe

    return make


@pytest.mark.parametrize(
    ("place", "of", "says"),
    [
        (CHAT, CHAT, ("a chat vector, chat − base", "not like a chat model")),
        (CP, CP, ("a language vector, cp − base", "not like a cp model")),
    ],
)
def test_a_difference_is_told_for_what_it_is(
    place: int, of: int, says: tuple[str, ...], recipe: Recipe, differing: Callable[..., Recipe]
) -> None:
    assert "looks-like-a-vector" not in codes(checked(recipe))
    differing(recipe, place, of, BASE)
    finding = the("looks-like-a-vector", checked(recipe))
    assert finding.severity is ERROR
    assert finding.place == recipe["models"][place]["model"]
    assert all(part in finding.message for part in says)
    assert recipe["models"][BASE]["model"] in finding.fix
    assert "accept: [looks-like-a-vector]" in finding.fix


def test_a_long_difference_is_told_by_its_norms(
    recipe: Recipe, differing: Callable[..., Recipe]
) -> None:
    """Its matrices are as long as base's, but its norms are not near 1."""
    differing(recipe, CHAT, CHAT, BASE, times=10)
    assert "a chat vector" in the("looks-like-a-vector", checked(recipe)).message


def test_a_difference_in_the_place_of_base_is_told_of_base(
    recipe: Recipe, differing: Callable[..., Recipe]
) -> None:
    differing(recipe, BASE, CHAT, BASE)
    finding = the("looks-like-a-vector", checked(recipe))
    assert finding.place == recipe["models"][BASE]["model"]
    assert "the others were trained from" in finding.fix


@pytest.mark.parametrize("name", ["gemma", "gemma2", "qwen3"])
@pytest.mark.parametrize("vector", [False, True])
def test_norms_that_are_stored_around_zero_are_no_sign_of_a_vector(
    name: str, vector: bool, tmp_path: Path, differing: Callable[..., Recipe]
) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(name, vocab_size=64, **sizes, **heads)
    )
    for role in ("base", "chat", "cp"):
        torch.manual_seed(len(role))
        for parameter in model.parameters():
            parameter.data += 0.001 * torch.randn(parameter.shape)
        model.bfloat16().save_pretrained(tmp_path / role)
        model.float()
    recipe = plain_recipe(tmp_path)
    if vector:
        differing(recipe, CHAT, CHAT, BASE)
    assert ("looks-like-a-vector" in codes(checked(recipe))) is vector


def test_a_difference_without_a_tokenizer_is_told_too(
    recipe: Recipe, differing: Callable[..., Recipe]
) -> None:
    differing(recipe, CHAT, CHAT, BASE)
    for file in Path(recipe["models"][CHAT]["model"]).glob("*token*"):
        file.unlink()
    assert "looks-like-a-vector" in codes(checked(recipe))


def test_models_of_which_nothing_can_be_read_are_not_judged(
    family: Path, recipe: Recipe, differing: Callable[..., Recipe]
) -> None:
    """A file that ends too early, and pickles."""
    differing(recipe, CHAT, CHAT, BASE)
    file = Path(recipe["models"][CHAT]["model"]) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:2000])
    assert codes(checked(recipe), ERROR) == ["damaged-files"]


def test_it_takes_no_time_whatever_the_size(tmp_path: Path) -> None:
    for role in ("base", "chat", "cp"):  # 6 GB each, of holes
        build_sparse_model(tmp_path / role, layers=2, vocabulary=1024)
    recipe = plain_recipe(tmp_path)
    report = checked(recipe)
    start = time.perf_counter()
    assert list(vector_findings(report.survey, report.roles)) == []  # all zeros
    assert time.perf_counter() - start < 1  # to read them all would take several


@pytest.mark.parametrize("place", [BASE, CHAT])
def test_a_row_of_pickles_tells_as_well(
    place: int, recipe: Recipe, differing: Callable[..., Recipe], tmp_path: Path
) -> None:
    """The first deltas were published in pickles."""
    differing(recipe, CHAT, CHAT, BASE)
    folder = shutil.copytree(recipe["models"][place]["model"], tmp_path / "pickled")
    torch.save(oracle.stored_tensors(folder), folder / "pytorch_model.bin")
    for file in folder.glob("model*"):
        file.unlink()
    recipe["models"][place]["model"] = str(folder)
    report = checked(recipe)
    assert the("looks-like-a-vector", report).place == recipe["models"][CHAT]["model"]


def test_it_is_told_where_another_model_is_on_the_hub(
    family: Path,
    recipe: Recipe,
    differing: Callable[..., Recipe],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    differing(recipe, CHAT, CHAT, BASE)
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "o").symlink_to(family)
    recipe["models"][BASE]["model"] = "o/base"
    with hub.serving(tmp_path / "shelf") as served:
        hub.ask(served, monkeypatch, tmp_path / "cache")
        assert "looks-like-a-vector" in codes(checked(recipe))
