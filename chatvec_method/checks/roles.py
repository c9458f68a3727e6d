"""Roles on the wrong models: one model under two roles, or two whose roles look exchanged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from mergekit.common import ModelReference

from chatvec_method.checks.findings import Finding, error, warning
from chatvec_method.facts.chat_format import template_of
from chatvec_method.facts.models import Model
from chatvec_method.facts.survey import Survey
from chatvec_method.method.roles import Roles

CHAT_NAME = re.compile(
    r"(?i)(?:^|[-_.])(?:instruct|chat|it|sft|dpo|rlhf|assistant"
    r"|r1|r1d|distill|thinking|think|reasoning|reasoner|qwq)(?:[-_.]|$)"
)
"""What the names of models tuned to follow instructions or to reason have in them."""
MANY_TOKENS = 256
"""More than so many new tokens are a language's, and not those of a chat format."""


def role_findings(survey: Survey, roles: Roles | None) -> Iterator[Finding]:
    """Find models whose role does not look like theirs."""
    if roles is None:
        return
    yield from _same_model(survey, roles)
    if not all(model in survey.models for model in roles.all):
        return
    # A language's vector for a model that also sees: cp is of another kind, and nobody's twin.
    if roles.base is None:
        return
    if survey.models[roles.base].config.model_type == survey.models[roles.cp].config.model_type:
        yield from _named_for_other_roles(survey, roles)
        yield from _with_tokens_of_other_roles(survey, roles)


def _same_model(survey: Survey, roles: Roles) -> Iterator[Finding]:
    models = [survey.models[model] for model in roles.all if model in survey.models]
    for first, second in combinations(models, 2):
        if not _are_one(first, second):
            continue
        one, other = first.reference, second.reference
        meaning = {
            frozenset({"base", "chat"}): "the chat vector is zero and the output is cp",
            frozenset({"base", "cp"}): "there is nothing new in cp: at ratio 1 the output is chat",
            frozenset({"chat", "cp"}): "cp has the chat vector already, and gets it a second time",
        }.get(
            frozenset({roles.role_of(one), roles.role_of(other)}),
            "the same chat vector is added twice",
        )
        yield error(
            "same-model",
            other,
            f"it is the same model as {one}, so {meaning}.",
            f"Write another model for `role: {roles.role_of(other)}`.",
        )


def _are_one(first: Model, second: Model) -> bool:
    """Tell whether two models have the same files, under whatever names."""
    if first.reference.lora != second.reference.lora:
        return False
    if first.folder and second.folder:
        return first.folder.resolve() == second.folder.resolve() or (
            _weight_files(first) == _weight_files(second) != set()
        )
    one, other = first.reference.model.path, second.reference.model.path
    return bool(one == other and first.commit == second.commit is not None)


def _weight_files(model: Model) -> set[Path]:
    if model.folder is None or model.tensors is None:
        return set()
    files = {header.file for header in model.tensors.values()}
    return {(model.folder / file).resolve() for file in files}


def _named_for_other_roles(survey: Survey, roles: Roles) -> Iterator[Finding]:
    """Tell where only base or cp is named like a chat model.

    A vector from one chat model to another (a reasoning model minus the instruct model that it was
    trained from), or onto one, is no exchange: there cp chats too, and its template shows it.
    """
    base, cp = survey.models[roles.base], survey.models[roles.cp]
    chats = [survey.models[chat] for chat in roles.chats if chat not in roles.vectors]
    if any(map(_is_chat_name, chats)):
        return
    a_chat_has_a_format = any(template_of(chat) not in (None, template_of(base)) for chat in chats)
    onto_chat = _is_chat_name(cp) and template_of(cp) is not None
    if _is_chat_name(base) and not onto_chat:
        yield _look_swapped(
            base,
            chats[0],
            "the base model is named like a chat model, and no chat model is",
            "so that the chat ability would be taken away",
        )
    if _is_chat_name(cp) and not (onto_chat and (a_chat_has_a_format or _is_chat_name(base))):
        yield _look_swapped(
            cp,
            chats[0],
            "cp is named like a chat model, and the chat model is not",
            "so that what cp learnt would be added to the chat model",
        )


def _with_tokens_of_other_roles(survey: Survey, roles: Roles) -> Iterator[Finding]:
    """Tell where chat or base has a language's new tokens, and cp has not."""
    base, cp = survey.models[roles.base], survey.models[roles.cp]
    for chat in (survey.models[chat] for chat in roles.chats if chat not in roles.vectors):
        sizes = [_vocabulary_size(model) for model in (base, chat, cp)]
        of_base, of_chat, of_cp = (size or 0 for size in sizes)
        if 0 in (of_base, of_chat, of_cp):
            continue
        if of_chat > of_base + MANY_TOKENS and of_cp <= of_base:
            why = (
                f"the chat model has {of_chat} tokens and cp, like base, {of_cp}, but it is new "
                "languages that come with new tokens"
            )
            yield _look_swapped(cp, chat, why, "so that the language would be the vector")
        elif of_base > of_cp + MANY_TOKENS and of_chat <= of_cp:
            why = (
                f"the base model has {of_base} tokens, and the others {of_chat} and {of_cp}, but "
                "it is cp to which a new language gives new tokens"
            )
            yield _look_swapped(base, cp, why, "so that the language would be taken away")


def _look_swapped(one: Model, other: Model, why: str, so: str) -> Finding:
    return warning(
        "roles-look-swapped",
        one,
        f"{why}: their roles look exchanged, {so}.",
        f"Exchange the roles of {one} and {other}, if so.",
    )


def _is_chat_name(model: Model) -> bool:
    return is_chat_name(model.reference)


def is_chat_name(reference: ModelReference) -> bool:
    """Tell whether a model is named like one that was tuned to chat or to reason."""
    name = reference.model.path.rstrip("/").rpartition("/")[2]
    adapter = reference.lora
    return bool(CHAT_NAME.search(name) or (adapter and CHAT_NAME.search(adapter.path)))


def _vocabulary_size(model: Model) -> int | None:
    return len(model.tokenizer.ids) if model.tokenizer else None
