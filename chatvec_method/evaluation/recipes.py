"""A recipe as a target: the ratios that are asked for, and what tells it from another recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from mergekit.common import ModelReference

from chatvec_method.errors import ChatVecError
from chatvec_method.evaluation.identity import identity
from chatvec_method.evaluation.targets import Setting
from chatvec_method.recipe.file import METADATA, Recipe
from chatvec_method.recipe.ratios import chat_parameters
from chatvec_method.schedules.cases import Schedule
from chatvec_method.schedules.spec import Shape, parse_shape

RATIO = "ratio"
AS_WRITTEN = "as written"
MOST = 200
"""Ratios in one evaluation: more is a slip of the pen."""


def ratios_in(text: str) -> list[float]:
    """Return the ratios that a text lists: `0,0.5,1`, `0:1.5:0.125` (from, to, step), or both.

    Raises:
        ChatVecError: It lists none.
    """
    try:
        ratios = [each for part in text.split(",") for each in _range(part)]
    except (InvalidOperation, ValueError) as error:
        raise ChatVecError(
            f"`{text}` lists no ratios.", "Write `0,0.25,0.5`, or `0:1.5:0.125`: from, to, step."
        ) from error
    if len(ratios) > MOST:
        raise ChatVecError(f"`{text}` are {len(ratios)} ratios.", f"Write {MOST} at most.")
    return list(dict.fromkeys(ratios))


def _range(text: str) -> Iterator[float]:
    numbers = [Decimal(number.strip()) for number in text.split(":")]
    if not all(number.is_finite() for number in numbers):
        raise ValueError("not finite")
    if len(numbers) == 1:
        yield float(numbers[0])
        return
    first, last, step = numbers
    if step <= 0 or last < first:
        raise ValueError("a range goes upwards")
    for i in range(min(int((last - first) / step), MOST) + 1):
        yield float(first + i * step)


def settings_of(
    recipe: Recipe, ratios: Sequence[float], schedules: Sequence[str], *, own: bool = False
) -> list[Setting]:
    """Return the ratios at which a recipe is evaluated, its own first.

    Args:
        recipe: The recipe.
        ratios: Numbers, for all of its chat models.
        schedules: Shapes of the ratio over the layers.
        own: Whether its own ratio is among them.

    Raises:
        ChatVecError: A schedule has no such shape.
    """
    settings = [number(ratio) for ratio in ratios]
    settings += [_schedule(text) for text in schedules]
    written = as_written(recipe)
    if own and written.key not in [each.key for each in settings]:
        settings.insert(0, written)
    return [replace(each, own=each.key == written.key) for each in settings]


def number(ratio: float) -> Setting:
    """Return a ratio that is the same in all layers."""
    return Setting(ratio, float(ratio), ratio=float(ratio))


def as_written(recipe: Recipe) -> Setting:
    """Return a recipe's own ratio."""
    ratios = list(_written(recipe.raw))
    if ratios and all(each == ratios[0] for each in ratios) and _is_number(ratios[0]):
        return number(float(ratios[0]))
    by_chat = _by_chat(recipe.raw)
    scaled = None if by_chat is None else lambda factor: _scaled(by_chat, factor)
    return Setting(by_chat, {"written": ratios}, schedule=AS_WRITTEN, scaled=scaled)


def recipe_identity(recipe: Recipe, models: Sequence[ModelReference]) -> dict[str, Any]:
    """Return what tells a recipe from another one, its ratios and its comments apart.

    Args:
        recipe: The recipe.
        models: Those that it names.

    Raises:
        ChatVecError: A model is neither a folder nor on the hub.
    """
    names = {str(model): _model_identity(model) for model in models}
    said = {key: value for key, value in recipe.raw.items() if key != METADATA}
    return {"recipe": _renamed(_without_ratios(said), names), "models": sorted(names.values())}


def _model_identity(model: ModelReference) -> str:
    parts = [model.model, *([model.lora] if model.lora else [])]
    return " + ".join(identity(part.path, part.revision) for part in parts)


def revisions(models: Sequence[ModelReference]) -> dict[str, str]:
    """Return the revision of each model: a commit on the hub, or a folder's fingerprint."""
    return {str(model): _model_identity(model).rpartition(" ")[2] for model in models}


def _schedule(text: str) -> Setting:
    shape = parse_shape(text)

    def scaled(factor: float) -> Schedule:
        return Schedule(Shape(f"{factor:g} of {text}", lambda n: factor * shape.numbers(n)))

    return Setting(text, {"schedule": text}, schedule=text, scaled=scaled)


def _written(value: Any) -> Iterator[Any]:
    """Yield what stands behind every `ratio:`."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            if key == RATIO:
                yield part
            elif key != METADATA:
                yield from _written(part)
    elif isinstance(value, list):
        for part in value:
            yield from _written(part)


def _by_chat(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return each chat model's ratio; None where one has several, in slices."""
    shared = (raw.get("parameters") or {}).get(RATIO)
    ratios: dict[str, Any] = {}
    for name, _, parameters in chat_parameters(raw):
        if name in ratios or raw.get("slices") or raw.get("modules"):
            return None
        ratios[name] = parameters.get(RATIO, shared)
    return ratios if ratios and None not in ratios.values() else None


def _scaled(setting: Any, factor: float) -> Any:
    if isinstance(setting, Mapping):
        return {
            key: value if key == "filter" else _scaled(value, factor)
            for key, value in setting.items()
        }
    if isinstance(setting, list):
        return [_scaled(each, factor) for each in setting]
    return factor * setting


def _without_ratios(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_ratios(part) for key, part in value.items() if key != RATIO}
    return [_without_ratios(part) for part in value] if isinstance(value, list) else value


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _renamed(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [_renamed(part, names) for part in value]
    return names.get(value, value) if isinstance(value, str) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
