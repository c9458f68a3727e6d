"""The output's `config.json` and `generation_config.json`: what weights and tokenizer say."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from mergekit.common import get_config_value
from transformers import GenerationConfig
from transformers.utils import (
    CONFIG_NAME,
)

from chatvec_method.facts.chat_format import (
    ChatFormat,
    same_special_token,
    sampling_defaults,
    speaking_chat,
)
from chatvec_method.facts.models import Model
from chatvec_method.facts.plan import MergePlan
from chatvec_method.facts.survey import Survey
from chatvec_method.finishing.files import json_text, text_of
from chatvec_method.finishing.output import rows_of
from chatvec_method.method.settings import dtype_name


def _token_ids(survey: Survey, plan: MergePlan, chat: ChatFormat) -> dict[str, Any]:
    """Return the output's eos_token_id, if one is known, and bos_token_id and pad_token_id."""
    tokens = survey.tokens or {}
    stops = [stop.id for stop in chat.stops]
    ids: dict[str, Any] = {"eos_token_id": stops if len(stops) > 1 else stops[0]} if stops else {}
    for role in ("bos_token", "pad_token"):
        numbers = [tokens[chat.special[role]]] if role in chat.special else []
        for model in (speaking_chat(plan.roles, survey.models), survey.models[plan.roles.cp]):
            for source in (model.generation_config or {}, model.config.to_dict()):
                number = same_special_token(model, source.get(f"{role}_id"), tokens)
                numbers += [] if number is None else [number]
        ids[f"{role}_id"] = next(iter(numbers), None)
    return ids


def generation_config_text(survey: Survey, plan: MergePlan, chat: ChatFormat) -> str:
    """Return `generation_config.json`: stop tokens of all models, sampling of the chat model."""
    ids = _token_ids(survey, plan, chat)
    if ids["pad_token_id"] is None and chat.stops:
        eos = chat.special.get("eos_token")
        stops = {stop.token: stop.id for stop in chat.stops}
        ids["pad_token_id"] = stops.get(eos or "", chat.stops[0].id)
    try:
        config = GenerationConfig(
            **ids, **sampling_defaults(speaking_chat(plan.roles, survey.models))
        )
        config.validate(strict=True)
    except (ValueError, TypeError):  # the chat model's sampling is no use; its stop tokens are
        config = GenerationConfig(**ids)
    return config.to_json_string()


def config_text(out: Path, output: Model, survey: Survey, plan: MergePlan, chat: ChatFormat) -> str:
    """Return `config.json` with what its weights and its tokenizer say."""
    text = text_of(out / CONFIG_NAME) or ""
    config = json.loads(text)
    new = copy.deepcopy(config)
    vocabulary_key = plan.architecture.vocab_size_config_key or "vocab_size"
    *path, size_key = vocabulary_key.split(".")
    language_model = new  # or a part of it, in a model that also sees or hears
    for step in path:
        language_model = language_model.get(step, {})

    for key, number in _token_ids(survey, plan, chat).items():
        for part in (new, language_model):
            if part.get(key) is not None or (part is new and number is not None):
                part[key] = number
    rows = rows_of(output, plan)
    if rows is not None and rows != get_config_value(output.config, vocabulary_key):
        language_model[size_key] = rows
    dtype = output.weights_dtype
    if dtype and dtype_name(dtype) != str(output.config.dtype).removeprefix("torch."):
        new["torch_dtype" if "torch_dtype" in config else "dtype"] = dtype_name(dtype)
    if _tied(output) and _head_counts(output, survey, plan):
        new["tie_word_embeddings"] = False
    return json_text(text, config, new)


def _head_counts(output: Model, survey: Survey, plan: MergePlan) -> bool:
    """Whether the output has a head that is not its embeddings once more.

    mergekit writes one where any model has one, but takes the config from base_model, and where
    that is tied, nobody would read it.
    """
    head = next((t for t in plan.tensors if t.kind == "head"), None)
    embeddings = next((t for t in plan.tensors if t.kind == "embeddings"), None)
    if head is None or embeddings is None:
        return False
    all_tied = all(_tied(survey.models[model]) for model in plan.roles.all)
    return not all_tied or head.ratios != embeddings.ratios


def _tied(model: Model) -> bool:
    return bool(getattr(model.config, "tie_word_embeddings", False))
