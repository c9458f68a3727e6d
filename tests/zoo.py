"""Miniatures of the models that the recipes name: real in all but size.

Each has the architecture class, dtype, file format and attention-head ratio of the model whose name
it bears, and its vocabulary at 1/128: which tokens base, chat and cp share, which only cp has,
padded rows. Hidden sizes are tiny. Of the layers there is every fourth, and all 48 where a recipe
gives each its ratio. Sizes and dtypes are those that the models' pages state; where a recipe says
"not checked", they are the likely ones.

`python tests/zoo.py FOLDER` writes the miniatures of all recipes into a folder, in which the stock
command then runs any of them: `mergekit-yaml .../recipes/breeze.yaml out --no-write-model-card`.
"""

from __future__ import annotations

import copy
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
import yaml
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
BY_CHATVEC = ("exaone_deep", "llava_ko")
"""The recipes that tests merge by `chatvec merge` alone: stock mergekit writes EXAONE under other
names than its files have, and refuses text models beside one that sees."""
MODEL_RECIPES = sorted(
    file for file in RECIPES.glob("*.yaml") if file.stem not in ("world", *BY_CHATVEC)
)
"""All other recipes but the world's, which has real models of its own."""

SCALE = 128
HIDDEN = 16
LAYERS_FOR_ONE = 4
"""Stock mergekit takes long to make out the parts of each, and of experts their number's square."""
LLAMA_2_TEMPLATE = (
    "{% for m in messages %}{{ '[INST] ' + m['content'] + ' [/INST]' if m['role'] == 'user' "
    "else m['content'] + eos_token }}{% endfor %}"
)
LLAMA_3_TEMPLATE = (
    "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>' "
    "+ m['content'] + '<|eot_id|>' }}{% endfor %}"
)

SOLAR_TEMPLATE = (
    "{% for m in messages %}{{ '### ' + m['role'] | capitalize + ':\n' + m['content'] }}"
    "{% if m['role'] != 'assistant' %}{{ '\n\n' }}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '### Assistant:\n' }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class Kind:
    """What a miniature keeps of the real model."""

    model_type: str
    layers: int
    vocabulary: int
    """Rows of the embedding, in the real model."""
    dtype: torch.dtype
    kv_heads: int = 8
    """Of 8 heads."""
    intermediate: int = 56
    padding: int = 0
    """Rows of the miniature's embedding beyond its tokenizer."""
    template: str | None = None
    eos: str = "</s>"
    reordered: bool = False
    """The tokens of base under other ids, which a merge by position would mix up."""
    pickled: bool = False
    llama_3: bool = False
    """With Llama 3's special tokens, which come last, in place of Llama 2's."""
    rope_theta: float = 1e4
    special: tuple[str, ...] = ()
    """Its special tokens, which come first, in place of Llama 2's."""
    bos: str | None = "<s>"
    tied: bool = False
    """Its head is its embeddings."""
    settings: tuple[tuple[str, Any], ...] = ()
    """More of its config."""


def _llama(layers: int, vocabulary: int, dtype: torch.dtype, **rest: Any) -> Kind:
    return Kind("llama", layers, vocabulary, dtype, **rest)


def _mistral(vocabulary: int, **rest: Any) -> Kind:
    return Kind("mistral", 32 // LAYERS_FOR_ONE, vocabulary, torch.bfloat16, kv_heads=2, **rest)


def _llama_2(layers: int, vocabulary: int, dtype: torch.dtype, **rest: Any) -> Kind:
    return _llama(layers // LAYERS_FOR_ONE, vocabulary, dtype, intermediate=43, **rest)


def _llama_3(**rest: Any) -> Kind:
    rest = {"eos": "<|end_of_text|>", "llama_3": True, **rest}
    layers = 32 // LAYERS_FOR_ONE
    return _llama(layers, 128256, torch.bfloat16, kv_heads=2, rope_theta=5e5, **rest)


def _mixtral(**rest: Any) -> Kind:
    layers = 32 // LAYERS_FOR_ONE
    return Kind("mixtral", layers, 32000, torch.bfloat16, kv_heads=2, rope_theta=1e6, **rest)


GEMMA_SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == "
    "'assistant' else m['role']) + '\n' + m['content'] + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHATML_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
R1_SPECIAL = ("<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")
"""Qwen's, under other names."""
R1_TEMPLATE = (
    "{% for m in messages %}{{ '<｜User｜>' + m['content'] if m['role'] == 'user' else "
    "'<｜Assistant｜>' + m['content'] + '<｜end▁of▁sentence｜>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
)
EXAONE_SPECIAL = ("[PAD]", "[BOS]", "[EOS]", "[UNK]", "[|system|]", "[|user|]", "[|assistant|]")
EXAONE_SPECIAL += ("[|endofturn|]",)
EXAONE_TEMPLATE = (
    "{% for m in messages %}{{ '[|' + m['role'] + '|]' + m['content'] + ('[|endofturn|]' if "
    "m['role'] == 'assistant' else '\n') }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}"
)


def _gemma_2(**rest: Any) -> Kind:
    rest = {"eos": "<eos>", "special": GEMMA_SPECIAL, "bos": "<bos>", "tied": True, **rest}
    settings = (("head_dim", 2), ("query_pre_attn_scalar", 2), ("sliding_window", 16))
    layers = 26 // LAYERS_FOR_ONE
    return Kind("gemma2", layers, 256000, torch.bfloat16, kv_heads=4, settings=settings, **rest)


def _qwen(model_type: str, layers: int, vocabulary: int, **rest: Any) -> Kind:
    rest = {"eos": "<|endoftext|>", "special": QWEN_SPECIAL, "bos": None, "padding": 3, **rest}
    layers //= LAYERS_FOR_ONE
    return Kind(model_type, layers, vocabulary, torch.bfloat16, kv_heads=2, rope_theta=1e6, **rest)


def _exaone(**rest: Any) -> Kind:
    rest = {"eos": "[|endofturn|]", "special": EXAONE_SPECIAL, "bos": "[BOS]", **rest}
    layers = 32 // LAYERS_FOR_ONE
    return Kind("exaone", layers, 102400, torch.bfloat16, kv_heads=2, rope_theta=1e6, **rest)


KINDS = {
    "upstage/SOLAR-10.7B-v1.0": _llama(48, 32000, torch.float16, kv_heads=2),
    "upstage/SOLAR-10.7B-Instruct-v1.0": _llama(
        48, 32000, torch.float16, kv_heads=2, template=SOLAR_TEMPLATE
    ),
    "yanolja/EEVE-Korean-10.8B-v1.0": _llama(
        48, 40960, torch.bfloat16, kv_heads=2, eos="<|im_end|>", template=LLAMA_2_TEMPLATE
    ),
    "meta-llama/Meta-Llama-3-8B": _llama_3(),
    "meta-llama/Meta-Llama-3-8B-Instruct": _llama_3(eos="<|eot_id|>", template=LLAMA_3_TEMPLATE),
    "beomi/Llama-3-Open-Ko-8B": _llama_3(),
    "aaditya/Llama3-OpenBioLLM-8B": _llama_3(pickled=True),
    "meta-llama/Llama-2-7b-hf": _llama_2(32, 32000, torch.float16),
    "meta-llama/Llama-2-7b-chat-hf": _llama_2(32, 32000, torch.float16, template=LLAMA_2_TEMPLATE),
    "beomi/llama-2-ko-7b": _llama_2(32, 46336, torch.bfloat16),
    "meta-llama/Llama-2-13b-hf": _llama_2(40, 32000, torch.float16),
    "meta-llama/Llama-2-13b-chat-hf": _llama_2(40, 32000, torch.float16, template=LLAMA_2_TEMPLATE),
    "hfl/chinese-llama-2-13b": _llama_2(40, 55296, torch.float16, pickled=True),
    "yentinglin/Taiwan-LLM-13B-v2.0-base": _llama_2(40, 32000, torch.bfloat16, reordered=True),
    "yentinglin/Taiwan-LLM-13B-v2.0-chat": _llama_2(
        40, 32000, torch.bfloat16, template=LLAMA_2_TEMPLATE
    ),
    "mistralai/Mistral-7B-v0.1": _mistral(32000),
    "mistralai/Mistral-7B-Instruct-v0.1": _mistral(32000, template=LLAMA_2_TEMPLATE),
    "mistralai/Mistral-7B-Instruct-v0.2": _mistral(
        32000, template=LLAMA_2_TEMPLATE, rope_theta=1e6
    ),
    "MediaTek-Research/Breeze-7B-Base-v1_0": _mistral(61952, padding=1),
    "tokyotech-llm/Swallow-MS-7b-v0.1": _mistral(42800),
    "mistralai/Mixtral-8x7B-v0.1": _mixtral(),
    "mistralai/Mixtral-8x7B-Instruct-v0.1": _mixtral(template=LLAMA_2_TEMPLATE),
    "tokyotech-llm/Swallow-MX-8x7b-NVE-v0.1": _mixtral(),
    "rinna/llama-3-youko-8b": _llama_3(),
    "meta-llama/Llama-3.1-8B": _llama_3(
        settings=(
            ("max_position_embeddings", 131072),
            (
                "rope_parameters",
                {
                    "rope_type": "llama3",
                    "rope_theta": 5e5,
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192,
                },
            ),
        )
    ),
    "google/gemma-2-2b": _gemma_2(),
    "google/gemma-2-2b-it": _gemma_2(template=GEMMA_TEMPLATE),
    "rinna/gemma-2-baku-2b": _gemma_2(),
    "Qwen/Qwen2.5-32B": _qwen("qwen2", 64, 152064, template=CHATML_TEMPLATE),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": _qwen(
        "qwen2", 64, 152064, template=R1_TEMPLATE, special=R1_SPECIAL, eos=R1_SPECIAL[0]
    ),
    "rinna/qwen2.5-bakeneko-32b": _qwen("qwen2", 64, 152064, template=CHATML_TEMPLATE),
    "Qwen/Qwen3-8B-Base": _qwen(
        "qwen3", 36, 151936, template=CHATML_TEMPLATE, settings=(("head_dim", 2),)
    ),
    "Qwen/Qwen3-8B": _qwen(
        "qwen3",
        36,
        151936,
        template=CHATML_TEMPLATE,
        eos="<|im_end|>",
        settings=(("head_dim", 2),),
    ),
    "HiTZ/eu_Qwen3-8B-Base": _qwen(
        "qwen3", 36, 151936, template=CHATML_TEMPLATE, settings=(("head_dim", 2),)
    ),
    "LGAI-EXAONE/EXAONE-3.5-7.8B-Instruct": _exaone(template=EXAONE_TEMPLATE),
    "LGAI-EXAONE/EXAONE-Deep-7.8B": _exaone(
        template=EXAONE_TEMPLATE.replace("'[|assistant|]' }}", "'[|assistant|]<thought>\n' }}")
    ),
    "huggingface-KREW/EXAONE-3.5-7.8B-Instruct-KoCulture": _exaone(template=EXAONE_TEMPLATE),
}


def build(folder: Path, recipe: dict[str, Any]) -> None:
    """Write into `folder` a miniature of every model that the recipe names, under its name."""
    names = {"base": [], "chat": [], "cp": []}
    for entry in recipe["models"]:
        names[entry["parameters"]["role"]].append(entry["model"])
    build_family(folder, {name: KINDS[name] for role in names for name in names[role]}, **names)


def build_family(
    folder: Path, kinds: dict[str, Kind], base: list[str], chat: list[str], cp: list[str]
) -> None:
    """Write a base model, and chat and cp models that descend from it."""
    (base_name,) = base
    base_model = new_model(kinds[base_name], seed_of(base_name))
    save_miniature(base_model, tokens(kinds[base_name]), kinds[base_name], folder / base_name)
    for name in [*chat, *cp]:
        spread = 0.002 if name in chat else 0.005
        model = descendant(base_model, kinds[base_name], kinds[name], spread, seed_of(name))
        save_miniature(model, tokens(kinds[name]), kinds[name], folder / name)


def seed_of(name: str) -> int:
    """Return a seed that depends on the name alone."""
    return zlib.crc32(name.encode())


def tokens(kind: Kind) -> list[str]:
    """Return the miniature's tokens in the order of their ids: base's first, then cp's new ones."""
    count = kind.vocabulary // SCALE - kind.padding
    if kind.llama_3:
        special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>"]
        special += ["<|end_header_id|>", "<|eot_id|>"]
        return [f"▁token{i}" for i in range(count - len(special))] + special
    if kind.special:
        return [*kind.special, *(f"▁token{i}" for i in range(count - len(kind.special)))]
    shared = ["<unk>", "<s>", "</s>"]
    shared += [f"▁token{i}" for i in range(32000 // SCALE - len(shared))]
    if kind.reordered:
        shared = shared[:3] + shared[:2:-1]
    new = [f"새{i}" for i in range(count - len(shared))]
    if kind.eos == "<|im_end|>":
        new[0] = "<|im_end|>"
    return shared + new


def new_model(kind: Kind, seed: int) -> PreTrainedModel:
    """Return a model with weights as spread as a trained one's, in float32."""
    model = AutoModelForCausalLM.from_config(config_of(kind))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        mean, spread = (1.0, 0.05) if "norm" in name else (0.0, 0.02)
        parameter.data = mean + spread * torch.randn(parameter.shape, generator=generator)
    return model


def descendant(
    base: PreTrainedModel, base_kind: Kind, kind: Kind, spread: float, seed: int
) -> PreTrainedModel:
    """Return a model trained on from base, so to speak: base's weights and a little noise."""
    model = new_model(kind, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    base_ids = {token: i for i, token in enumerate(tokens(base_kind))}
    weights = base.state_dict()
    for name, parameter in model.named_parameters():
        start: Tensor = weights[name]
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            rows = parameter.data
            for i, token in enumerate(tokens(kind)):
                if token in base_ids:
                    rows[i] = start[base_ids[token]]
            start = rows
        parameter.data = start + spread * torch.randn(start.shape, generator=generator)
    return model


def config_of(kind: Kind) -> PretrainedConfig:
    """Return the miniature's config."""
    names = tokens(kind)
    experts = {"num_local_experts": 8} if kind.model_type == "mixtral" else {}
    bos = "<|begin_of_text|>" if kind.llama_3 else kind.bos
    settings = {"rope_theta": kind.rope_theta, **experts, **dict(kind.settings)}
    return AutoConfig.for_model(
        kind.model_type,
        hidden_size=HIDDEN,
        intermediate_size=kind.intermediate,
        num_hidden_layers=kind.layers,
        num_attention_heads=8,
        num_key_value_heads=kind.kv_heads,
        vocab_size=len(names) + kind.padding,
        bos_token_id=None if bos is None else names.index(bos),
        eos_token_id=names.index(kind.eos),
        pad_token_id=None,
        tie_word_embeddings=kind.tied,
        **settings,
    )


def save_miniature(model: PreTrainedModel, names: list[str], kind: Kind, folder: Path) -> None:
    """Write model and tokenizer as the hub has them: several shards, some of them pickled."""
    copy.deepcopy(model).to(kind.dtype).save_pretrained(folder, max_shard_size="20KB")
    if kind.pickled:
        pickle_shards(folder)
    save_tokenizer(names, kind.eos, kind.template, folder)


def save_tokenizer(names: list[str], eos: str, template: str | None, folder: Path) -> None:
    """Write a BPE tokenizer with these tokens, whose ids are their places."""
    vocabulary = {token: i for i, token in enumerate(names)}
    unknown = "<unk>" if "<unk>" in vocabulary else None
    begins = ("<s>", "<|begin_of_text|>", "<bos>", "[BOS]")
    marks = (*GEMMA_SPECIAL, *QWEN_SPECIAL, *R1_SPECIAL, *EXAONE_SPECIAL)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocabulary, [], unk_token=unknown)),
        bos_token=next((token for token in begins if token in vocabulary), None),
        eos_token=eos,
        unk_token=unknown,
        additional_special_tokens=[t for t in names if t in marks and t not in (eos, unknown)]
        if "<s>" not in vocabulary and "<|begin_of_text|>" not in vocabulary
        else None,
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)


def pickle_shards(folder: Path) -> None:
    """Turn a checkpoint's safetensors into the older .bin files, rotary buffers and all."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    renamed = {
        shard: shard.replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
        for shard in sorted(set(index["weight_map"].values()))
    }
    for shard, new_name in renamed.items():
        tensors = load_file(folder / shard)
        for name in [n for n in tensors if n.endswith("q_proj.weight")]:
            buffer = name.replace("q_proj.weight", "rotary_emb.inv_freq")
            tensors[buffer] = torch.ones(1, dtype=torch.float32)
            index["weight_map"][buffer] = shard
        torch.save(tensors, folder / new_name)
        (folder / shard).unlink()
    index["weight_map"] = {name: renamed[shard] for name, shard in index["weight_map"].items()}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors.index.json").unlink()


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Write the miniatures of all recipes into FOLDER."""
    logging.disable_progress_bar()
    for file in MODEL_RECIPES:
        build(folder, yaml.safe_load(file.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
