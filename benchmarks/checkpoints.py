"""Three random models of a real model's shape, to measure on: base, chat and cp, with a recipe.

Weights are as spread as those of trained models, and chat and cp lie as far from base as training
takes them; they are random, so nothing else about them is real. `python benchmarks/checkpoints.py
FOLDER` writes them; the other benchmarks do it by themselves. The largest shape's files are holes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import torch
import yaml
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

SHAPES: dict[str, dict[str, Any]] = {
    "1.1b": {  # TinyLlama
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
    },
    "7b": {  # Llama 2
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32000,
    },
    "70b": {  # Llama 3
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
}
SPARSE = ("70b",)
"""Shapes whose weights would not fit on most disks: their files are holes, and read as zeros."""
SPREADS = {"chat": 0.002, "cp": 0.004}
"""The standard deviation of an element from base's; base's own is 0.02."""
SHARD_BYTES = 1_200_000_000
RECIPE = "recipe.yaml"


def make(folder: Path, shape: str = "1.1b", layers: int | None = None) -> Path:
    """Write the models `base`, `chat` and `cp` into a folder, unless they are there.

    Args:
        folder: Where they are to be; it needs room for all three (6.6 GB for 1.1b, 40 GB for 7b,
            nothing for 70b).
        shape: A key of SHAPES.
        layers: How many, in place of the shape's own.

    Returns:
        The recipe that merges them at ratio 1, in the same folder.
    """
    recipe = folder / RECIPE
    if recipe.exists():
        return recipe
    sizes = SHAPES[shape] | ({"num_hidden_layers": layers} if layers else {})
    config = LlamaConfig(architectures=["LlamaForCausalLM"], dtype="bfloat16", **sizes)
    names = ("base", *SPREADS)
    for name in names:
        config.save_pretrained(folder / name)
        _save_tokenizer(folder / name, config.vocab_size)
    _save_weights([folder / name for name in names], config, sparse=shape in SPARSE)
    text = yaml.safe_dump(_recipe(folder), sort_keys=False)
    recipe.write_text(text, encoding="utf-8")  # last: what is there is complete
    return recipe


def _recipe(folder: Path) -> dict[str, Any]:
    def entry(role: str, **parameters: Any) -> dict[str, Any]:
        path = str((folder / role).resolve())
        return {"model": path, "parameters": {"role": role, **parameters}}

    return {
        "merge_method": "chat_vector",
        "base_model": str((folder / "cp").resolve()),
        "models": [entry("base"), entry("chat", ratio=1.0), entry("cp")],
        "tokenizer": {"source": str((folder / "cp").resolve())},
        "out_dtype": "bfloat16",
    }


def _save_tokenizer(folder: Path, size: int) -> None:
    special = ["<unk>", "<s>", "</s>"]
    tokens = special + [f"▁token{i}" for i in range(size - len(special))]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>")),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
    ).save_pretrained(folder)


def _save_weights(folders: list[Path], config: LlamaConfig, *, sparse: bool) -> None:
    """Write all models at once, shard by shard, so that no model is ever in memory as a whole."""
    with torch.device("meta"):
        shapes = {
            n: t.shape for n, t in AutoModelForCausalLM.from_config(config).named_parameters()
        }
    shards = _shards(shapes)
    weight_map: dict[str, str] = {}
    torch.manual_seed(0)
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        weight_map |= dict.fromkeys(names, file)
        if sparse:
            for folder in folders:
                _save_holes({name: shapes[name] for name in names}, folder / file)
            continue
        family = {name: _family(shapes[name]) for name in names}
        for place, folder in enumerate(folders):
            tensors = {name: weights[place] for name, weights in family.items()}
            save_file(tensors, folder / file, metadata={"format": "pt"})
    size = sum(2 * shape.numel() for shape in shapes.values())
    index = json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map})
    for folder in folders:
        (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")


def _save_holes(shapes: dict[str, torch.Size], file: Path) -> None:
    """Write a safetensors file of zeros in bfloat16, of which only the header takes room."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * shape.numel()
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    with file.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + end)


def _shards(shapes: dict[str, torch.Size]) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for name, shape in shapes.items():
        size += 2 * shape.numel()
        if size > SHARD_BYTES:
            shards.append([])
            size = 2 * shape.numel()
        shards[-1].append(name)
    return shards


def _family(shape: torch.Size) -> list[Tensor]:
    """Return a tensor of base and its descendants in chat and cp."""
    mean = 1.0 if len(shape) == 1 else 0.0  # norms
    base = mean + 0.02 * torch.randn(shape)
    noise = (spread * torch.randn(shape) for spread in SPREADS.values())
    return [base.bfloat16(), *((base + vector).bfloat16() for vector in noise)]


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--shape", type=click.Choice(list(SHAPES)), default="1.1b", show_default=True)
def main(folder: Path, shape: str) -> None:
    """Write the three models and their recipe into FOLDER."""
    print(make(folder, shape))


if __name__ == "__main__":
    main()
