"""Models of several parts: a finding about layers says in which part they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import zoo
from checking import checked, codes
from conftest import CHAT, Recipe, plain_recipe
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
}
VISION = {
    "depth": 4,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "out_hidden_size": 32,
    "fullatt_block_indexes": [0],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with base, chat and cp, which see with four layers and speak with five."""
    folder = tmp_path_factory.mktemp("seeing")
    kind = zoo.Kind("llama", 1, 64 * zoo.SCALE, torch.bfloat16, template=zoo.LLAMA_2_TEMPLATE)
    model = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=TEXT, vision_config=VISION)
    )
    for role in ("base", "chat", "cp"):
        torch.manual_seed(zoo.seed_of(role))
        for parameter in model.parameters():
            parameter.data += 0.001 * torch.randn(parameter.shape)
        model.bfloat16().save_pretrained(folder / role)
        model.float()
        zoo.save_tokenizer(zoo.tokens(kind)[:64], "</s>", kind.template, folder / role)
    return folder


@pytest.fixture
def seeing(folder: Path) -> Recipe:
    return plain_recipe(folder)


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ([1.0, 0.9, 0.8, 0.7, 0.6], ["for 4 layers of vision_tower"]),
        ([1.0, 0.9, 0.8, 0.7], ["for 5 layers,"]),
        ([1.0, 0.9, 0.8, 0.7, 0.6, 0.5], ["for 5 layers,", "for 4 layers of vision_tower"]),
        ([1.0, 0.5], []),
    ],
)
def test_a_list_is_counted_for_each_part_by_itself(
    numbers: list[float], told: list[str], seeing: Recipe
) -> None:
    seeing["models"][CHAT]["parameters"]["ratio"] = numbers
    report = checked(seeing)
    messages = [f.message for f in report.findings if f.code == "list-interpolated"]
    assert len(messages) == len(told), codes(report)
    for words in told:
        assert any(words in message for message in messages), messages


def test_a_layer_that_differs_is_named_with_its_part(folder: Path, tmp_path: Path) -> None:
    """The number alone would do for either part."""
    recipe = plain_recipe(folder)
    chat = shutil.copytree(folder / "chat", tmp_path / "chat")
    tensors = load_file(chat / "model.safetensors")
    name = next(n for n in tensors if "visual.blocks.2." in n and n.endswith("proj.weight"))
    tensors.pop(name)
    save_file(tensors, chat / "model.safetensors", {"format": "pt"})
    recipe["models"][CHAT]["model"] = str(chat)
    (message,) = (f.message for f in checked(recipe).findings if f.code == "tensor-missing")
    assert name in message
