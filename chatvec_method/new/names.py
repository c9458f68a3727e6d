"""The names that somebody left out: the model that others came from, and its chat models."""

from __future__ import annotations

from collections.abc import Sequence

from mergekit.common import ModelReference

from chatvec_method.checks.roles import is_chat_name
from chatvec_method.errors import ChatVecError
from chatvec_method.hub.listing import Child, children_of
from chatvec_method.hub.relatives import common_ancestor

MOST_NAMED = 5
"""So many candidates are named in a message."""


def find_base(cp: str, chats: Sequence[str], trust_remote_code: bool = False) -> str:
    """Return the model from which cp and the chat models descend, as their cards tell.

    Raises:
        ChatVecError: They do not tell, or a model is not there.
    """
    descendants = [ModelReference.parse(name) for name in (cp, *chats)]
    base = common_ancestor(descendants, trust_remote_code)
    if base is None:
        raise ChatVecError(
            f"neither cards nor configs tell from which model {' and '.join((cp, *chats))} "
            f"{'descend' if chats else 'descends'}.",
            "Write it: `--base owner/name`.",
            code="base-unknown",
        )
    return base


def chat_candidates(base: str, cp: str) -> list[Child]:
    """Return the chat models that the hub knows as fine-tuned from base, best known first.

    Raises:
        ChatVecError: The hub knows none, or cannot be reached.
    """
    children = [
        child
        for child in children_of(base)
        if child.name != cp
        and (child.conversational or is_chat_name(ModelReference.parse(child.name)))
    ]
    if not children:
        raise ChatVecError(
            f"no chat model was named, and the hub knows none that was fine-tuned from {base}.",
            "Write one: `--chat owner/name`.",
            code="chat-unknown",
        )
    return children


def no_chat_named(base: str, candidates: Sequence[Child]) -> ChatVecError:
    """Return what says which chat models there are."""
    named = [
        f"{child.name} ({child.licence}{', gated' if child.gated else ''})"
        for child in candidates[:MOST_NAMED]
    ]
    return ChatVecError(
        f"no chat model was named. Fine-tuned from {base} are {', '.join(named)}.",
        "Write one of them, or another: `--chat owner/name`.",
        code="chat-unknown",
    )
