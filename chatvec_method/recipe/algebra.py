"""Recipes of mergekit's `task_arithmetic` and `linear` that are a chat vector by algebra.

Both methods make a sum of the models. Where one model comes in whole, and what others add is what
one more takes away, the sum is θ_cp + Σ r · (θ_chat − θ_base) and can be written so:

    task_arithmetic, base_model base, cp with weight 1, chat with weight r
    task_arithmetic, base_model cp, chat with weight r, base with weight −r
    task_arithmetic, base_model chat, cp with weight 1, base with weight −r
    linear, cp with weight 1, chat with weight r, base with weight −r

Weights may be lists over the layers and filters, which then are the ratio's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import permutations
from typing import Any, TypeAlias

from mergekit.common import ModelReference

from chatvec_method.recipe.edits import Edit
from chatvec_method.recipe.file import LINEAR, METHOD, SUMS, TASK_ARITHMETIC, KeyPath

THEIR_PARAMETERS = ("weight", "normalize", "lambda", "int8_mask", "rescale", "density")

Numbers: TypeAlias = tuple[Fraction, ...]
"""One for all layers, or several over the depth."""
Weight: TypeAlias = tuple[tuple["str | None", Numbers], ...]
"""Cases in order, each with its filter; the last one has none, and is for all that is left."""
ONE: Weight = ((None, (Fraction(1),)),)
ZERO: Weight = ((None, (Fraction(0),)),)


@dataclass(frozen=True)
class Reading:
    """One way to read a sum as a chat vector."""

    cp: str
    base: str
    chats: tuple[str, ...]
    base_model: str | None
    """The recipe's."""
    formula: str
    edits: tuple[Edit, ...] = field(repr=False)
    """What makes a recipe of `chat_vector` of it."""


@dataclass(frozen=True)
class _Group:
    """Models that are summed up: all, or those of one slice."""

    path: KeyPath
    entries: Sequence[Mapping[str, Any]]
    outer: tuple[Mapping[str, Any], ...]
    """The `parameters:` above them, nearest first."""


@dataclass(frozen=True)
class _Roles:
    cp: str
    base: str
    chats: tuple[str, ...]


def readings(raw: Mapping[str, Any]) -> list[Reading]:
    """Return the ways to read a recipe as a chat vector, [] if it is not one.

    Several are right where a ratio is 1: cp + (chat − base) is also chat + (cp − base).

    Args:
        raw: What the recipe's YAML says, of any method.
    """
    method = raw.get("merge_method")
    if method not in SUMS:
        return []
    try:
        donor = _name(raw["base_model"]) if raw.get("base_model") is not None else None
        groups = list(_groups(raw))
        ratios = [_ratios_by_roles(group, donor, str(method)) for group in groups]
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError):
        return []  # mergekit would refuse it too, or it is written in a way that is not known here
    if not groups:
        return []
    common = [roles for roles in ratios[0] if all(roles in each for each in ratios)]
    return [
        Reading(
            roles.cp,
            roles.base,
            roles.chats,
            donor,
            _formula(roles, ratios[0][roles]),
            tuple(_edits(raw, groups, donor, roles, [each[roles] for each in ratios])),
        )
        for roles in common
        if any(ratio != ZERO for each in ratios for ratio in each[roles].values())
    ]


# --- which model comes in how often -----------------------------------------------------------


def _ratios_by_roles(
    group: _Group, donor: str | None, method: str
) -> dict[_Roles, dict[str, Weight]]:
    """Return each chat model's ratio, for every way to give the models of a group roles."""
    if method == LINEAR:
        donor = None
    weights = _weights(group, donor, method)
    fitting: dict[_Roles, dict[str, Weight]] = {}
    for cp, base in permutations([*weights, *([donor] if donor else [])], 2):
        ratios = _ratios(weights, donor, cp, base)
        if ratios:
            fitting[_Roles(cp, base, tuple(ratios))] = ratios
    return fitting


def _ratios(
    weights: Mapping[str, Weight], donor: str | None, cp: str, base: str
) -> dict[str, Weight] | None:
    """Return the chat models' ratios if cp and base are these, None if they cannot be.

    Task arithmetic's base_model, the donor, has no weight: all weights with its own are 1.
    """
    chats = {name: weight for name, weight in weights.items() if name not in (cp, base)}
    if not all(_has_sign(weight, 1) for weight in chats.values()):
        return None
    if cp != donor and not _is(weights[cp], ONE):
        return None
    if base == donor:
        return chats
    if not _has_sign(weights[base], -1):
        return None
    rest: Weight | None = _minus(weights[base])
    for weight in chats.values():
        rest = None if rest is None else _combined(rest, weight, lambda a, b: a - b)
    if rest is None or not _has_sign(rest, 1):
        return None
    if _is(rest, ZERO):
        return chats
    return {**chats, donor: rest} if donor not in (None, cp) else None


def _weights(group: _Group, donor: str | None, method: str) -> dict[str, Weight]:
    """Return how often each model comes in, task arithmetic's base_model apart.

    Raises:
        ValueError: That depends on more than can be read here.
    """
    weights = {}
    for entry in group.entries:
        name = _name(entry["model"])
        if name in weights:
            raise ValueError("a model comes twice")
        if name != donor:
            weights[name] = _nearest("weight", [entry.get("parameters"), *group.outer])
    if _normalised(group, method):
        total = ZERO
        for weight in weights.values():
            total = _certain(_combined(total, weight, lambda a, b: a + b))
        # mergekit does not divide task vectors by nothing.
        if not _is(total, ONE) and not (method == TASK_ARITHMETIC and _is(total, ZERO)):
            weights = {name: _divided(weight, total) for name, weight in weights.items()}
    if method == TASK_ARITHMETIC and _given("lambda", group.outer):
        factor = _nearest("lambda", group.outer)
        weights = {name: _times(weight, factor) for name, weight in weights.items()}
    return weights


def _normalised(group: _Group, method: str) -> bool:
    value = next((o["normalize"] for o in group.outer if "normalize" in o), method == LINEAR)
    if not isinstance(value, bool):
        raise ValueError("normalize is not true or false")
    return value


def _given(key: str, levels: Sequence[Mapping[str, Any] | None]) -> bool:
    return any(key in (level or {}) for level in levels)


def _nearest(key: str, levels: Sequence[Mapping[str, Any] | None]) -> Weight:
    for level in levels:
        if level and key in level:
            return _weight(level[key])
    raise ValueError(f"no {key}")


def _groups(raw: Mapping[str, Any]) -> Iterator[_Group]:
    top = raw.get("parameters") or {}
    parts: list[tuple[KeyPath, Mapping[str, Any], tuple[Mapping[str, Any], ...]]] = [
        (("modules", name), module, (module.get("parameters") or {}, top))
        for name, module in (raw.get("modules") or {}).items()
    ] or [((), raw, (top,))]
    for path, part, outer in parts:
        if part.get("models"):
            yield _Group((*path, "models"), part["models"], outer)
        for i, each in enumerate(part.get("slices") or ()):
            if each.get("base_model") is not None:
                raise ValueError("a slice with a base_model of its own")
            here = (*path, "slices", i, "sources")
            yield _Group(here, each["sources"], (each.get("parameters") or {}, *outer))


def _name(value: Any) -> str:
    return str(ModelReference.model_validate(value))


# --- arithmetic with settings -----------------------------------------------------------------


def _weight(setting: Any) -> Weight:
    """Return a setting's cases.

    Raises:
        ValueError: It is not a number for every tensor.
    """
    if isinstance(setting, Mapping):
        setting = [setting]
    if not isinstance(setting, list) or not any(isinstance(each, Mapping) for each in setting):
        return ((None, _numbers(setting)),)
    cases: list[tuple[str | None, Numbers]] = []
    for case in setting:
        pattern = case.get("filter")
        cases.append((None if pattern == "*" else pattern, _numbers(case["value"])))
        if cases[-1][0] is None:
            return tuple(cases)
    raise ValueError("no case for all tensors")


def _numbers(value: Any) -> Numbers:
    values = value if isinstance(value, list) else [value]
    if not values or any(isinstance(each, bool) for each in values):
        raise ValueError("not a number")
    return tuple(Fraction(str(each)) for each in values)


def _combined(
    one: Weight, other: Weight, combine: Callable[[Fraction, Fraction], Fraction]
) -> Weight | None:
    """Return two settings combined number by number, None where their cases are not the same."""
    if len(one) == 1 and len(one[0][1]) == 1:
        one = tuple((pattern, one[0][1]) for pattern, _ in other)
    elif len(other) == 1 and len(other[0][1]) == 1:
        other = tuple((pattern, other[0][1]) for pattern, _ in one)
    if [pattern for pattern, _ in one] != [pattern for pattern, _ in other]:
        return None
    cases = []
    for (pattern, first), (_, second) in zip(one, other, strict=True):
        length = max(len(first), len(second))
        if len(first) not in (1, length) or len(second) not in (1, length):
            return None
        pairs = zip(_stretched(first, length), _stretched(second, length), strict=True)
        cases.append((pattern, tuple(combine(a, b) for a, b in pairs)))
    return tuple(cases)


def _stretched(numbers: Numbers, length: int) -> Numbers:
    return numbers if len(numbers) == length else numbers * length


def _times(one: Weight, other: Weight) -> Weight:
    return _certain(_combined(one, other, lambda a, b: a * b))


def _divided(weight: Weight, total: Weight) -> Weight:
    if len(total) > 1 or len(total[0][1]) > 1 or not total[0][1][0]:
        raise ValueError("divided by a sum that is another in each layer, or nothing")
    return _times(weight, ((None, (1 / total[0][1][0],)),))


def _certain(weight: Weight | None) -> Weight:
    if weight is None:
        raise ValueError("weights with other cases")
    return weight


def _minus(weight: Weight) -> Weight:
    return _times(weight, ((None, (Fraction(-1),)),))


def _all_numbers(weight: Weight) -> list[Fraction]:
    return [number for _, numbers in weight for number in numbers]


def _is(one: Weight, other: Weight) -> bool:
    difference = _combined(one, other, lambda a, b: a - b)
    return difference is not None and not any(_all_numbers(difference))


def _has_sign(weight: Weight, sign: int) -> bool:
    return all(number * sign >= 0 for number in _all_numbers(weight))


# --- how it is written ------------------------------------------------------------------------


def _formula(roles: _Roles, ratios: Mapping[str, Weight]) -> str:
    terms = []
    for chat, ratio in ratios.items():
        numbers = set(_all_numbers(ratio))
        shown = f"{float(numbers.pop()):g}" if len(numbers) == 1 else "ratio"
        terms.append(f" + {shown} · ({chat} − {roles.base})")
    return roles.cp + "".join(terms)


def _edits(
    raw: Mapping[str, Any],
    groups: Sequence[_Group],
    donor: str | None,
    roles: _Roles,
    ratios: Sequence[Mapping[str, Weight]],
) -> Iterator[Edit]:
    held = {roles.cp: "cp", roles.base: "base", **dict.fromkeys(roles.chats, "chat")}
    yield Edit(("merge_method",), METHOD)
    if donor not in (roles.cp, *roles.chats):
        yield Edit(("base_model",), roles.cp)
    for group, of_group in zip(groups, ratios, strict=True):
        names = [_name(entry["model"]) for entry in group.entries]
        for i, (name, entry) in enumerate(zip(names, group.entries, strict=True)):
            if name in held:
                path = (*group.path, i, "parameters")
                parameters = entry.get("parameters") or {}
                yield from _with_role(path, parameters, held[name], of_group.get(name))
        for name, role in held.items():
            if name not in names:  # it was only base_model
                new = {"model": name, "parameters": _new_parameters(role, of_group.get(name))}
                yield Edit((*group.path, len(names)), new)
        for i in reversed(range(len(names))):
            if names[i] not in held:  # base_model, which cancels itself out
                yield Edit((*group.path, i), remove=True)
    for path in _levels_above(raw):
        yield from _without_theirs(raw, path)


def _with_role(
    path: KeyPath, parameters: Mapping[str, Any], role: str, ratio: Weight | None
) -> Iterator[Edit]:
    """Write a model's role in the place of its weight, or the ratio in that and the role beside."""
    if not parameters:
        yield Edit(path, _new_parameters(role, ratio))
        return
    if "weight" in parameters:
        yield Edit((*path, "weight"), rename="role" if ratio is None else "ratio")
    if ratio is not None and ("weight" not in parameters or _weight(parameters["weight"]) != ratio):
        yield Edit((*path, "ratio"), _as_yaml(ratio))
    yield Edit((*path, "role"), role)
    for key in parameters:
        if key in THEIR_PARAMETERS and key != "weight":
            yield Edit((*path, key), remove=True)


def _new_parameters(role: str, ratio: Weight | None) -> dict[str, Any]:
    return {"role": role} if ratio is None else {"role": role, "ratio": _as_yaml(ratio)}


def _levels_above(raw: Mapping[str, Any]) -> Iterator[KeyPath]:
    """Yield the places above models where `parameters:` may stand."""
    yield ()
    for name, module in (raw.get("modules") or {}).items():
        yield ("modules", name)
        for i in range(len(module.get("slices") or ())):
            yield ("modules", name, "slices", i)
    for i in range(len(raw.get("slices") or ())):
        yield ("slices", i)


def _without_theirs(raw: Mapping[str, Any], path: KeyPath) -> Iterator[Edit]:
    level: Any = raw
    for key in path:
        level = level[key]
    parameters = level.get("parameters") or {}
    theirs = [key for key in parameters if key in THEIR_PARAMETERS]
    if theirs and len(theirs) == len(parameters):
        yield Edit((*path, "parameters"), remove=True)
    else:
        for key in theirs:
            yield Edit((*path, "parameters", key), remove=True)


def _as_yaml(weight: Weight) -> Any:
    values = [
        [float(number) for number in numbers] if len(numbers) > 1 else float(numbers[0])
        for _, numbers in weight
    ]
    if len(weight) == 1:
        return values[0]
    return [
        {**({"filter": pattern} if pattern else {}), "value": value}
        for (pattern, _), value in zip(weight, values, strict=True)
    ]
