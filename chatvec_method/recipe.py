"""What a recipe says to the method: who is base, chat and cp, and each chat vector's ratio.

mergekit resolves parameters one tensor at a time and ignores what it does not know. `check_recipe`
looks at the recipe as a whole, for the mistakes that only it shows (a misspelled key, a ratio under
the wrong model); `assign_roles` and `ratio_value` read the resolved parameters of one tensor. Each
message names the model or tensor and shows the YAML to write instead.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from mergekit.common import ModelReference, dtype_from_name

from chatvec_method.errors import ChatVecError

if TYPE_CHECKING:
    import torch
    from mergekit.config import InputSliceDefinition, MergeConfiguration, ParameterSetting

Settings: TypeAlias = "Mapping[str, ParameterSetting] | None"

ROLES = ("base", "chat", "cp")
PARAMETERS = ("role", "ratio")


@dataclass(frozen=True)
class Roles:
    """Who is who among the inputs, by mergekit's id of each (a model reference, or any key)."""

    base: Hashable
    cp: Hashable
    chats: tuple[Hashable, ...]


def assign_roles(roles: Mapping[Hashable, Any], place: str) -> Roles:
    """Return who is who, given what each input's `role` resolved to (None: to nothing).

    Raises:
        ChatVecError: A role is missing, is none of the three, or has the wrong number of holders.
    """
    for model, role in roles.items():
        _check_role(model, role, place)
    holders = {role: tuple(m for m in roles if roles[m] == role) for role in ROLES}
    for role, other in (("base", "cp"), ("cp", "base")):
        if len(holders[role]) > 1:
            raise ChatVecError(
                f"{place}: {_listed(holders[role])} all have the role {role}, which only one model "
                f"can have. Write `parameters: {{role: {other}}}` or `parameters: {{role: chat}}` "
                "under the others."
            )
    for role, models in holders.items():
        if not models:
            raise ChatVecError(
                f"{place}: no model has the role {role}. Write `parameters: {{role: {role}}}` "
                f"under the one that is {role}, of {_listed(roles)}."
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
            f"{place}: it has no ratio, as no filter matches it. Write a last entry without a "
            "filter, for all that the others leave: `- value: 1.0`"
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ChatVecError(f"{place}: ratio {value!r} is not a number. Write `ratio: 1.0`")
    if not math.isfinite(value):
        raise ChatVecError(f"{place}: ratio {value} is not finite. Write `ratio: 1.0`")
    return float(value)


def number_from_yaml(value: Any) -> Any:
    """Return a number for text that is one (YAML 1.1 reads `1e-1` as text), else the value."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    return value


def check_recipe(
    config: MergeConfiguration, vocabulary_size: Callable[[ModelReference], int | None]
) -> None:
    """Check what mergekit does not: base_model, roles, ratios and dtypes as the recipe has them.

    Args:
        config: The recipe, in the `modules:` with `slices:` form that mergekit's planner gives it.
        vocabulary_size: Tells how many rows a model's embedding has, None where that is not known.

    Raises:
        ChatVecError: The first mistake found.
    """
    for key in ("dtype", "out_dtype"):
        output_dtype(getattr(config, key), key)
    _check_above_models(config.parameters, "the recipe's top-level parameters")
    for module_name, module in config.modules.items():
        _check_above_models(module.parameters, f"module {module_name}")
        for i, output_slice in enumerate(module.slices):
            _check_above_models(output_slice.parameters, f"slice {i} of module {module_name}")
            outer = (output_slice.parameters, module.parameters, config.parameters)
            roles = _check_models(
                output_slice.sources,
                output_slice.base_model or config.base_model,
                shared_ratio=any("ratio" in (settings or {}) for settings in outer),
            )
            if not (config.tokenizer or config.tokenizer_source):
                _check_vocabularies(roles, vocabulary_size)


def output_dtype(name: str | None, key: str = "out_dtype") -> torch.dtype | None:
    """Return the `torch.dtype` that a recipe names, None if it names none.

    Raises:
        ChatVecError: mergekit knows no such dtype, or it holds no weights.
    """
    try:
        dtype = dtype_from_name(name)
    except RuntimeError:
        dtype = None
    if name and (dtype is None or not dtype.is_floating_point):
        raise ChatVecError(
            f"the recipe's `{key}: {name}` is no dtype of weights that mergekit knows. Write "
            f"`{key}: bfloat16` (or float16, float32, float64)."
        )
    return dtype


def _check_models(
    sources: Sequence[InputSliceDefinition], base_model: ModelReference | None, shared_ratio: bool
) -> Roles:
    for source in sources:
        _check_names(source.parameters, f"model {source.model}")
    models = [source.model for source in sources]
    if twice := next((model for model in models if models.count(model) > 1), None):
        raise ChatVecError(
            f"model {twice} is listed twice. base, chat and cp are different models; list each "
            "once, as in `parameters: {role: base}`"
        )
    roles = {source.model: (source.parameters or {}).get("role") for source in sources}
    _check_base_model_given(base_model, roles)
    assigned = assign_roles(roles, "models")
    if base_model == assigned.base:
        raise ChatVecError(
            f"base_model {base_model} has the role base, but in mergekit base_model is the model "
            "whose config and tokenizer the output keeps: the cp model or, where the vocabularies "
            f"are equal, a chat model. Write `base_model: {assigned.cp}`"
        )
    for source in sources:
        ratio = (source.parameters or {}).get("ratio")
        if ratio is not None and roles[source.model] != "chat":
            raise ChatVecError(
                f"model {source.model}: a ratio belongs to a chat vector, and the role here is "
                f"{roles[source.model]}. Write `parameters: {{role: chat, ratio: ...}}` under the "
                "chat model, or `ratio:` in the recipe's top-level parameters."
            )
        if ratio is None and roles[source.model] == "chat" and not shared_ratio:
            raise ChatVecError(
                f"model {source.model}: its chat vector has no ratio, and there is no default. "
                "Write `parameters: {role: chat, ratio: 1.0}` (1 is the paper's; 0.5 keeps more of "
                "the cp model)."
            )
        _check_ratios(ratio, f"model {source.model}")
    return assigned


def _check_vocabularies(
    roles: Roles, vocabulary_size: Callable[[ModelReference], int | None]
) -> None:
    """Say what mergekit itself says only at the first tensor, when it has begun to write."""
    sizes = {model: vocabulary_size(model) for model in (roles.base, *roles.chats, roles.cp)}
    if len(set(sizes.values()) - {None}) > 1:
        differing = ", ".join(f"{model} {size}" for model, size in sizes.items())
        raise ChatVecError(
            f"the vocabularies differ in size ({differing}), so rows must be matched by token. "
            f"Write `tokenizer: {{source: {roles.cp}}}`"
        )


def _check_base_model_given(
    base_model: ModelReference | None, roles: Mapping[Hashable, Any]
) -> None:
    cp = next((model for model, role in roles.items() if role == "cp"), None)
    if base_model is None:
        raise ChatVecError(
            "the recipe has no base_model, the model whose config and tokenizer the output keeps. "
            f"Write `base_model: {cp or '<the cp model>'}`"
        )
    # mergekit itself adds a base_model that is not among the models to them, without parameters.
    if cp is not None and roles.get(base_model) is None:
        raise ChatVecError(
            f"base_model {base_model} is not one of the models that have a role; spell it exactly "
            f"as there. Write `base_model: {cp}`"
        )


def _check_above_models(settings: Settings, place: str) -> None:
    _check_names(settings, place)
    if "role" in (settings or {}):
        raise ChatVecError(
            f"{place}: a role belongs to one model. Write it under that model, as in "
            "`parameters: {role: cp}`"
        )
    _check_ratios((settings or {}).get("ratio"), place)


def _check_names(settings: Settings, place: str) -> None:
    for name in settings or {}:
        if name not in PARAMETERS:
            near = difflib.get_close_matches(name, PARAMETERS, n=1)
            advice = f"Write `{near[0]}:`" if near else "Remove it"
            raise ChatVecError(
                f"{place}: chat_vector has no parameter `{name}`, only role and ratio. {advice}"
            )


def _check_role(model: Hashable, role: Any, place: str) -> None:
    if role is None:
        raise ChatVecError(
            f"{place}: model {model} has no role. Write under it `parameters: {{role: cp}}` (or "
            "base, or chat)."
        )
    if not isinstance(role, str):
        raise ChatVecError(
            f"{place}: the role of model {model} must be one word, the same for all its tensors, "
            "not a list or filters. Write `parameters: {role: cp}` (or base, or chat)."
        )
    if role not in ROLES:
        near = difflib.get_close_matches(role.lower(), ROLES, n=1, cutoff=0.5) or ["cp"]
        raise ChatVecError(
            f"{place}: model {model} has the role {role!r}, which is none of base, chat and cp. "
            f"Write `parameters: {{role: {near[0]}}}`"
        )


def _check_ratios(setting: ParameterSetting | None, place: str) -> None:
    if setting == []:
        raise ChatVecError(f"{place}: the list of ratios is empty. Write `ratio: 1.0`")
    for value in _scalars(setting) if setting is not None else ():
        ratio_value(value, place)


def _scalars(setting: ParameterSetting) -> Iterator[Any]:
    """Yield every single value of a setting: a scalar, a list over the layers, or filters."""
    if isinstance(setting, list):
        for item in setting:
            yield from _scalars(item)
    elif hasattr(setting, "filter"):
        yield from _scalars(setting.value)
    else:
        yield setting


def _listed(models: Iterable[Hashable]) -> str:
    return ", ".join(str(model) for model in models)
