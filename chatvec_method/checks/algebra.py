"""A recipe of another method that is a chat vector by algebra, offered as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mergekit.common import ModelReference

from chatvec_method.checks.findings import Finding, error
from chatvec_method.checks.roles import is_chat_name
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.chat_format import template_of
from chatvec_method.facts.models import Model, embedding_rows, look_up_all
from chatvec_method.recipe.algebra import Reading, readings
from chatvec_method.recipe.edits import edited
from chatvec_method.recipe.file import Recipe, parse_recipe
from chatvec_method.recipe.text import parse_yaml


def read_as_chat_vector(
    text: str, name: str, trust_remote_code: bool = False
) -> tuple[Recipe, Finding | None]:
    """Return the recipe that a text holds; one of another method as the chat vector that it is.

    Args:
        text: The recipe.
        name: For messages.
        trust_remote_code: Whether the models' configs may run code of their own.

    Returns:
        The recipe, and the finding that offers it where it was written otherwise.

    Raises:
        ChatVecError: It is not a recipe, or one of another method that is not a chat vector.
    """
    raw = parse_yaml(text, name)
    possible = readings(raw)
    if not possible:
        return parse_recipe(text, name), None  # which refuses other methods
    reading = possible[0] if len(possible) == 1 else _likeliest(possible, raw, trust_remote_code)
    moved = ""
    if reading.base_model != reading.cp and reading.base_model not in reading.chats:
        before = reading.base_model or "one of the models"
        moved = f" Config and tokenizer of the output are then {reading.cp}'s, and not {before}'s."
    method = raw["merge_method"]
    finding = error(
        "chat-vector-by-algebra",
        "merge_method",
        f"this `{method}` is a chat vector: {reading.formula}. As `{method}` it cannot be checked, "
        f"verified or finished by its roles.{moved}",
        "Write it as `merge_method: chat_vector`, as `chatvec check --fix` prints it; what is told "
        "here is of that.",
        reading.edits,
    )
    try:
        return parse_recipe(edited(text, reading.edits), name), finding
    except ChatVecError as refusal:
        raise ChatVecError(finding.message, refusal.fix, code=finding.code) from refusal


def _likeliest(possible: Sequence[Reading], raw: Mapping[str, Any], trust: bool) -> Reading:
    """Return the reading in which chat chats and cp has a language's tokens.

    cp + 1 · (chat − base) is also chat + 1 · (cp − base), and only the models tell them apart.
    """
    names = dict.fromkeys(n for each in possible for n in (each.cp, each.base, *each.chats))
    references = {name: ModelReference.parse(name) for name in names}
    models, _ = look_up_all(references.values(), trust)
    by_name = {name: models.get(reference) for name, reference in references.items()}
    source = (raw.get("tokenizer") or {}).get("source") or raw.get("tokenizer_source")

    def score(reading: Reading) -> int:
        base, cp = by_name[reading.base], by_name[reading.cp]
        chats = [by_name[chat] for chat in reading.chats]
        points = 4 * (str(source) == reading.cp) + (reading.base_model == reading.cp)
        points += 2 * any(is_chat_name(references[chat]) for chat in reading.chats)
        points -= 2 * is_chat_name(references[reading.cp])
        points += 2 * any(_has_own_template(chat, base) for chat in chats)
        points -= _has_own_template(cp, base)
        return points + 3 * any(_rows(cp) > _rows(chat) for chat in chats)

    return max(possible, key=score)  # the first of equals


def _has_own_template(model: Model | None, base: Model | None) -> bool:
    template = template_of(model) if model else None
    return template is not None and template != (template_of(base) if base else None)


def _rows(model: Model | None) -> int:
    return (embedding_rows(model) if model else None) or 0
