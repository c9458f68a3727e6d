"""The output's `config.json` and `generation_config.json`: what weights and tokenizer say.

The config is base_model's own, as it stands in its file and not as transformers would write it
today, with what the merge has changed.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig, PretrainedConfig
from transformers.utils import CONFIG_NAME

from chatvec_method.facts.chat_format import (
    ChatFormat,
    same_special_token,
    sampling_defaults,
    speaking_chat,
)
from chatvec_method.facts.models import Model, text_config
from chatvec_method.facts.plan import MergePlan, PlannedTensor
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.finishing.donors import config_donor, with_own_code
from chatvec_method.finishing.files import json_text
from chatvec_method.finishing.output import embeddings_of, rows_of
from chatvec_method.finishing.spellings import with_old_names
from chatvec_method.method.settings import dtype_name
from chatvec_method.method.vector import CONFIG_KEY

DTYPE_KEYS = ("torch_dtype", "dtype")
"""How transformers 4 and 5 call it; each reads both."""
LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
LISTS_OF_LAYERS = ("layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers")
"""What a config says of each layer."""
QUANTISATION_KEYS = ("quantization_config", "compression_config", CONFIG_KEY)
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
OTHER_ID = re.compile(r"\w+_token_(id|index)")
"""Where a config has the number of another token, such as that of an image."""
WEIGHTS_KEY = "transformers_weights"
"""Which file of its weights a model is loaded from; an output has others."""
TIED = "tie_word_embeddings"


@dataclass(frozen=True)
class Parts:
    """A config.json, and the part of it that describes the language model."""

    whole: dict[str, Any]
    language: dict[str, Any]
    """The whole itself where there is nothing else, or where the file does not nest it."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each of them once."""
        yield self.language
        if self.language is not self.whole:
            yield self.whole


def generation_config_text(survey: ReadySurvey, chat: ChatFormat) -> str:
    """Return `generation_config.json`: stop tokens of all models, sampling of the chat model."""
    ids = _token_ids(survey, chat)
    if ids["pad_token_id"] is None and chat.stops:
        eos = chat.special.get("eos_token")
        stops = {stop.token: stop.id for stop in chat.stops}
        ids["pad_token_id"] = stops.get(eos or "", chat.stops[0].id)
    speaker = speaking_chat(survey.plan.roles, survey.models)
    try:
        config = GenerationConfig(**ids, **sampling_defaults(speaker))
        config.validate(strict=True)
    except (ValueError, TypeError):  # the chat model's sampling is no use; its stop tokens are
        config = GenerationConfig(**ids)
    return config.to_json_string()


def config_text(output: Model, survey: ReadySurvey, chat: ChatFormat) -> str:
    """Return `config.json`: base_model's, with what the merge has changed."""
    donor = config_donor(survey)
    text = donor.small_files.text(CONFIG_NAME) or "{}"
    old: dict[str, Any] = json.loads(text)
    new = copy.deepcopy(old)
    parts = parts_of(new, donor.config)
    _set_architecture(parts, donor)
    _set_layers(parts, survey, donor)
    _set_rows(parts, output, survey.plan, donor)
    _set_token_ids(parts, survey, chat, donor)
    _set_dtype(parts, output)
    _set_tied(parts, output, survey, donor)
    if not any(header.dtype.itemsize < 2 for header in (output.tensors or {}).values()):
        for part in parts:
            for key in QUANTISATION_KEYS:
                part.pop(key, None)
    new.pop(WEIGHTS_KEY, None)
    new = with_own_code(new, donor.small_files, survey.options.trust_remote_code)
    return json_text(text, old, with_old_names(new, type(donor.config)))


def parts_of(config: dict[str, Any], read: PretrainedConfig) -> Parts:
    """Return a config.json with the part in it that describes the language model.

    Args:
        config: The content of the file.
        read: What transformers makes of it.
    """
    language = config
    for step in _path_to(text_config(read), read) or ():
        if not isinstance(language.get(step), dict):
            return Parts(config, config)  # in an older layout, which nested only the other parts
        language = language[step]
    return Parts(config, language)


def _path_to(part: PretrainedConfig, config: PretrainedConfig) -> tuple[str, ...] | None:
    """Return under which keys a config has another one; none where they are one and the same."""
    if part is config:
        return ()
    for name in config.sub_configs:
        inner = getattr(config, name, None)
        if isinstance(inner, PretrainedConfig):
            path = _path_to(part, inner)
            if path is not None:
                return (name, *path)
    return None


# --- What the merge has changed --------------------------------------------------------------


def _set_architecture(parts: Parts, donor: Model) -> None:
    if donor.reference.override_architecture:
        parts.whole["architectures"] = [donor.reference.override_architecture]


def _rows_of_donor(donor: Model, plan: MergePlan) -> int | None:
    embeddings = next((t for t in plan.tensors if t.kind == "embeddings"), None)
    header = embeddings.header(donor.reference) if embeddings else None
    return header.shape[embeddings.weight.vocabulary_axis or 0] if embeddings and header else None


def _set_rows(parts: Parts, output: Model, plan: MergePlan, donor: Model) -> None:
    rows, before = rows_of(output, plan), getattr(text_config(donor.config), "vocab_size", None)
    # Some models have more rows than their config says, and mean it.
    if rows is not None and rows != _rows_of_donor(donor, plan):
        _replace(parts, ("vocab_size",), before, rows)
    for name, header in (output.tensors or {}).items():
        if name.endswith("embed_tokens_per_layer.weight"):
            key = "vocab_size_per_layer_input"
            before = getattr(text_config(donor.config), key, None)
            _replace(parts, (key,), before, header.shape[0])


def _set_layers(parts: Parts, survey: ReadySurvey, donor: Model) -> None:
    """Set the number of layers where the recipe has slices, and what is said of each of them."""
    recipe, plan = survey.recipe.config, survey.plan
    if not (recipe.slices or recipe.modules):
        return
    for name, module in plan.config.modules.items():
        known = plan.architecture.modules.get(name)
        key = known.architecture.num_layers_config_key() if known else None
        if key is None and name != plan.module:
            continue
        *path, key = (key or _layers_key(parts, donor)).split(".")
        part = parts.whole
        for step in path:
            part = part[step] if isinstance(part.get(step), dict) else part
        if key not in part and part is parts.whole:
            part = parts.language
        layers = [
            layer
            for each in module.slices
            for layer in range(*_source_of(each.sources, donor).layer_range)
        ]
        before = part.get(key)
        if before != len(layers):
            part[key] = len(layers)
        for listed in LISTS_OF_LAYERS:
            values = part.get(listed)
            if isinstance(values, list) and len(values) == before and max(layers) < len(values):
                part[listed] = [values[layer] for layer in layers]


def _source_of(sources: Any, donor: Model) -> Any:
    """Return the layers that a slice takes of the model whose config it is."""
    return next((s for s in sources if s.model == donor.reference), sources[0])


def _layers_key(parts: Parts, donor: Model) -> str:
    usual = text_config(donor.config).attribute_map.get(LAYER_KEYS[0], LAYER_KEYS[0])
    return next((key for key in LAYER_KEYS if key in parts.language), usual)


def _set_dtype(parts: Parts, output: Model) -> None:
    """Set the dtype of the weights, and with it that of parts that had the same before."""
    if output.weights_dtype is None:
        return
    name = dtype_name(output.weights_dtype)
    before = next((dtype for key in DTYPE_KEYS if (dtype := parts.whole.get(key))), None)
    for part in parts:
        for key in DTYPE_KEYS:
            if part.get(key):
                part[key] = name
    if before is None:
        parts.whole[DTYPE_KEYS[0]] = name
    else:
        _rename_dtype(parts.whole, before, name)


def _rename_dtype(part: dict[str, Any], before: str, name: str) -> None:
    for key, value in part.items():
        if isinstance(value, dict):
            _rename_dtype(value, before, name)
        elif key in DTYPE_KEYS and value == before:
            part[key] = name


def _set_tied(parts: Parts, output: Model, survey: ReadySurvey, donor: Model) -> None:
    """Say that the head is not the embeddings once more, where the merge has made it so.

    transformers 5 asks the whole config, and 4 the language model's, where 5 does not write it.
    """
    if not _tied(donor):
        return
    if _head_counts(output, survey):
        parts.whole[TIED] = parts.language[TIED] = False
    elif _stored_head(output, survey.plan) is None and not hasattr(text_config(donor.config), TIED):
        parts.language[TIED] = True


def _stored_head(output: Model, plan: MergePlan) -> PlannedTensor | None:
    heads = (tensor for tensor in plan.tensors if tensor.kind == "head")
    return next((head for head in heads if head.name in (output.tensors or {})), None)


def _head_counts(output: Model, survey: ReadySurvey) -> bool:
    """Whether the output has a head that is not its embeddings once more.

    One is written where any model has one, but the config is base_model's, and where that is tied,
    nobody would read it.
    """
    plan = survey.plan
    head, embeddings = _stored_head(output, plan), embeddings_of(plan)
    if head is None or embeddings is None:
        return False
    all_tied = all(_tied(survey.models[model]) for model in plan.roles.all)
    return not all_tied or head.ratios != embeddings.ratios


def _tied(model: Model) -> bool:
    return bool(getattr(model.config, TIED, False))


def _replace(parts: Parts, keys: tuple[str, ...], before: Any, after: Any) -> None:
    """Replace a value wherever it stands; what stands nowhere is said of the language model."""
    if before == after:
        return
    for key in keys:
        holders = [part for part in parts if key in part and part[key] == before]
        for part in holders or [parts.language]:
            part[key] = after


# --- Tokens ----------------------------------------------------------------------------------


def _set_token_ids(parts: Parts, survey: ReadySurvey, chat: ChatFormat, donor: Model) -> None:
    for key, number in _token_ids(survey, chat).items():
        holders = [part for part in parts if part.get(key) is not None]
        if number is not None and not holders:
            holders = [parts.language]
        for part in holders:
            part[key] = number
    if survey.vocabulary is None or donor.tokenizer is None:
        return
    tokens = donor.tokenizer.tokens
    for part in parts:
        for key, number in part.items():
            if OTHER_ID.fullmatch(key) and key not in SPECIAL_IDS and type(number) is int:
                part[key] = survey.tokens.get(tokens.get(number, ""), number)


def _token_ids(survey: ReadySurvey, chat: ChatFormat) -> dict[str, Any]:
    """Return the output's eos_token_id, if one is known, and bos_token_id and pad_token_id."""
    roles, tokens = survey.plan.roles, survey.tokens
    stops = [stop.id for stop in chat.stops]
    ids: dict[str, Any] = {"eos_token_id": stops if len(stops) > 1 else stops[0]} if stops else {}
    for role in ("bos_token", "pad_token"):
        numbers = [tokens[chat.special[role]]] if role in chat.special else []
        for model in (speaking_chat(roles, survey.models), survey.models[roles.cp]):
            for held in model.token_ids(f"{role}_id"):
                same = (same_special_token(model, number, tokens) for number in held)
                numbers += [number for number in same if number is not None]
        ids[f"{role}_id"] = next(iter(numbers), None)
    return ids
