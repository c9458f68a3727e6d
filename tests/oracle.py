"""What a recipe's output should be, computed in float64 and independently of the method.

Reads checkpoints and tokenizers itself, aligns vocabularies by token, resolves ratios by the rules
that mergekit documents, and rounds with integer arithmetic on bit patterns. It shares no code with
`chatvec_method`, and with mergekit only the recipe.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

Array = np.ndarray[Any, np.dtype[np.float64]]
VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")


def expected_output(folder: Path, recipe: dict[str, Any]) -> dict[str, Array]:
    """Return each tensor of the recipe's output in float64, not yet rounded."""
    by_role = defaultdict(list)
    for entry in recipe["models"]:
        by_role[entry["parameters"]["role"]].append(entry)
    (base_entry,), (cp_entry,) = by_role["base"], by_role["cp"]
    shared = recipe.get("parameters", {}).get("ratio")
    names = [entry["model"] for entry in recipe["models"]]
    models = {name: checkpoint(folder / name) for name in names}
    if "tokenizer" in recipe:
        align(folder, models, recipe["tokenizer"]["source"], recipe["base_model"])
    layers = json.loads((folder / cp_entry["model"] / "config.json").read_text())[
        "num_hidden_layers"
    ]
    output = {}
    for name, cp in models[cp_entry["model"]].items():
        total = cp.copy()
        for entry in by_role["chat"]:
            vector = models[entry["model"]][name] - models[base_entry["model"]][name]
            total += ratio_at(entry["parameters"].get("ratio", shared), name, layers) * vector
        output[name] = total
    return output


def ratio_at(setting: Any, name: str, layers: int) -> float:
    """Return the ratio of a tensor: filters from the top, lists linear over the depth."""
    if isinstance(setting, list) and isinstance(setting[0], dict):
        setting = next(f["value"] for f in setting if f.get("filter", "") in name)
    if not isinstance(setting, list):
        return float(setting)
    layer = re.search(r"\.layers\.(\d+)\.", name)
    depth = int(layer[1]) / (layers - 1) if layer else 0.0
    return float(np.interp(depth * (len(setting) - 1), range(len(setting)), setting))


def checkpoint(folder: Path) -> dict[str, Array]:
    """Return all weights of a checkpoint in float64, by their names in transformers 5."""
    tensors = {name: t.double().numpy() for name, t in stored_tensors(folder).items()}
    experts = {name for name in tensors if ".block_sparse_moe.experts." in name}
    fused = {name: tensor for name, tensor in tensors.items() if name not in experts}
    fused = {n.replace(".block_sparse_moe.gate.", ".mlp.gate."): t for n, t in fused.items()}
    for layer in {name.split(".block_sparse_moe.")[0] for name in experts}:
        parts = {
            part: [tensors[f"{layer}.block_sparse_moe.experts.{e}.{part}.weight"] for e in range(8)]
            for part in ("w1", "w2", "w3")
        }
        gate_up = [np.concatenate(pair) for pair in zip(parts["w1"], parts["w3"], strict=True)]
        fused[f"{layer}.mlp.experts.gate_up_proj"] = np.stack(gate_up)
        fused[f"{layer}.mlp.experts.down_proj"] = np.stack(parts["w2"])
    return {name: tensor for name, tensor in fused.items() if not name.endswith("inv_freq")}


def align(folder: Path, models: dict[str, dict[str, Array]], source: str, donor: str) -> None:
    """Give all models the rows of `source`'s tokens; one that lacks a token has `donor`'s row.

    That is mergekit's rule where `donor`, the recipe's base_model, has the token; a token that one
    model alone has is that model's row in all.
    """
    vocabularies = {name: vocabulary(folder / name) for name in models}
    order = sorted(vocabularies[source], key=vocabularies[source].__getitem__)
    tied = [model for model in models.values() if "lm_head.weight" not in model]
    for tensor in VOCABULARY[:1] if tied else VOCABULARY:
        rows = {name: model[tensor] for name, model in models.items()}
        for name, model in models.items():
            aligned = []
            for token in order:
                holders = [n for n in models if token in vocabularies[n]]
                owner = name if name in holders else (donor if donor in holders else holders[0])
                aligned.append(rows[owner][vocabularies[owner][token]])
            model[tensor] = np.stack(aligned)


def vocabulary(folder: Path) -> dict[str, int]:
    """Return token → id, added tokens included."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    return {**tokenizer["model"]["vocab"], **added}


def stored_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint's files as they are."""
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as shard:
            tensors.update({name: shard.get_tensor(name) for name in shard.keys()})  # noqa: SIM118
    for file in sorted(folder.glob("*.bin")):
        tensors.update(torch.load(file, weights_only=True))
    return tensors


def steps_off(result: torch.Tensor, expected: Array) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return, for a bfloat16 or float16 result, how many steps each element is off the correct one.

    Correct is the float64 value rounded to nearest, ties to even, and once.
    """
    if result.dtype == torch.bfloat16:
        # Of the two float32 beside the value, the odd one tells on which side of a tie it lies.
        nearest = expected.astype(np.float32)
        inner = np.where(
            np.abs(nearest) > np.abs(expected), np.nextafter(nearest, np.float32(0)), nearest
        )
        bits = inner.view(np.uint32).astype(np.int64) | (nearest != expected)
        correct_bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    else:
        correct_bits = expected.astype(np.float16).view(np.uint16).astype(np.int64)
    found_bits = result.contiguous().view(torch.int16).numpy().view(np.uint16).astype(np.int64)
    return np.abs(_ordered(found_bits) - _ordered(correct_bits))


def _ordered(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Map sign-and-magnitude 16-bit patterns to integers in the order of the numbers."""
    return np.where(bits & 0x8000, 0x8000 - bits, bits)
