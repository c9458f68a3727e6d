"""Weights as other programs write them: of another dtype, shape, name or kind of file."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.fuzz.files import is_readable
from tests.fuzz.values import WORDS

TENSORS = "model.safetensors"
DTYPES = (
    *(torch.float16, torch.float32, torch.float64, torch.bfloat16, torch.float8_e4m3fn),
    *(torch.int8, torch.uint8, torch.int64, torch.bool, torch.float8_e5m2),
)
PREFIXES = ("module.", "base_model.model.", "language_model.", "model.", "_orig_mod.", "")
EXTRA = (
    *("model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.0.self_attn.q_proj.bias"),
    *("lm_head.bias", "model.layers.4.input_layernorm.weight", "score.weight", "v_head.weight"),
    *("model.layers.0.self_attn.q_proj.weight_scale", "model.vision_tower.x.weight", *WORDS),
)
NUMBERS = (0.0, -0.0, 1e-40, 6e-8, 65504.0, 7e4, 3e38, float("inf"), float("nan"), -1e-45)


def _dtype(tensors: dict[str, Tensor], name: str, random: Random) -> str:
    dtype = random.choice(DTYPES)
    names = random.choice([[name], [*tensors]])
    for each in names:
        tensors[each] = tensors[each].to(dtype)
    return f"{len(names)} tensors as {dtype}"


def _shape(tensors: dict[str, Tensor], name: str, random: Random) -> str:
    tensor = tensors[name]
    ways: list[Callable[[], Tensor]] = [
        lambda: tensor.t() if tensor.dim() == 2 else tensor[None],
        lambda: tensor[:-1],
        lambda: torch.cat([tensor, tensor[-1:]]),
        lambda: torch.cat([tensor, *([tensor[-1:]] * 56)]),
        lambda: tensor[:0],
        lambda: tensor.flatten(),
        lambda: tensor.flatten()[0],
        lambda: tensor.repeat(*([2] * tensor.dim())),
    ]
    tensors[name] = random.choice(ways)().contiguous()
    return f"{name} as {[*tensors[name].shape]}"


def _name(tensors: dict[str, Tensor], name: str, random: Random) -> str:
    match random.randrange(4):
        case 0:
            prefix, strip = random.choice(PREFIXES), random.random() < 0.5
            renamed = {prefix + (n.removeprefix("model.") if strip else n): n for n in tensors}
            whole = {new: tensors[old] for new, old in renamed.items()}
            tensors.clear()
            tensors.update(whole)
            return f"all names with {prefix!r}"
        case 1:
            layer = f".{random.randrange(5)}."
            for each in [each for each in tensors if layer in each]:
                del tensors[each]
            return f"no layer {layer}"
        case 2:
            copies = {n.replace("layers.0.", "layers.4."): t.clone() for n, t in tensors.items()}
            tensors.update(copies)
            return "a layer more"
        case _:
            tensors[random.choice(EXTRA)] = tensors.pop(name)
            return f"{name} renamed"


def _more(tensors: dict[str, Tensor], name: str, random: Random) -> str:
    extra = random.choice(EXTRA)
    tensors[extra] = random.choice([tensors[name].clone(), torch.ones(()), torch.ones(0, 4)])
    return f"{extra!r:.40} added"


def _head(tensors: dict[str, Tensor], _: str, random: Random) -> str:
    """Tie the head to the embeddings, or untie it, as far as the weights go."""
    embeddings = tensors.get("model.embed_tokens.weight")
    if tensors.pop("lm_head.weight", None) is not None or embeddings is None:
        return "no head"
    tensors["lm_head.weight"] = embeddings.clone() * random.choice([1, 2])
    return "a head"


def _numbers(tensors: dict[str, Tensor], name: str, random: Random) -> str:
    tensor, number = tensors[name], random.choice(NUMBERS)
    if not tensor.is_floating_point() or tensor.itemsize == 1 or not tensor.numel():
        return f"{name} left alone"
    if random.random() < 0.3:
        tensor.fill_(number)
    else:
        tensor.view(-1)[random.randrange(tensor.numel())] = number
    return f"{name} with {number}"


CHANGES: tuple[Callable[[dict[str, Tensor], str, Random], str], ...] = (
    *(_dtype, _dtype, _shape, _name, _more, _head, _numbers, _numbers),
)


def change_weights(folder: Path, random: Random) -> str:
    """Change tensors, write them as some program would, and return how."""
    file = folder / TENSORS
    try:
        tensors = load_file(file) if is_readable(file) else {}
    except (OSError, SafetensorError, KeyError):  # an earlier change; a dtype torch has not
        tensors = {}
    if not tensors:
        return f"{file.name} left alone"
    told = []
    for _ in range(random.choice([0, 1, 1, 1, 2])):
        if tensors:
            name = random.choice(sorted(tensors))
            told.append(random.choice(CHANGES)(tensors, name, random))
    config = folder / "config.json"
    if random.random() < 0.5 and is_readable(config):
        told.append(_config(config, tensors))
    file.unlink()
    told.append(random.choice(WRITERS)(folder, tensors, random))
    return f"weights: {', '.join(told)}"


def _config(file: Path, tensors: dict[str, Tensor]) -> str:
    """Let the config say what the weights are, as far as both are in order."""
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        embeddings = tensors["model.embed_tokens.weight"]
        config["vocab_size"] = embeddings.shape[0]
        config["dtype"] = str(embeddings.dtype).removeprefix("torch.")
        config["tie_word_embeddings"] = "lm_head.weight" not in tensors
        layers = {n.split(".")[2] for n in tensors if n.startswith("model.layers.")}
        config["num_hidden_layers"] = len(layers)
        file.write_text(json.dumps(config), "utf-8")
    except (OSError, ValueError, LookupError, TypeError):
        return "config.json left alone"
    return "and its config"


def _whole(folder: Path, tensors: dict[str, Tensor], random: Random) -> str:
    metadata = random.choice([{"format": "pt"}, {"format": "pt"}, {"format": "np"}, None])
    save_file(tensors, folder / TENSORS, metadata)
    return f"a file of {metadata}"


def _pickled(folder: Path, tensors: dict[str, Tensor], random: Random) -> str:
    """Write a pickle, of one of the kinds that there are."""
    file = folder / "pytorch_model.bin"
    match random.randrange(6):
        case 0:
            torch.save({"state_dict": tensors}, file)
        case 1:
            torch.save(tensors, file, _use_new_zipfile_serialization=False)
        case 2:
            file.write_bytes(pickle.dumps({"x": Path("/etc/passwd")}))
        case 3:
            torch.save([*tensors.values()], file)
        case 4:
            torch.save({**tensors, "epoch": 5, "args": {"x": 1}}, file)
        case _:
            torch.save(tensors, file)
    return "a pickle"


def _sharded(folder: Path, tensors: dict[str, Tensor], random: Random) -> str:
    """Write shards with an index, whose names or contents may overlap."""
    names = sorted(tensors)
    stem = random.choice(["model", "model", "pytorch_model", "weights of mine", "모델"])
    count = random.choice([1, 2, 3])
    shards = [f"{stem}-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    weight_map = {}
    for i, shard in enumerate(shards):
        own = names[i::count]
        both = own + random.sample(names, min(len(names), random.choice([0, 0, 1])))
        save_file({name: tensors[name] for name in both}, folder / shard, {"format": "pt"})
        weight_map |= dict.fromkeys(own, shard)
    metadata = random.choice([{"total_size": 1}, {}, None, "x", {"total_size": "x"}])
    index = {"metadata": metadata, "weight_map": weight_map}
    if random.random() < 0.2:
        index.pop("metadata")
    (folder / f"{TENSORS}.index.json").write_text(json.dumps(index), "utf-8")
    if random.random() < 0.2:
        _whole(folder, tensors, random)
    return f"{count} shards"


WRITERS = (_whole, _whole, _sharded, _sharded, _pickled)
