"""What recipes may say, as changes to the plainest one, and models that such recipes name."""

from __future__ import annotations

from pathlib import Path

import torch
from conftest import CHAT, CP, Recipe
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer


def use(recipe: Recipe, folder: Path, **models: str) -> None:
    """Let the models with these roles be others in a folder."""
    for entry in recipe["models"]:
        role = entry["parameters"]["role"]
        if role in models:
            entry["model"] = str(folder / models[role])
    recipe["base_model"] = recipe["models"][CP]["model"]


def write_relatives(family: Path, folder: Path) -> None:
    """Write into a folder odd relatives of the family.

    With tokens of their own: `base_more`, `chat_more`; with tied embeddings: `base_tied`,
    `chat_tied`, `cp_tied`; and `adapter`, a LoRA of base.
    """
    for name, tokens in (("base", ["<|b|>", "<|both|>"]), ("chat", ["<|both|>", "<|c|>"])):
        tokenizer = AutoTokenizer.from_pretrained(family / name)
        tokenizer.add_tokens(tokens, special_tokens=True)
        model = AutoModelForCausalLM.from_pretrained(family / name)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        model.save_pretrained(folder / f"{name}_more")
        tokenizer.save_pretrained(folder / f"{name}_more")
    for name in ("base", "chat", "cp"):
        model = AutoModelForCausalLM.from_pretrained(family / name)
        model.config.tie_word_embeddings = True
        model.tie_weights()
        model.save_pretrained(folder / f"{name}_tied")
        AutoTokenizer.from_pretrained(family / name).save_pretrained(folder / f"{name}_tied")
    model = AutoModelForCausalLM.from_pretrained(family / "base")
    adapter = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in adapter.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.01 * torch.randn(parameter.shape, generator=generator)
    adapter.save_pretrained(folder / "adapter")


def second_chat_vector(recipe: Recipe, family: Path, relatives: Path) -> None:
    second = {"model": str(family / "chat2"), "parameters": {"role": "chat", "ratio": 0.3}}
    recipe["models"].insert(CP, second)
    recipe["models"][CHAT]["parameters"]["ratio"] = [{"filter": "mlp", "value": 0}, {"value": 0.7}]


def slices_that_repeat_a_layer(recipe: Recipe, family: Path, relatives: Path) -> None:
    models = recipe.pop("models")
    recipe["slices"] = [
        {"sources": [{**model, "layer_range": layers} for model in models]}
        for layers in ([0, 2], [1, 3])
    ]


def dtypes_of_all_kinds(recipe: Recipe, family: Path, relatives: Path) -> None:
    use(recipe, family, chat="chat16", cp="cp32")


def dtype_that_casts_on_load(recipe: Recipe, family: Path, relatives: Path) -> None:
    use(recipe, family, cp="cp32")
    recipe |= {"dtype": "bfloat16", "out_dtype": "float32"}


def ratio_0_and_dtype_that_casts_on_load(recipe: Recipe, family: Path, relatives: Path) -> None:
    dtype_that_casts_on_load(recipe, family, relatives)
    recipe["models"][CHAT]["parameters"]["ratio"] = 0


def extended_and_padded_vocabulary(recipe: Recipe, family: Path, relatives: Path) -> None:
    use(recipe, family, cp="cp_extended")
    recipe["tokenizer"] = {"source": recipe["base_model"], "pad_to_multiple_of": 64}


def union_with_tokens_that_cp_lacks(recipe: Recipe, family: Path, relatives: Path) -> None:
    use(recipe, relatives, base="base_more", chat="chat_more")
    recipe["tokenizer"] = {"source": "union"}  # <|both|> gets the mean of two rows


def tokens_with_sources_of_their_own(recipe: Recipe, family: Path, relatives: Path) -> None:
    use(recipe, relatives, chat="chat_more")
    use(recipe, family, cp="cp_extended")
    base, chat, cp = (entry["model"] for entry in recipe["models"])
    recipe["tokenizer"] = {
        "source": cp,
        "tokens": {
            "<|both|>": {"source": chat},
            "<|c|>": {"source": chat, "force": True},
            "<|zero|>": {"source": {"kind": "zero"}},
            "▁token5": {
                "source": {"kind": "model_token", "model": cp, "token": "▁token9"},
                "force": True,
            },
            "<|new|>": {"source": {"kind": "model_token", "model": base, "token_id": 7}},
        },
    }


def tied_models(recipe: Recipe, family: Path, relatives: Path) -> None:
    use(recipe, relatives, base="base_tied", chat="chat_tied", cp="cp_tied")


def cp_tied_and_the_others_not(recipe: Recipe, family: Path, relatives: Path) -> None:
    use(recipe, relatives, cp="cp_tied")


def adapter_as_chat(recipe: Recipe, family: Path, relatives: Path) -> None:
    use(recipe, family, cp="cp_extended")
    recipe["models"][CHAT]["model"] = f"{family / 'base'}+{relatives / 'adapter'}"
    recipe["tokenizer"] = {"source": recipe["base_model"]}
    recipe["out_dtype"] = "bfloat16"


CHANGES = [
    second_chat_vector,
    slices_that_repeat_a_layer,
    dtypes_of_all_kinds,
    dtype_that_casts_on_load,
    ratio_0_and_dtype_that_casts_on_load,
    extended_and_padded_vocabulary,
    union_with_tokens_that_cp_lacks,
    tokens_with_sources_of_their_own,
    tied_models,
    cp_tied_and_the_others_not,
    adapter_as_chat,
]
