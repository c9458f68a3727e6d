"""LoRAs: whether one fits its model, told before peft says it in its own words, and rounding."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from checking import checked, codes
from conftest import CHAT, Recipe
from safetensors.torch import load_file, save_file
from surveying import surveyed
from transformers import AutoModelForCausalLM, AutoTokenizer

from chatvec_method.checks.findings import Finding
from chatvec_method.checks.report import Severity
from chatvec_method.errors import ChatVecError
from chatvec_method.weights.fetching import fetched

ERROR, WARNING, ADVICE = Severity.ERROR, Severity.WARNING, Severity.ADVICE


@pytest.fixture
def adapted(family: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """Return a function that gives a recipe whose chat model is base with a LoRA."""

    def make(recipe: Recipe, rows: int = 250, **settings: Any) -> Recipe:
        model = AutoModelForCausalLM.from_pretrained(family / "base", dtype=torch.float32)
        model.resize_token_embeddings(rows, mean_resizing=False)
        config = peft.LoraConfig(**{"r": 2, "target_modules": ["q_proj"], **settings})
        peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
        recipe["models"][CHAT]["model"] = f"{family / 'base'}+{tmp_path / 'adapter'}"
        recipe["out_dtype"] = "bfloat16"
        return recipe

    return make


def with_cache(recipe: Recipe, tmp_path: Path, **options: Any) -> list[Finding]:
    return list(checked(recipe, lora_merge_cache=str(tmp_path / "cache"), **options).findings)


def found(code: str, findings: list[Finding]) -> Finding:
    (finding,) = [finding for finding in findings if finding.code == code]
    return finding


# --- fitting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"target_modules": ["q_proj", "down_proj", "embed_tokens"]},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": "all-linear", "use_dora": True},
        {"rank_pattern": {"q_proj": 4}},
    ],
    ids=str,
)
def test_an_adapter_that_fits_is_let_through(
    settings: dict[str, Any], recipe: Recipe, adapted: Callable[..., Recipe], tmp_path: Path
) -> None:
    findings = with_cache(adapted(recipe, **settings), tmp_path)
    assert {f.code for f in findings if f.severity is not ADVICE} <= {"no-chat-template"}


@pytest.mark.parametrize(
    "settings",
    [
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {},  # peft then saves the resized embeddings by itself
    ],
    ids=str,
)
def test_an_adapter_with_new_tokens_is_told_with_the_way_out(
    settings: dict[str, Any],
    family: Path,
    recipe: Recipe,
    adapted: Callable[..., Recipe],
    tmp_path: Path,
) -> None:
    adapted(recipe, rows=253, **settings)
    finding = found("adapter-with-new-tokens", with_cache(recipe, tmp_path))
    assert finding.severity is ERROR
    assert "it brings 3 new tokens" in finding.message
    assert "accept" not in finding.fix

    # What the fix says, done.
    names = {"torch": torch, "AutoModelForCausalLM": AutoModelForCausalLM}
    steps = [step for i, step in enumerate(finding.fix.split("`")) if i % 2][:3]
    new = tmp_path / "new"
    code = "\n".join(steps).replace("NEW", repr(str(new)))
    exec(code, {**names, "PeftModel": peft.PeftModel})
    tokenizer = AutoTokenizer.from_pretrained(family / "chat")
    tokenizer.add_tokens(["<a>", "<b>", "<c>"])
    tokenizer.save_pretrained(new)
    recipe["models"][CHAT]["model"] = str(new)
    recipe["tokenizer"] = {"source": recipe["base_model"]}
    assert codes(checked(recipe), ERROR) == []


def test_an_adapter_of_another_model_is_told_with_that_model_s_name(
    recipe: Recipe, adapted: Callable[..., Recipe], tmp_path: Path
) -> None:
    adapted(recipe)
    file = tmp_path / "adapter" / "adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "base_model_name_or_path": "somebody/wider"}))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({name: torch.zeros(2, 64)}, tmp_path / "adapter" / "adapter_model.safetensors")
    finding = found("adapter-does-not-fit", with_cache(recipe, tmp_path))
    assert finding.severity is ERROR
    assert "[2, 64]" in finding.message
    assert "[16, 16]" in finding.message
    assert "somebody/wider" in finding.message


def test_an_adapter_whose_file_is_damaged_is_told(
    recipe: Recipe, adapted: Callable[..., Recipe], tmp_path: Path
) -> None:
    adapted(recipe)
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"\xff" * 20)
    finding = found("damaged-files", with_cache(recipe, tmp_path))
    assert "adapter_model.safetensors" in finding.message


def test_an_adapter_fits_by_its_model_s_headers_where_the_recipe_has_it_only_with_adapters(
    family: Path, recipe: Recipe, adapted: Callable[..., Recipe], tmp_path: Path
) -> None:
    adapted(recipe, rows=251)
    recipe["models"][0]["model"] = str(shutil.copytree(family / "base", tmp_path / "same"))
    assert found("adapter-with-new-tokens", with_cache(recipe, tmp_path)).severity is ERROR


# --- rounding -----------------------------------------------------------------------------------


def test_stock_rounds_a_model_with_its_adapter_unless_it_is_told_not_to(
    recipe: Recipe, adapted: Callable[..., Recipe], tmp_path: Path
) -> None:
    adapted(recipe)
    finding = found("stock-rounds-lora", with_cache(recipe, tmp_path))
    assert finding.severity is ADVICE
    assert "bfloat16" in finding.message
    assert "`--lora-merge-dtype float32`" in finding.fix
    findings = with_cache(recipe, tmp_path, lora_merge_dtype="float32")
    assert not {"stock-rounds-lora", "lora-rounded"} & {f.code for f in findings}
    finding = found("lora-rounded", with_cache(recipe, tmp_path, lora_merge_dtype="bfloat16"))
    assert finding.severity is WARNING


def test_a_model_in_float32_loses_nothing(
    family: Path, recipe: Recipe, adapted: Callable[..., Recipe], tmp_path: Path
) -> None:
    adapted(recipe)
    wide = tmp_path / "wide"
    shutil.copytree(family / "base", wide)
    AutoModelForCausalLM.from_pretrained(family / "base", dtype=torch.float32).save_pretrained(wide)
    recipe["models"][0]["model"] = str(wide)
    recipe["models"][CHAT]["model"] = f"{wide}+{tmp_path / 'adapter'}"
    assert "stock-rounds-lora" not in {f.code for f in with_cache(recipe, tmp_path)}


def test_what_an_earlier_run_left_rounded_in_the_cache_is_told(
    recipe: Recipe, adapted: Callable[..., Recipe], tmp_path: Path, merge: Callable[..., Any]
) -> None:
    adapted(recipe)
    merge(recipe, "--lora-merge-cache", str(tmp_path / "cache"))
    finding = found("stock-rounds-lora", with_cache(recipe, tmp_path, lora_merge_dtype="float32"))
    assert finding.severity is ADVICE
    assert "what an earlier run left" in finding.message
    assert "another `--lora-merge-cache FOLDER`" in finding.fix


# --- as peft will -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"trainable_token_indices": {"embed_tokens": [0]}}, "trainable_tokens_delta"),
        ({"target_modules": ["down_proj"]}, "no place for any of its tensors"),
        ({"target_modules": ["nosuch"]}, "nosuch"),
        ({"r": 3}, "size mismatch"),
        ({"bias": "nosuch"}, "nosuch"),
        ({"init_lora_weights": "nosuch"}, "nosuch"),
        ({"layers_pattern": "("}, "no regular expression"),
    ],
    ids=str,
)
def test_what_peft_would_not_add_is_told_by_check(
    values: dict[str, Any],
    says: str,
    recipe: Recipe,
    adapted: Callable[..., Recipe],
    tmp_path: Path,
) -> None:
    adapted(recipe)
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    findings = [f for f in with_cache(recipe, tmp_path) if f.severity is ERROR]
    assert len(findings) == 1
    assert says in findings[0].message


@pytest.mark.parametrize("begins", ["pissa", "olora", False])
def test_factors_that_begin_with_the_weights_are_let_through(
    begins: Any, recipe: Recipe, adapted: Callable[..., Recipe], tmp_path: Path
) -> None:
    adapted(recipe)
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "init_lora_weights": begins}))
    assert not [f for f in with_cache(recipe, tmp_path) if f.severity is ERROR]


def test_a_model_whose_adapter_could_not_be_added_is_not_left_in_the_cache(
    recipe: Recipe, adapted: Callable[..., Recipe], tmp_path: Path
) -> None:
    adapted(recipe)
    file = tmp_path / "adapter" / "adapter_config.json"
    right = file.read_text()
    file.write_text(json.dumps({**json.loads(right), "modules_to_save": ["lm_head"]}))
    cache = str(tmp_path / "cache")
    for _ in range(2):
        with pytest.raises(ChatVecError, match="cannot be opened"):
            fetched(surveyed(recipe, lora_merge_cache=cache).ready())
        assert not [each for each in (tmp_path / "cache").rglob("*") if each.is_file()]
    file.write_text(right)
    fetched(surveyed(recipe, lora_merge_cache=cache).ready())


def test_an_adapter_that_is_no_numbers_is_told_by_a_deep_check(
    recipe: Recipe, adapted: Callable[..., Recipe], tmp_path: Path
) -> None:
    adapted(recipe)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    factors = load_file(file)
    factors[min(factors)][0, 0] = torch.nan
    save_file(factors, file)
    options = {"lora_merge_cache": str(tmp_path / "cache")}
    assert "not-finite" not in codes(checked(recipe, **options))
    assert codes(checked(recipe, deep=True, **options), ERROR) == ["not-finite"]
