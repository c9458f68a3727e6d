"""Who is base, chat and cp among the inputs of one tensor, and each chat vector's ratio."""

from __future__ import annotations

import difflib
import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

from chatvec_method.errors import ChatVecError

if TYPE_CHECKING:
    pass

ROLES = ("base", "chat", "cp")


PARAMETERS = ("role", "ratio")


@dataclass(frozen=True)
class Roles:
    """Who is who among the inputs, by mergekit's id of each: a model reference, or any key."""

    base: Any
    cp: Any
    chats: tuple[Any, ...]

    @property
    def all(self) -> tuple[Any, ...]:
        """base, the chats and cp."""
        return (self.base, *self.chats, self.cp)


def assign_roles(roles: Mapping[Hashable, Any], place: str) -> Roles:
    """Return who is who, given what each input's `role` resolved to (None: to nothing).

    Raises:
        ChatVecError: A role is missing, is none of the three, or has the wrong number of holders.
    """
    for model, role in roles.items():
        if role is None:
            free = next((r for r in ROLES if r not in roles.values()), "chat")
            raise ChatVecError(
                f"{place}: model {model} has no role.",
                f"Write `parameters: {{role: {free}}}` under it, the only place where mergekit "
                "reads it (or another of base, chat and cp).",
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
    for role, models in holders.items():
        if not models:
            raise ChatVecError(
                f"{place}: no model has the role {role}.",
                f"Write `parameters: {{role: {role}}}` under the one that is {role}, of "
                f"{_listed(roles)}.",
            )
    return Roles(holders["base"][0], holders["cp"][0], holders["chat"])


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
            "Write `parameters: {role: cp}` (or base, or chat).",
        )
    if role not in ROLES:
        near = difflib.get_close_matches(role.lower(), ROLES, n=1, cutoff=0.5)
        fix = f"Write `parameters: {{role: {near[0] if near else 'base'}}}`"
        if not near:
            fix += " for the pretrained model, chat for that after instruction tuning, or cp for"
            fix += " that after continual pretraining."
        raise ChatVecError(
            f"{place}: model {model} has the role {role!r}, which is none of base, chat and cp.",
            fix,
        )


def _listed(models: Iterable[Hashable]) -> str:
    return ", ".join(str(model) for model in models)
