"""The right output, made by hand: transformers' weights, numpy's sum, cp's files.

It shows that what the oracle asks for can be had, for every architecture of the table.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from .miniatures import CONFIG, GENERATION_CONFIG, INDEX, WEIGHTS
from .oracle import Oracle, rounded, vocabulary
from .tokenizer_families import Lexicon, generation_config


def merge_by_hand(oracle: Oracle, out: Path) -> None:
    """Write the output that an oracle's trio should give."""
    trio, dtype = oracle.trio, oracle.dtype
    shutil.copytree(trio.cp, out)
    for file in (*out.glob("*.safetensors"), *out.glob("*.bin"), out / INDEX):
        file.unlink(missing_ok=True)
    ids = _write_tokenizer(oracle, out)
    rows = -(-len(ids) // trio.entry.multiple) * trio.entry.multiple
    model = oracle.cp.model
    if trio.entry.vocabulary != "same":
        model.resize_token_embeddings(rows, mean_resizing=False)
    parameters = {
        name: parameter
        for name, parameter in model.state_dict(keep_vars=True).items()
        if parameter.is_floating_point()
    }
    expected = {name: oracle.expected(name, ids) for name in parameters}
    for name, (places, total) in expected.items():
        result = torch.from_numpy(rounded(total.values, dtype)).float()
        parameters[name].data[slice(None) if places is None else places] = result
    text = (out / CONFIG).read_text()
    model.to(dtype).save_pretrained(out)
    tensors = load_file(out / WEIGHTS)
    for file in trio.cp.glob("*.safetensors"):
        tensors |= {n: t.to(dtype) for n, t in load_file(file).items() if n in trio.prediction}
    save_file(tensors, out / WEIGHTS, {"format": "pt"})
    (out / CONFIG).write_text(_config(json.loads(text), rows, str(dtype).removeprefix("torch.")))
    lexicon = Lexicon(oracle.family, tuple(sorted(ids, key=ids.__getitem__)))
    settings = generation_config(lexicon, chat=True)
    (out / GENERATION_CONFIG).write_text(json.dumps(settings))


def _write_tokenizer(oracle: Oracle, out: Path) -> dict[str, int]:
    """Give cp's tokenizer chat's template and the tokens that the recipe names."""
    trio = oracle.trio
    named = trio.recipe.get("tokenizer", {}).get("tokens", {})
    if named:
        chat, cp = vocabulary(trio.chat), vocabulary(trio.cp)
        own = json.loads((trio.chat / "tokenizer.json").read_text(encoding="utf-8"))
        for entry in own["added_tokens"]:
            if entry["content"] in named:
                entry["id"] = len(cp) + sorted(named, key=chat.__getitem__).index(entry["content"])
        (out / "tokenizer.json").write_text(json.dumps(own), encoding="utf-8")
    file = out / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    for entry in _added(out / "tokenizer.json", named):
        number = str(entry.pop("id"))
        config["added_tokens_decoder"][number] = entry
    config["chat_template"] = oracle.family.template
    config["eos_token"] = oracle.family.chat_eos or oracle.family.end_of_turn
    file.write_text(json.dumps(config), encoding="utf-8")
    return vocabulary(out)


def _added(file: Path, tokens: Collection[str]) -> list[dict[str, Any]]:
    added = json.loads(file.read_text(encoding="utf-8"))["added_tokens"]
    return [entry for entry in added if entry["content"] in tokens]


def _config(config: dict[str, Any], rows: int, dtype: str) -> str:
    config["torch_dtype" if "torch_dtype" in config else "dtype"] = dtype
    text = config.get("text_config", config)
    for key in ("vocab_size", "vocab_size_per_layer_input"):
        if key in text:
            text[key] = rows
    return json.dumps(config)
