"""Configs in the words of transformers 4 besides those of 5, as other programs still read them.

Transformers 5 writes the rotary embedding's settings as `rope_parameters` and reads the older
`rope_theta` and `rope_scaling` as well. Transformers 4 and what is built on it know only the older
ones, and where they are missing take a default without a word, another one than the model's.
The other setting with two names is the number of experts of two architectures: what else the
configs of 4.57 know, 5.24 writes (compared for all that are models of language in both).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PretrainedConfig

ROPE = "rope_parameters"
NAMES_OF_OLD = {
    "gpt_neox": {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"},
    "gpt_neox_japanese": {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"},
}
"""What an architecture calls settings of its rotary embedding that have one name in all others."""
OTHER_OLD_NAMES = {
    "qwen3_moe": {"num_local_experts": "num_experts"},
    "qwen3_vl_moe_text": {"num_local_experts": "num_experts"},
}
"""What transformers 4 calls an architecture's other settings."""
LONGROPE_FIELDS = ("short_factor", "long_factor")
CLASSES_OF_5 = {
    "TokenizersBackend": "PreTrainedTokenizerFast",
    "PythonBackend": "PreTrainedTokenizer",
}
"""Tokenizer classes that transformers 4 does not know, and what it calls the same."""


def with_old_names(config: Mapping[str, Any], kind: type[PretrainedConfig]) -> dict[str, Any]:
    """Return a config.json that also has its settings where transformers 4 reads them.

    What is there already stays. Nothing is added that this transformers would not read as before.

    Args:
        config: The content of config.json.
        kind: The class that reads it.
    """
    new: dict[str, Any] = copy.deepcopy(dict(config))
    for part in _parts(new):
        others = OTHER_OLD_NAMES.get(str(part.get("model_type")), {})
        renamed = {old: part[name] for name, old in others.items() if name in part}
        for key, value in {**_old_rope(part), **renamed}.items():
            part.setdefault(key, value)
    return new if new == config or _means(new, kind) == _means(config, kind) else dict(config)


def with_old_tokens(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tokenizer_config.json in the words that transformers 4 and 5 both read.

    The tokens of a model's own, which 5 lists under two keys, have a key by name and a list in 4.
    """
    new = dict(settings)
    held = new.get("tokenizer_class")
    if held in CLASSES_OF_5:
        new["tokenizer_class"] = CLASSES_OF_5[held]
    named = new.pop("model_specific_special_tokens", None)
    listed = new.get("extra_special_tokens")
    if isinstance(listed, list):
        del new["extra_special_tokens"]
        if listed:
            others = new.get("additional_special_tokens") or []
            new["additional_special_tokens"] = [*others, *(t for t in listed if t not in others)]
    if named:
        new["extra_special_tokens"] = {**named, **(new.get("extra_special_tokens") or {})}
    return new


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a config and the configs in it."""
    yield config
    for key, value in config.items():
        if isinstance(value, dict) and key != ROPE:
            yield from _parts(value)


def _old_rope(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return what transformers 4 reads in place of `rope_parameters`."""
    rope = part.get(ROPE)
    if not isinstance(rope, dict) or not rope:
        return {}
    full, sliding = (rope.get(f"{kind}_attention") for kind in ("full", "sliding"))
    if isinstance(full, dict) and isinstance(sliding, dict):  # one for each kind of layer
        old = _old_flat_rope(full, part)
        if sliding.get("rope_theta") != full.get("rope_theta"):
            old["rope_local_base_freq"] = sliding.get("rope_theta")
        return old
    if any(isinstance(value, dict) for value in rope.values()):
        return {}  # by kinds of layers that transformers 4 has no word for
    return _old_flat_rope(rope, part)


def _old_flat_rope(rope: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    names = NAMES_OF_OLD.get(str(part.get("model_type")), {})
    scaling = dict(rope)
    old = {
        names.get(key, key): scaling.pop(key)
        for key in ("rope_theta", "partial_rotary_factor")
        if key in scaling
    }
    kind = scaling.get("rope_type", "default")
    if kind == "longrope" and part.get("model_type") in ("phi3", "phi4_multimodal"):
        # These take three fields and no others.
        lists = {key: scaling[key] for key in LONGROPE_FIELDS if key in scaling}
        old["rope_scaling"] = {"type": kind, **lists}
        if "original_max_position_embeddings" in scaling:
            old["original_max_position_embeddings"] = scaling["original_max_position_embeddings"]
    elif kind == "default" and scaling.keys() <= {"rope_type"}:
        old["rope_scaling"] = None
    else:
        old["rope_scaling"] = scaling
    return old


def _means(config: Mapping[str, Any], kind: type[PretrainedConfig]) -> dict[str, Any] | None:
    """Return what this transformers reads in a config.json; None where it cannot."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return kind.from_dict(copy.deepcopy(dict(config))).to_dict()
    except Exception:  # each architecture checks its config in its own way
        return None
