"""Whether two chat templates write the same around what is said.

Templates are programs, so they are held against each other by what they make of one conversation.
A recipe that was copied for other models often keeps the old template, and the chat model then gets
prompts of a kind that it has never seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TypeAlias

from chatvec_method.rendering import TemplateError, render

Pieces: TypeAlias = tuple[str, ...]
"""What stands before, between and after the messages."""

SYSTEM = {"role": "system", "content": "⟦system⟧"}
TURNS = (
    {"role": "user", "content": "⟦question⟧"},
    {"role": "assistant", "content": "⟦answer⟧"},
    {"role": "user", "content": "⟦again⟧"},
)

LONGEST_LINE = 160


class Difference(Enum):
    """How two templates differ, in words."""

    SPACES = "only in spaces and line breaks"
    START = "only in what stands before the first message, such as a default system prompt"
    SYSTEM = "in how a system message is written"
    TURNS = "in what is written around the messages"


def difference(one: str, other: str, special: Mapping[str, str]) -> Difference | None:
    """Return how two templates differ, None if they do not or if one cannot be rendered.

    Args:
        one: A template.
        other: Another one.
        special: bos_token, eos_token and so on, for both.
    """
    if one.strip() == other.strip():
        return None
    turns = [_pieces(template, TURNS, special) for template in (one, other)]
    if turns[0] is None or turns[1] is None:
        return None
    begun = [_pieces(template, (SYSTEM, *TURNS), special) for template in (one, other)]
    # Not every format has a system message; one that adds it takes nothing away.
    with_system = begun if None not in begun else [None, None]
    evened = [_evened(pieces) for pieces in turns if pieces is not None]
    if evened[0][1:] != evened[1][1:]:
        return Difference.TURNS
    if _differ(with_system):
        return Difference.SYSTEM
    if evened[0] != evened[1]:
        return Difference.START
    return Difference.SPACES if turns[0] != turns[1] else None


def around(template: str, special: Mapping[str, str]) -> str:
    """Return a question in a template, as one line for messages; empty if it fails."""
    rendered = _rendered(template, TURNS[:1], special)
    text = "" if rendered is None else rendered.replace(TURNS[0]["content"], "...")
    line = text.strip().replace("\n", "\\n")
    return line if len(line) <= LONGEST_LINE else f"... {line[-LONGEST_LINE:]}"


def _differ(both: Sequence[Pieces | None]) -> bool:
    """Whether two conversations with a system message differ, spaces apart.

    One may say more before the message or after its header, as Llama 3.1 tells the date there.
    """
    one, other = (_evened(pieces) if pieces is not None else () for pieces in both)
    if not one or not other:
        return False
    shorter, longer = sorted((one[0], other[0]), key=len)
    same_start = longer.startswith(shorter) or longer.endswith(shorter)
    return one[1:] != other[1:] or not same_start


def _evened(pieces: Pieces) -> Pieces:
    return tuple(" ".join(piece.split()) for piece in pieces)


def _pieces(
    template: str, messages: Sequence[Mapping[str, str]], special: Mapping[str, str]
) -> Pieces | None:
    """Return what a template writes around messages, None if it fails or leaves one out."""
    rest = _rendered(template, messages, special)
    if rest is None:
        return None
    pieces = []
    for message in messages:
        before, content, rest = rest.partition(message["content"])
        if not content:
            return None
        pieces.append(before)
    # Whether bos is written here or by the tokenizer, it stands there once.
    pieces[0] = pieces[0].removeprefix(special.get("bos_token", ""))
    return (*pieces, rest)


def _rendered(
    template: str, messages: Sequence[Mapping[str, str]], special: Mapping[str, str]
) -> str | None:
    try:
        return render(template, messages, special)
    except TemplateError:
        return None
