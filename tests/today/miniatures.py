"""Base, chat and cp of an architecture, on disk as a hub has them."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PretrainedConfig,
    PreTrainedModel,
)

from .table import HIDDEN, Architecture
from .tokenizer_families import FAMILIES, Lexicon, extended, generation_config, lexicon, write

ROLES = ("base", "chat", "cp")
CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_SPREAD = {"base": 0.02, "chat": 0.01, "cp": 0.02}
_LAYER = re.compile(r"^(.*\blayers\.)(\d+)\.")


@dataclass(frozen=True)
class Trio:
    """Three models on disk, and the plain right recipe that merges them."""

    entry: Architecture
    folder: Path
    recipe: dict[str, Any]
    prediction: frozenset[str]
    """Tensors in the files that transformers does not load."""

    def sees(self, role: str) -> bool:
        """Whether the model that plays a role sees."""
        return self.entry.vision and role not in self.entry.text_roles

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def chat(self) -> Path:
        return self.folder / "chat"

    @property
    def cp(self) -> Path:
        return self.folder / "cp"


def build(entry: Architecture, folder: Path) -> Trio:
    """Write base, chat and cp of an architecture into a folder.

    Chat and cp are base with noise, which is what training does. The same call writes the same.
    """
    folder = folder.resolve()
    seed = zlib.crc32(entry.name.encode())
    torch.manual_seed(seed)
    lexicons = _lexicons(entry)
    models: dict[tuple[int, bool], PreTrainedModel] = {}
    base_weights: dict[str, Tensor] = {}
    prediction: frozenset[str] = frozenset()
    for place, role in enumerate(ROLES):
        words = lexicons[role]
        rows = _rows(entry, words)
        sees = entry.vision and role not in entry.text_roles
        if (rows, sees) not in models:
            models[rows, sees] = _new_model(entry, words, rows, sees)
        model = models[rows, sees]
        weights = _descendant(model, base_weights, _SPREAD[role])
        base_weights = base_weights or weights
        dtype = entry.dtypes[place]
        for name, tensor in _stored(model):
            kept = entry.float32 and re.search(entry.float32, name)
            tensor.data = weights[name].to(torch.float32 if kept else dtype)
        _save(entry, model, folder / role, as_merged=entry.as_merged and role == "cp")
        if entry.prediction:
            prediction = _add_prediction_layer(folder / role, entry.prediction)
        if entry.pickled:
            _pickle(folder / role, entry.buffers)
        _write_small_files(entry, words, rows, dtype, folder / role, role)
    return Trio(entry, folder, _recipe(entry, folder, lexicons), prediction)


def config_of(entry: Architecture) -> PretrainedConfig:
    """Return the config of cp."""
    words = _lexicons(entry)["cp"]
    sees = entry.vision and "cp" not in entry.text_roles
    return _config(entry, words, _rows(entry, words), sees)


def _new_model(entry: Architecture, words: Lexicon, rows: int, sees: bool) -> PreTrainedModel:
    """Return a model in float32 as transformers initialises it, of so many rows."""
    loader = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    config = _config(entry, words, rows, sees)
    model: PreTrainedModel = loader.from_config(config, dtype=torch.float32)
    return model


def _config(entry: Architecture, words: Lexicon, rows: int, sees: bool) -> PretrainedConfig:
    """Return a config with the vocabulary's size filled in, and ids for tokens."""
    alone = entry.vision and not sees
    given = dict(entry.text_alone if alone else entry.settings)
    model_type = given.pop("model_type") if alone else entry.model_type
    family, ids = words.family, words.ids
    settings = _with_ids(given, ids)
    text = settings.get("text_config", settings)
    text["vocab_size"] = rows
    if "hidden_size_per_layer_input" in text:
        text["vocab_size_per_layer_input"] = rows
    text["bos_token_id"] = ids.get(family.bos or "")
    text["eos_token_id"] = ids[family.eos]
    text["pad_token_id"] = ids.get(family.pad or "")
    return AutoConfig.for_model(model_type, **settings)


def _rows(entry: Architecture, words: Lexicon) -> int:
    return -(-len(words.tokens) // entry.multiple) * entry.multiple


def _lexicons(entry: Architecture) -> dict[str, Lexicon]:
    family = FAMILIES[entry.tokenizer]
    plain = lexicon(family)
    if entry.vocabulary == "extended":
        return {"base": plain, "chat": plain, "cp": extended(plain)}
    if entry.vocabulary == "images":
        bare = plain.without(token for token in plain.tokens if "image" in token)
        return {"base": bare, "chat": bare, "cp": plain}
    if entry.vocabulary == "markers":
        # In life they come last: a chat model's own tokens are added to those of its base.
        own = tuple(m for m in family.markers if m not in (family.eos, family.bos))
        bare = Lexicon(
            family, tuple(t for t in plain.tokens if t not in own), plain.merges, plain.scores
        )
        chat = Lexicon(family, (*bare.tokens, *own), plain.merges)
        return {"base": bare, "chat": chat, "cp": bare}
    return dict.fromkeys(ROLES, plain)


def _with_ids(settings: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, Any]:
    resolved: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            resolved[key] = _with_ids(value, ids)
        elif isinstance(value, str) and re.search(r"_token_(id|index)$", key):
            resolved[key] = ids[value]
        else:
            resolved[key] = value
    return resolved


# --- Weights ----------------------------------------------------------------------------------


def _stored(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yield what a checkpoint stores of a model's floats, tied tensors once."""
    yield from model.named_parameters()
    kept = model.state_dict()
    for name, buffer in model.named_buffers():
        if name in kept and buffer.is_floating_point():
            yield name, buffer


def _descendant(
    model: PreTrainedModel, base: Mapping[str, Tensor], spread: float
) -> dict[str, Tensor]:
    """Return base's weights with noise, and rows of their own for new tokens; in float32."""
    weights = {}
    for name, tensor in _stored(model):
        old = base.get(counterpart(name, base))
        start = tensor.detach().float().clone() if not base else 0.05 * torch.randn(tensor.shape)
        if old is not None:
            kept = tuple(slice(min(sizes)) for sizes in zip(old.shape, start.shape, strict=True))
            start[kept] = old[kept]
        weights[name] = start + spread * torch.randn(tensor.shape)
    return weights


def counterpart(name: str, weights: Mapping[str, Any]) -> str:
    """Return a tensor's name in another model, of which it may be the text part, or the whole."""
    sees, text = "model.language_model.", "model."
    for old, new in ((sees, text), (text, sees)):
        if name not in weights and name.startswith(old):
            other = new + name.removeprefix(old)
            if other in weights:
                return other
    return name


def _save(entry: Architecture, model: PreTrainedModel, folder: Path, *, as_merged: bool) -> None:
    """Write weights and config; transformers stores them under the names that hubs have."""
    size = "60KB" if entry.sharded else "1GB"
    model.save_pretrained(folder, max_shard_size=size, save_original_format=not as_merged)


def _add_prediction_layer(folder: Path, place: str) -> frozenset[str]:
    """Add a layer that predicts the token after the next, and return its tensors' names."""
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    layers = [match for name in tensors if (match := _LAYER.match(name))]
    last = max(layers, key=lambda match: int(match[2]))[0]
    added = {
        place + name.removeprefix(last): tensor + 0.01 * torch.randn(tensor.shape).to(tensor.dtype)
        for name, tensor in tensors.items()
        if name.startswith(last)
    }
    dtype = next(iter(added.values())).dtype
    joins = {"fc.weight": (HIDDEN, 2 * HIDDEN), "norm.weight": (HIDDEN,)}
    if place.startswith("mtp."):
        root = "mtp."
    else:
        root = place
        joins = {"eh_proj.weight": (HIDDEN, 2 * HIDDEN), "shared_head.norm.weight": (HIDDEN,)}
        joins |= {"enorm.weight": (HIDDEN,), "hnorm.weight": (HIDDEN,)}
    added |= {root + name: torch.randn(shape).to(dtype) for name, shape in joins.items()}
    index_file = folder / INDEX
    if index_file.is_file():
        save_file(added, folder / "model-prediction.safetensors", {"format": "pt"})
        index = json.loads(index_file.read_text())
        index["weight_map"] |= dict.fromkeys(added, "model-prediction.safetensors")
        index_file.write_text(json.dumps(index))
    else:
        save_file(tensors | added, folder / WEIGHTS, {"format": "pt"})
    return frozenset(added)


def _pickle(folder: Path, buffers: Mapping[str, Tensor]) -> None:
    """Turn weights into the older .bin file, which often has what is computed as well."""
    tensors = load_file(folder / WEIGHTS)
    layers = {match[0] for name in tensors if (match := _LAYER.match(name))}
    tensors |= {f"{layer}{name}": value for layer in layers for name, value in buffers.items()}
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


# --- Small files ------------------------------------------------------------------------------


def _write_small_files(
    entry: Architecture, words: Lexicon, rows: int, dtype: torch.dtype, folder: Path, role: str
) -> None:
    chats = role == "chat"
    config = json.loads((folder / CONFIG).read_text())
    text = config.get("text_config", config)
    if entry.spelt == 4:
        given = entry.text_alone if role in entry.text_roles else entry.settings
        _under_the_names_of_hubs(text, given.get("text_config", given))
    family = words.family
    if chats:
        text["eos_token_id"] = words.ids[family.chat_eos or family.end_of_turn]
    if entry.prediction:
        text["num_nextn_predict_layers"] = 1
    if entry.spelt == 4:
        config = as_in_version_4(config)
    sees = entry.vision and role not in entry.text_roles
    if entry.flat and sees:
        settings = config.pop("text_config")
        config = {**{k: v for k, v in settings.items() if k not in config}, **config}
        config["vision_config"].pop("model_type")
    _write_json(folder / CONFIG, {**config, **entry.config})
    _write_json(folder / GENERATION_CONFIG, generation_config(words, chat=chats))
    if role != "base" or entry.base_tokenizer:
        write(folder, words, chat=chats, template_in_config=entry.spelt == 4)
    if sees:
        for name, content in _PROCESSOR_FILES.items():
            _write_json(folder / name, content)


_PROCESSOR_FILES = {
    "preprocessor_config.json": {
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "size": {"height": 28, "width": 28},
    },
    "processor_config.json": {"image_seq_length": 4, "processor_class": "Processor"},
    "video_preprocessor_config.json": {"do_resize": True, "fps": 2},
}


def _under_the_names_of_hubs(config: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Give settings the names that hubs' files have, where transformers 5 has others.

    Transformers 4 knows `num_experts` of some architectures and not `num_local_experts`.
    """
    others = CONFIG_MAPPING[config["model_type"]].attribute_map
    for name, other in others.items():
        if name in settings and other in config:
            config[name] = config.pop(other)


def as_in_version_4(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config in the spelling of transformers 4, which most hubs' files have."""
    spelt: dict[str, Any] = {}
    model_type = str(config.get("model_type", ""))
    for key, value in config.items():
        if key == "rope_parameters" and value is not None:
            spelt |= _rope_as_in_version_4(value, model_type)
        elif key == "dtype":
            spelt["torch_dtype"] = value
        elif isinstance(value, Mapping):
            spelt[key] = as_in_version_4(value)
        else:
            spelt[key] = value
    if "transformers_version" in spelt:
        spelt["transformers_version"] = "4.51.0"
    return spelt


def _rope_as_in_version_4(rope: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    if "full_attention" in rope:  # one for each kind of layer
        spelt = _rope_as_in_version_4(rope["full_attention"], model_type)
        if model_type.startswith("gemma3"):
            spelt["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        return spelt
    scaling = dict(rope)
    names = {"rope_theta": "rope_theta", "partial_rotary_factor": "partial_rotary_factor"}
    if model_type == "gpt_neox":
        names = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
    spelt = {names[key]: scaling.pop(key) for key in names if key in scaling}
    if "mrope_section" in scaling:
        old = model_type.startswith("qwen2")
        kind = {"type": "mrope"} if old else {"rope_type": "default"}
        spelt["rope_scaling"] = {**kind, "mrope_section": scaling["mrope_section"]}
    elif scaling.get("rope_type", "default") == "default":
        spelt["rope_scaling"] = None
    else:
        spelt["rope_scaling"] = scaling
    return spelt


def _write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _recipe(entry: Architecture, folder: Path, lexicons: Mapping[str, Lexicon]) -> dict[str, Any]:
    """Return the recipe that a person who knows these models would write."""
    base, chat, cp = (str(folder / role) for role in ROLES)
    recipe: dict[str, Any] = {
        "merge_method": "chat_vector",
        "base_model": cp,
        "models": [
            {"model": base, "parameters": {"role": "base"}},
            {"model": chat, "parameters": {"role": "chat", "ratio": entry.ratio}},
            {"model": cp, "parameters": {"role": "cp"}},
        ],
    }
    if entry.out_dtype:
        recipe["out_dtype"] = entry.out_dtype
    if entry.vocabulary != "same":
        recipe["tokenizer"] = {"source": cp}
        if entry.multiple > 1:
            recipe["tokenizer"]["pad_to_multiple_of"] = entry.multiple
    if entry.vocabulary == "markers":
        new = [t for t in lexicons["chat"].tokens if t not in lexicons["cp"].ids]
        recipe["tokenizer"]["tokens"] = {token: {"source": chat} for token in new}
    return recipe
