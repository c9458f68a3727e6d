"""What stock mergekit leaves out or refuses, what only cp has, and what is stored otherwise."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import oracle
import pytest
import torch
import zoo
from checking import checked, codes, the
from conftest import BASE, CHAT, CP, Recipe, plain_recipe
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from chatvec_method.checks.report import Severity

ERROR, WARNING, ADVICE = Severity.ERROR, Severity.WARNING, Severity.ADVICE
TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
VISION = {
    "depth": 1,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "out_hidden_size": 32,
    "fullatt_block_indexes": [0],
}


@pytest.fixture
def seeing(tmp_path: Path) -> Recipe:
    """Return a recipe that gives a language's vector to a model that also sees."""
    kind = zoo.Kind("llama", 1, 64 * zoo.SCALE, torch.bfloat16, template=zoo.LLAMA_2_TEMPLATE)
    base = Qwen2ForCausalLM(Qwen2Config(**TEXT))
    rope = {"type": "mrope", "mrope_section": [1, 1, 2]}
    config = Qwen2_5_VLConfig(text_config={**TEXT, "rope_scaling": rope}, vision_config=VISION)
    cp = Qwen2_5_VLForConditionalGeneration(config)
    cp.load_state_dict(base.model.state_dict(prefix="model.language_model."), strict=False)
    models = {"base": base, "chat": base, "cp": cp}
    for role, model in models.items():
        torch.manual_seed(zoo.seed_of(role))
        for parameter in model.parameters():
            parameter.data += 0.001 * torch.randn(parameter.shape)
        model.bfloat16().save_pretrained(tmp_path / role)
        model.float()
        zoo.save_tokenizer(zoo.tokens(kind)[:64], "</s>", kind.template, tmp_path / role)
    return plain_recipe(tmp_path)


def test_parts_that_see_stay_cp_s_and_stock_refuses_the_architectures(seeing: Recipe) -> None:
    report = checked(seeing)
    assert codes(report, ERROR) == []
    kept = the("tensors-kept", report)
    assert kept.severity is ADVICE
    assert "stay cp's, at any ratio" in kept.message
    refused = the("stock-refuses-architectures", report)
    assert refused.severity is ADVICE
    assert "`chatvec merge`" in refused.fix
    assert "Qwen2_5_VLForConditionalGeneration" in refused.message


@pytest.mark.parametrize("place", [BASE, CHAT])
def test_the_output_s_config_is_of_cp_s_architecture(place: int, seeing: Recipe) -> None:
    seeing["base_model"] = seeing["models"][place]["model"]
    wanted = "recipe-refused" if place == BASE else "base-model-of-another-architecture"
    report = checked(seeing)
    assert wanted in codes(report, ERROR)
    if place == CHAT:
        assert f"`base_model: {seeing['models'][CP]['model']}`" in the(wanted, report).fix


def test_tensors_that_mergekit_does_not_know_are_told(tmp_path: Path) -> None:
    """Its definition of T5 lacks the first half of plain feed-forward layers."""
    sizes = {"d_model": 16, "d_ff": 32, "num_layers": 1, "num_heads": 2, "d_kv": 8}
    config = AutoConfig.for_model("t5", vocab_size=64, **sizes)
    for role in ("base", "chat", "cp"):
        AutoModelForSeq2SeqLM.from_config(config).bfloat16().save_pretrained(tmp_path / role)
    finding = the("stock-drops-tensors", checked(plain_recipe(tmp_path)))
    assert finding.severity is ADVICE
    assert "DenseReluDense.wi" in finding.message


# --- quantised ----------------------------------------------------------------------------------


@pytest.fixture
def quantised(recipe: Recipe, tmp_path: Path) -> Callable[..., Recipe]:
    """Return a function that stores one weight of a model otherwise."""

    def make(place: int, change: Callable[[dict[str, torch.Tensor], str], None]) -> Recipe:
        path = Path(recipe["models"][place]["model"])
        tensors = oracle.stored_tensors(path)
        change(tensors, "model.layers.1.mlp.up_proj")
        folder = shutil.copytree(path, tmp_path / "quantised")
        for file in folder.glob("model*"):
            file.unlink()
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        if recipe["base_model"] == str(path):
            recipe["base_model"] = str(folder)
        recipe["models"][place]["model"] = str(folder)
        return recipe

    return make


def fp8(tensors: dict[str, torch.Tensor], name: str) -> None:
    weight = tensors[f"{name}.weight"].float()
    scale = weight.abs().max() / 448
    tensors[f"{name}.weight"] = (weight / scale).to(torch.float8_e4m3fn)
    tensors[f"{name}.weight_scale"] = scale.reshape(())


def gptq(tensors: dict[str, torch.Tensor], name: str) -> None:
    rows, columns = tensors.pop(f"{name}.weight").shape
    tensors[f"{name}.qweight"] = torch.zeros(columns // 8, rows, dtype=torch.int32)
    tensors[f"{name}.qzeros"] = torch.zeros(1, rows // 8, dtype=torch.int32)
    tensors[f"{name}.g_idx"] = torch.zeros(columns, dtype=torch.int32)


@pytest.mark.parametrize("place", [BASE, CHAT, CP])
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_fp8_without_a_config_that_says_so_is_not_taken_for_weights(
    place: int, dtype: str | None, quantised: Callable[..., Recipe]
) -> None:
    """With `dtype:`, stock mergekit casts the stored numbers and leaves out their scales."""
    recipe = quantised(place, fp8)
    if dtype:
        recipe["dtype"] = dtype
    finding = the("dequantised", checked(recipe))
    assert finding.severity is ADVICE
    assert finding.place == recipe["models"][place]["model"]
    assert "FP8" in finding.message


@pytest.mark.parametrize("place", [BASE, CHAT, CP])
def test_what_cannot_be_dequantised_is_refused_with_the_unquantised_model_s_name(
    place: int, quantised: Callable[..., Recipe]
) -> None:
    recipe = quantised(place, gptq)
    folder = Path(recipe["models"][place]["model"])
    (folder / "README.md").write_text(
        "---\nbase_model: somebody/plain\nbase_model_relation: quantized\n---\n"
    )
    finding = the("quantised", checked(recipe))
    assert finding.severity is ERROR
    assert finding.place == str(folder)
    assert "somebody/plain" in finding.fix
    assert "accept" not in finding.fix


def test_each_quantised_model_is_told(quantised: Callable[..., Recipe], recipe: Recipe) -> None:
    quantised(CHAT, gptq)
    recipe["models"][BASE]["model"] = str(
        shutil.copytree(recipe["models"][CHAT]["model"], Path(recipe["base_model"]).parent / "q")
    )
    report = checked(recipe)
    places = [finding.place for finding in report.findings if finding.code == "quantised"]
    assert sorted(places) == sorted(entry["model"] for entry in recipe["models"][:2])


def test_experts_that_stock_mergekit_joins_are_told(tmp_path: Path) -> None:
    """Transformers 4 knows a mixture's experts one by one, as cp's files have them."""
    kind = zoo.Kind("mixtral", 1, 32000, torch.bfloat16, template=zoo.LLAMA_2_TEMPLATE)
    roles = ("base", "chat", "cp")
    zoo.build_family(tmp_path, dict.fromkeys(roles, kind), **{role: [role] for role in roles})
    finding = the("stock-renames-tensors", checked(plain_recipe(tmp_path)))
    assert finding.severity is ADVICE
    assert "experts.gate_up_proj" in finding.message
    assert "`chatvec merge`" in finding.fix
