"""The special tokens that the output's chat template writes, and who has them."""

from __future__ import annotations

from collections.abc import Mapping

from mergekit.common import ModelReference

from chatvec_method.facts.models import Model
from chatvec_method.facts.survey import Survey


def owned_markers(survey: Survey) -> Mapping[str, ModelReference | None]:
    """Return the template's special tokens, each with the first chat model that has it."""
    if survey.plan is None or survey.format is None or survey.format.template is None:
        return {}
    chats = [(chat, survey.models[chat]) for chat in survey.plan.roles.chats]
    return {
        marker: next((chat for chat, model in chats if has_token(model, marker)), None)
        for marker in survey.format.markers
    }


def missing_markers(survey: Survey) -> dict[str, ModelReference]:
    """Return those that a chat model knows as one token and the output would read in pieces."""
    if survey.tokens is None:
        return {}
    owners = owned_markers(survey)
    return {
        marker: chat
        for marker, chat in owners.items()
        if chat is not None and marker not in survey.tokens
    }


def has_token(model: Model, token: str) -> bool:
    """Tell whether a model's tokenizer has a token."""
    return model.tokenizer is not None and token in model.tokenizer.ids
