"""Ratios in all forms in which people have them, put into a recipe that is planned already.

A number, what mergekit reads behind `ratio:` (a list over the layers, filters), a schedule or the
shape of one, or one of these for each of several chat models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, TypeAlias

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.plan import KINDS, MergePlan
from chatvec_method.recipe.edits import Edit
from chatvec_method.recipe.file import Recipe, parse_recipe
from chatvec_method.recipe.ratios import Reworded, chat_parameters, ratio_edits
from chatvec_method.schedules.cases import Schedule, filters_of
from chatvec_method.schedules.into_recipe import with_schedule
from chatvec_method.schedules.spec import parse_shape

OneRatio: TypeAlias = "float | str | Schedule | Sequence[float] | Sequence[Mapping[str, Any]]"
"""A number; the text of one, or of a shape (`linear:1:0.3`); a schedule; or what mergekit reads: a
list of numbers over the layers, or of filters with their values."""
AnyRatio: TypeAlias = "OneRatio | Mapping[str, OneRatio]"
"""One ratio for all chat models, or one for each of some, by the names that the recipe has."""
CASE = {"filter", "value"}


def with_ratio(recipe: Recipe, ratio: AnyRatio, plan: MergePlan) -> Reworded:
    """Return a recipe with other ratios.

    Args:
        recipe: The recipe.
        ratio: For all chat models, or for some of them; the others keep theirs.
        plan: Of the recipe, at any ratio.

    Raises:
        ChatVecError: It is no ratio, or a schedule does not fit the models.
    """
    settings = {chat: _setting(each) for chat, each in _by_chat(ratio, plan).items()}
    schedules = {chat: each for chat, each in settings.items() if isinstance(each, Schedule)}
    plain = {chat: each for chat, each in settings.items() if chat not in schedules}
    reworded = Reworded(recipe, ratio_edits(recipe.raw, plain))
    for chat, schedule in schedules.items():
        text = with_schedule(
            reworded.recipe, schedule, lambda changed: plan.with_ratios(changed.config), chat
        )
        reworded = Reworded(parse_recipe(text, recipe.name))
    return reworded


def with_part(recipe: Recipe, part: str, ratio: OneRatio, plan: MergePlan) -> Reworded:
    """Return a recipe in which some tensors have another ratio, and all others keep theirs.

    Args:
        recipe: The recipe.
        part: A kind of tensors (attention, mlp, norms, embeddings, head), or any part of their
            names, as filters have it.
        ratio: Theirs, of all chat models: a number, or a list of numbers over the layers.
        plan: Of the recipe, at any ratio.

    Raises:
        ChatVecError: There are no such tensors, or it is no ratio.
    """
    value = _setting(ratio)
    if isinstance(value, Schedule) or not _is_value(value):
        raise ChatVecError(
            f"`{ratio}` is no ratio for {part} alone.",
            "Write a number, or a list of numbers over the layers.",
        )
    edits = []
    for chat, path, parameters in chat_parameters(recipe.raw):
        filters = _filters(part, chat, plan)
        new: list[dict[str, Any]] = [{"filter": each, "value": value} for each in filters]
        if (held := parameters.get("ratio")) is not None:
            new += [case for case in _cases(held) if case.get("filter") not in filters]
        edits.append(Edit((*path, "ratio"), new))
    return Reworded(recipe, tuple(edits))


def _by_chat(ratio: AnyRatio, plan: MergePlan) -> dict[str, Any]:
    chats = [str(chat) for chat in plan.roles.chats]
    if not isinstance(ratio, Mapping) or ratio.keys() <= CASE:
        return dict.fromkeys(chats, ratio)
    for name in ratio:
        if str(name) not in chats:
            raise ChatVecError(
                f"the recipe has no chat model {name}.", f"Write {' or '.join(chats)}."
            )
    return {str(name): each for name, each in ratio.items()}


def _setting(ratio: Any) -> Any:
    """Return a schedule, or what YAML has behind `ratio:`."""
    if isinstance(ratio, Schedule):
        return ratio
    if isinstance(ratio, str):
        try:
            return _number(float(ratio), ratio)
        except ValueError:
            return Schedule(parse_shape(ratio))
    if hasattr(ratio, "tolist"):
        ratio = ratio.tolist()
    if isinstance(ratio, Mapping) and "value" in ratio and ratio.keys() <= CASE:
        return {**ratio, "value": _setting_value(ratio["value"])}
    if isinstance(ratio, Sequence) and any(isinstance(each, Mapping) for each in ratio):
        return [_setting(each) for each in ratio]
    return _setting_value(ratio)


def _setting_value(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return [_number(each, value) for each in value]
    return _number(value, value)


def _number(value: Any, given: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ChatVecError(
            f"{given!r} is no ratio.",
            "Write a number, a shape as in `linear:1:0.3`, or what a recipe has behind `ratio:`.",
        )
    return float(value)


def _is_value(setting: Any) -> bool:
    """Tell whether a setting is for all tensors alike: a number, or numbers over the layers."""
    return not any(isinstance(each, Mapping) for each in (setting, *_listed(setting)))


def _listed(setting: Any) -> list[Any]:
    return setting if isinstance(setting, list) else []


def _cases(setting: Any) -> list[dict[str, Any]]:
    """Return a setting as a list of filters with their values."""
    if isinstance(setting, Mapping):
        return [dict(setting)]
    return [{"value": setting}] if _is_value(setting) else [dict(case) for case in setting]


def _filters(part: str, chat: str, plan: MergePlan) -> list[str]:
    """Return filters for the tensors that a word means."""
    (model,) = (each for each in plan.roles.chats if str(each) == chat)
    names = {tensor.inputs[model].name: tensor.kind for tensor in plan.tensors}
    kind = next((kind for kind in KINDS if kind.lower() == part.lower()), None)
    mine = [name for name, held in names.items() if held == kind]
    if mine and kind is not None:
        return filters_of(kind, mine, [name for name in names if names[name] != kind])
    if any(part in name for name in names):
        return [part]
    kinds = [kind for kind in KINDS if kind in names.values()]
    raise ChatVecError(
        f"no tensor has `{part}` in its name.",
        f"Write a part of a name, or a kind: {', '.join(kinds).lower()}.",
    )
