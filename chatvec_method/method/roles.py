"""Who is base, chat, cp or a vector among the inputs of a tensor, and each vector's ratio."""

from __future__ import annotations

import difflib
import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from chatvec_method.errors import ChatVecError

ROLES = ("base", "chat", "cp", "vector")


PARAMETERS = ("role", "ratio")
MOST_RATIO = 1e6
"""Far beyond any use; half precision ends not far behind it."""


@dataclass(frozen=True)
class Roles:
    """Who is who among the inputs, by mergekit's id of each: a model reference, or any key."""

    base: Any
    """None mostly where all chat vectors are files, from which base is subtracted already."""
    cp: Any
    chats: tuple[Any, ...]
    """Whose chat vectors are added, in the recipe's order: chat models, and chat vectors as files,
    which bring their chat model's tokenizer and template."""
    vectors: frozenset[Any] = frozenset()
    """Those of `chats` that are chat vectors as files."""

    @property
    def all(self) -> tuple[Any, ...]:
        """base, if there is one, the chats and cp."""
        return (*self.bases, *self.chats, self.cp)

    @property
    def bases(self) -> tuple[Any, ...]:
        """base, if there is one."""
        return () if self.base is None else (self.base,)

    def base_of(self, chat: Any) -> Any:
        """Return what is subtracted from a chat; None from a vector."""
        return None if chat in self.vectors else self.base

    def role_of(self, model: Any) -> str:
        """Return the role of one of `all`."""
        if model == self.cp:
            return "cp"
        return "base" if model == self.base else "vector" if model in self.vectors else "chat"

    def inputs(self, active: Iterable[Any]) -> tuple[Any, ...]:
        """Return what the sum takes for some chats: cp, base if it is subtracted, and they."""
        chats = tuple(active)
        subtracted = any(chat not in self.vectors for chat in chats)
        return (self.cp, *(self.bases if subtracted else ()), *chats)


def assign_roles(roles: Mapping[Hashable, Any], place: str) -> Roles:
    """Return who is who, given what each input's `role` resolved to (None: to nothing).

    Raises:
        ChatVecError: A role is missing, is none of the four, or has the wrong number of holders.
    """
    for model, role in roles.items():
        if role is None:
            free = next((r for r in ROLES if r not in roles.values()), "chat")
            raise ChatVecError(
                f"{place}: model {model} has no role.",
                f"Write `parameters: {{role: {free}}}` under it, the only place where mergekit "
                "reads it (or another of base, chat, cp and vector).",
            )
        _check_role(model, role, place)
    holders = {role: tuple(m for m in roles if roles[m] == role) for role in ROLES}
    for role, other in (("base", "cp"), ("cp", "base")):
        if len(holders[role]) > 1:
            raise ChatVecError(
                f"{place}: {_listed(holders[role])} all have the role {role}, which only one model "
                "can have.",
                f"Write `parameters: {{role: {other}}}` or `parameters: {{role: chat}}` under the "
                "others.",
            )
    only_files = holders["vector"] and not holders["chat"]  # base is beside them for the anatomy
    for role in ("cp",) if only_files else ("base", "chat", "cp"):
        if not holders[role]:
            raise ChatVecError(
                f"{place}: no model has the role {role}.",
                f"Write `parameters: {{role: {role}}}` under the one that is {role}, of "
                f"{_listed(roles)}.",
            )
    chats = tuple(model for model, role in roles.items() if role in ("chat", "vector"))
    return Roles(
        next(iter(holders["base"]), None), holders["cp"][0], chats, frozenset(holders["vector"])
    )


def ratio_value(value: Any, place: str) -> float:
    """Return a resolved `ratio` as a float.

    Raises:
        ChatVecError: It is missing, or not a finite number.
    """
    value = number_from_yaml(value)
    if value is None:
        raise ChatVecError(
            f"{place}: it has no ratio, or no filter of its ratio matches.",
            "Write `ratio: 1.0`, or after the filters an entry without one for all that they "
            "leave, as in `ratio: [{filter: mlp, value: 0.5}, {value: 1.0}]`",
        )
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ChatVecError(f"{place}: ratio {value!r} is not a number.", "Write `ratio: 1.0`")
    try:
        ratio = float(value)
    except OverflowError:
        ratio = math.inf
    if not math.isfinite(ratio):
        raise ChatVecError(f"{place}: ratio {ratio} is not finite.", "Write `ratio: 1.0`")
    if abs(ratio) > MOST_RATIO:
        raise ChatVecError(
            f"{place}: ratio {ratio:g} overflows whatever it is multiplied by.",
            "Write `ratio: 1.0`",
        )
    return ratio


def number_from_yaml(value: Any) -> Any:
    """Return a number for text that is one (YAML 1.1 reads `1e-1` as text), else the value."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    return value


def _check_role(model: Hashable, role: Any, place: str) -> None:
    if not isinstance(role, str):
        raise ChatVecError(
            f"{place}: the role of model {model} must be one word, the same for all its tensors, "
            "not a list or filters.",
            "Write `parameters: {role: cp}` (or base, chat or vector).",
        )
    if role not in ROLES:
        near = difflib.get_close_matches(role.lower(), ROLES, n=1, cutoff=0.5)
        fix = f"Write `parameters: {{role: {near[0] if near else 'base'}}}`"
        if not near:
            fix += " for the pretrained model, chat for that after instruction tuning, cp for"
            fix += " that after continual pretraining, or vector for a chat vector as a file."
        raise ChatVecError(
            f"{place}: model {model} has the role {role!r}, which is none of base, chat, cp and "
            "vector.",
            fix,
        )


def _listed(models: Iterable[Hashable]) -> str:
    return ", ".join(str(model) for model in models)
