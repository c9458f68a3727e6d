"""Chat vectors as folders, changed at random, and recipes that name them."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from mergekit.common import ModelReference
from mergekit.options import MergeOptions

from chatvec_method.vectors.extract import extract
from tests.fuzz.files import is_readable
from tests.fuzz.folders import CHANGES, WORLD, change_header, damage
from tests.fuzz.recipes import CP, changed_recipe
from tests.fuzz.values import changed

KINDS: dict[str, tuple[int, int | None]] = {"bits16": (16, None), "bits4": (4, None)}
KINDS |= {"adapter": (4, 2)}
"""Bits of an element, and the rank of an adapter."""
SIDE_FILES = ("kept_rows.safetensors", "fingerprint.safetensors")
VECTOR_KEYS: dict[str, tuple[Any, ...]] = {
    "format": (0, 2, "1", None),
    "bits": (0, -4, 10**9, "x", None, 16),
    "added_tokens": (["x"], ["x"] * 5000, [5, None], "x", {}, ["\x1b[8m"]),
    "moved_tokens": (["x"], [[]], "x", ["<s>", "</s>"], ["\x1b[8m"]),
    "base": ({}, "\x1b[8mx", "x" * 5000, None),
}
PACKING_KEYS: dict[str, tuple[Any, ...]] = {
    "num_bits": (0, 3, 8, 64, -4, "4", None),
    "group_size": (0, 7, 10**9, -1, "64", None),
    "strategy": ("nosuch", "channel", ["group"], None),
    "symmetric": (False, "x", None),
    "type": ("float", 5, None),
}
ADAPTER_KEYS: dict[str, tuple[Any, ...]] = {
    "r": (0, 1, 3, -1, 10**9, 2000, "x", None),
    "lora_alpha": (0, -1, 1e300, "x", None),
    "peft_type": ("XLORA", "LOHA", "PROMPT_TUNING", "nosuch", 5, None),
    "target_modules": ("all-linear", r"(\w+\.?)*!", "(", "", [], ["nosuch"], ["q_proj"], 5),
    "rank_pattern": ({"q_proj": 4}, {r"(\w+\.?)*!": 4}, {"q_proj": 10**9}, [], {"(": 1}),
    "alpha_pattern": ({"q_proj": 4}, {"(": 1}, {"q_proj": "x"}),
    "layers_to_transform": ([0], [99], "x", -1),
    "layers_pattern": ("layers", "(", ["x"], 5),
    "modules_to_save": (["lm_head"], ["nosuch"], "x", [5]),
    "exclude_modules": ("(", ["q_proj"], r"(\w+\.?)*!"),
    "layer_replication": ([[0, 2], [1, 3]], "x"),
    "megatron_config": ({"x": 1}, "x"),
    "megatron_core": ("antigravity", 5),
    "init_lora_weights": ("pissa", "loftq", "nosuch", 5, False),
    "use_dora": (True, "x"),
    "use_rslora": (True, "x"),
    "bias": ("all", "nosuch", 5),
    "fan_in_fan_out": (True, "x"),
    "trainable_token_indices": ([0], [10**9], ["x"], {"embed_tokens": [0]}),
    "target_parameters": (["nosuch"], "x"),
    "task_type": ("SEQ_CLS", "nosuch", 5, None),
    "auto_mapping": ({"parent_library": "os"}, 5),
    "corda_config": ({"cache_file": "/etc/passwd"}, 5),
    "nosuch": (1,),
}


@cache
def written() -> Path:
    """Return a folder of this process's with a good vector of each of KINDS."""
    folder = Path(tempfile.mkdtemp(prefix="chatvec-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    models = [ModelReference.model_validate(str(WORLD / name)) for name in ("base", "chat")]
    for name, (bits, rank) in KINDS.items():
        extract(*models, folder / name, bits, MergeOptions(), rank=rank)
    return folder


def recipe_of_vectors(random: Random) -> str:
    """Return the text of a changed recipe with vectors in it."""
    paths = [str(written() / name) for name in KINDS]
    own = {"role": "vector", "ratio": 0.5}
    models = [{"model": paths[0], "parameters": own}, {"model": CP, "parameters": {"role": "cp"}}]
    plain: dict[str, Any] = {
        "merge_method": "chat_vector",
        "base_model": CP,
        "models": models,
        "tokenizer": {"source": CP},
    }
    both = [{"model": path, "parameters": {**own, "ratio": 0.25}} for path in paths[1:]]
    sources = [{**model, "layer_range": [0, 2]} for model in models]
    whole = [
        plain,
        {**plain, "models": [*both, models[1]], "tokenizer": {"source": "union"}},
        {**plain, "models": [*both, models[1]], "chatvec": {"accept": ["compressed-vector"]}},
        {k: v for k, v in plain.items() if k != "models"} | {"slices": [{"sources": sources}]},
        {**plain, "base_model": paths[1], "tokenizer": {"source": paths[1]}},
        {
            **plain,
            "models": [{"model": CP + f"+{paths[2]}/adapter", "parameters": own}, models[1]],
        },
    ]
    pool: tuple[Any, ...] = (
        *(*paths, f"{CP}+{paths[2]}/adapter", f"{paths[0]}+{paths[2]}/adapter", f"{paths[0]}@x"),
        *("vector", "base", "chat", "cp", {"source": paths[1]}, [{"filter": "mlp", "value": 0.5}]),
        *({"model": paths[1], "parameters": own}, [both[0]] * 3),
    )
    return changed_recipe(random.choice(whole), pool, random)


def folders_of_vectors(folder: Path, random: Random) -> tuple[dict[str, Any], str]:
    """Write a cp and a vector, or a base with an adapter, into a folder, one of them changed.

    Returns:
        A recipe of them, and how they were changed.
    """
    kind = random.choice(list(KINDS))
    for name in ("base", "cp"):
        shutil.copytree(WORLD / name, folder / name)
    shutil.copytree(written() / kind, folder / "vector")
    with_adapter = kind == "adapter" and random.random() < 0.7
    told = []
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        place, changes = folder / "vector", (*CHANGES, *VECTOR_CHANGES)
        if with_adapter:
            place, changes = place / "adapter", ADAPTER_CHANGES
        elif random.random() < 0.1:
            place, changes = folder / "cp", CHANGES
        told.append(f"{place.name}: {random.choice(changes)(place, random)}")
    base, cp, vector = (str(folder / name) for name in ("base", "cp", "vector"))
    models: list[dict[str, Any]] = [
        {"model": vector, "parameters": {"role": "vector", "ratio": random.choice([1.0, 0.5, 0])}},
        {"model": cp, "parameters": {"role": "cp"}},
    ]
    if with_adapter:
        chat = {"role": "chat", "ratio": 1.0}
        models[:1] = [
            {"model": base, "parameters": {"role": "base"}},
            {"model": f"{base}+{vector}/adapter", "parameters": chat},
        ]
    recipe: dict[str, Any] = {
        "merge_method": "chat_vector",
        "base_model": cp,
        "models": models,
        "tokenizer": {"source": random.choice([cp, cp, "union"])},
        "out_dtype": "bfloat16",
    }
    return recipe, "; ".join(told)


def _said(file: Path, holder: Callable[[Any], Any], keys: dict[str, Any], random: Random) -> str:
    """Change what a part of a JSON file says.

    Args:
        file: The file.
        holder: Returns the part.
        keys: Values for its keys.
        random: Decides.
    """
    if not is_readable(file):
        return f"{file.name} left alone"
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        part = holder(said)
        key = random.choice(list(keys))
        part[key] = random.choice(keys[key])
    except (OSError, ValueError, TypeError, LookupError):  # an earlier change
        return f"{file.name} left alone"
    if random.random() < 0.2:
        said = changed(said, random)
    file.write_text(json.dumps(said), encoding="utf-8")
    return f"{file.name} {key} {part[key]!r:.60}"


def _vector(folder: Path, random: Random) -> str:
    return _said(folder / "config.json", lambda said: said["chat_vector"], VECTOR_KEYS, random)


def _packing(folder: Path, random: Random) -> str:
    def weights(said: Any) -> Any:
        groups = said["quantization_config"]["config_groups"]
        return random.choice(list(groups.values()))["weights"]

    return _said(folder / "config.json", weights, PACKING_KEYS, random)


def _description(folder: Path, random: Random) -> str:
    file = folder / "chat_vector.json"
    if not is_readable(file):
        return f"{file.name} left alone"
    try:
        said = changed(json.loads(file.read_text(encoding="utf-8")), random)
        file.write_text(json.dumps(said), encoding="utf-8")
    except (OSError, ValueError):
        return "chat_vector.json left alone"
    return "chat_vector.json changed"


def _side_file(folder: Path, random: Random) -> str:
    file = folder / random.choice(SIDE_FILES)
    if not file.is_file() or file.is_symlink():
        return f"{file.name} left alone"
    if random.random() < 0.3:
        return damage(file, random)
    return f"{file.name}: {change_header(file, random)}"


def _adapter(folder: Path, random: Random) -> str:
    return _said(folder / "adapter_config.json", lambda said: said, ADAPTER_KEYS, random)


def _of_adapter(folder: Path, random: Random) -> str:
    file = folder / "adapter_model.safetensors"
    if not file.is_file() or file.is_symlink():
        return f"{file.name} left alone"
    match random.randrange(4):
        case 0:
            return damage(file, random)
        case 1:
            file.rename(folder / "adapter_model.bin")
            return "safetensors as a pickle"
        case _:
            return f"{file.name}: {change_header(file, random)}"


VECTOR_CHANGES: tuple[Callable[[Path, Random], str], ...] = (
    *(_vector, _vector, _vector, _packing, _packing, _description),
    *(_side_file, _side_file, _side_file),
)
ADAPTER_CHANGES: tuple[Callable[[Path, Random], str], ...] = (
    *(_adapter, _adapter, _adapter, _of_adapter),
)
