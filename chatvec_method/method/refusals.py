"""What a recipe says to the method: who is base, chat and cp, and each chat vector's ratio.

mergekit resolves parameters one tensor at a time and ignores what it does not know. `check_recipe`
looks at the recipe as a whole, for the mistakes that only it shows (a misspelled key, a ratio under
the wrong model); `assign_roles` and `ratio_value` read the resolved parameters of one tensor. Each
message names the model or tensor and shows the YAML to write instead. What the models' configs say
is looked at in `compatibility.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mergekit.common import ModelReference

from chatvec_method.errors import ChatVecError
from chatvec_method.method.roles import PARAMETERS, Roles, assign_roles, ratio_value
from chatvec_method.method.settings import Settings, Source, ratio_cases, weights_dtype

if TYPE_CHECKING:
    from mergekit.config import (
        InputSliceDefinition,
        MergeConfiguration,
        OutputModuleDefinition,
        OutputSliceDefinition,
        ParameterSetting,
    )
    from mergekit.scripts.merge_raw_pytorch import RawPyTorchMergeConfig


def check_recipe(config: MergeConfiguration) -> list[Roles]:
    """Check base_model, roles, ratios and dtypes; return who is who, once where modules agree.

    Args:
        config: The recipe, in the `modules:` with `slices:` form that mergekit's planner gives it.

    Raises:
        ChatVecError: The first mistake found.
    """
    _check_top_level(config)
    roles = []
    for name, module in config.modules.items():
        _check_above_models(module.parameters, f"module {name}")
        roles.append(_check_module(config, module, name))
    return list(dict.fromkeys(roles))


def check_raw_recipe(config: RawPyTorchMergeConfig) -> None:
    """Check the recipe of `mergekit-pytorch`, which merges files and knows no layers.

    Raises:
        ChatVecError: The first mistake found.
    """
    _check_top_level(config)
    _check_inputs(config.models, shared_ratio="ratio" in (config.parameters or {}))
    for settings in [config.parameters, *(source.parameters for source in config.models)]:
        if any(isinstance(value, list) for _, value in ratio_cases((settings or {}).get("ratio"))):
            raise ChatVecError(
                "mergekit-pytorch knows no layers, so of a list of ratios only the first would "
                "count.",
                "Write filters, as in `- {filter: layers.0., value: 1.0}`, or use mergekit-yaml.",
            )


def check_filters(config: MergeConfiguration, tensors: Collection[str]) -> None:
    """Check that every filter of a ratio is a part of some tensor's name.

    Args:
        config: The recipe, as `check_recipe` takes it.
        tensors: The names of all tensors of the chat models.

    Raises:
        ChatVecError: A filter matches nothing, so that it would do nothing.
    """
    for settings in _all_settings(config):
        for pattern, _ in ratio_cases((settings or {}).get("ratio")):
            if pattern not in (None, "*") and not any(pattern in tensor for tensor in tensors):
                parts = {part for tensor in tensors for part in tensor.split(".")}
                near = difflib.get_close_matches(pattern, parts, n=1) or ["self_attn"]
                raise ChatVecError(
                    f"ratio: the filter `{pattern}` is in no tensor's name, so it would do "
                    "nothing: filters are plain parts of names, not patterns.",
                    f"Write for example `filter: {near[0]}`",
                    code="filter-matches-nothing",
                )


def _check_top_level(config: MergeConfiguration | RawPyTorchMergeConfig) -> None:
    for key in ("dtype", "out_dtype"):
        weights_dtype(getattr(config, key), key)
    _check_above_models(config.parameters, "the recipe's top-level parameters")


def _check_module(
    config: MergeConfiguration, module: OutputModuleDefinition, module_name: str
) -> Roles:
    roles = [
        _check_slice(config, module, output_slice, f"slice {i} of module {module_name}")
        for i, output_slice in enumerate(module.slices)
    ]
    for i, others in enumerate(roles):
        # mergekit resolves embeddings and head with the models of one slice and those of another.
        if others != roles[0]:
            raise ChatVecError(
                f"slice {i} of module {module_name}: its models or their roles are not those of "
                "slice 0.",
                "List the same models in every slice, in the same order and with the same "
                "`parameters: {role: ...}`; a ratio of 0 leaves a chat model out.",
            )
    return roles[0]


def _check_slice(
    config: MergeConfiguration,
    module: OutputModuleDefinition,
    output_slice: OutputSliceDefinition,
    place: str,
) -> Roles:
    _check_above_models(output_slice.parameters, place)
    base_models = (config.base_model, output_slice.base_model or config.base_model)
    for base_model in base_models:
        _check_base_model_is_listed(base_model, output_slice.sources)
    outer = (output_slice.parameters, module.parameters, config.parameters)
    shared_ratio = any("ratio" in (settings or {}) for settings in outer)
    roles = _check_inputs(output_slice.sources, shared_ratio)
    if roles.base is not None and roles.base in base_models:
        raise ChatVecError(
            f"base_model {roles.base} has the role base, but in mergekit base_model is the model "
            "whose config and tokenizer the output keeps: the cp model or, where the vocabularies "
            "are equal, a chat model.",
            f"Write `base_model: {roles.cp}`",
        )
    _check_same_layers(output_slice.sources, roles, place)
    return roles


def _check_inputs(sources: Sequence[Source], shared_ratio: bool) -> Roles:
    for source in sources:
        _check_names(source.parameters, f"model {source.model}")
    models = [source.model for source in sources]
    if twice := next((model for model in models if models.count(model) > 1), None):
        raise ChatVecError(
            f"model {twice} is listed twice, but base, chat and cp are different models.",
            "List each once, as in `parameters: {role: base}`",
        )
    held = _roles_held(sources)
    roles = assign_roles(held, "the recipe")
    for source in sources:
        _check_own_ratio(source, held[source.model], shared_ratio)
    return roles


def _roles_held(sources: Sequence[Source]) -> dict[Hashable, Any]:
    return {source.model: (source.parameters or {}).get("role") for source in sources}


def _check_base_model_is_listed(
    base_model: ModelReference | None, sources: Sequence[Source]
) -> None:
    held = _roles_held(sources)
    cp = next((model for model, role in held.items() if role == "cp"), None)
    if base_model is None:
        raise ChatVecError(
            "the recipe has no base_model, the model whose config and tokenizer the output keeps.",
            f"Write `base_model: {cp or '<the cp model>'}`",
            code="no-base-model",
        )
    # mergekit itself adds a base_model that is not among the models to them, without parameters.
    if cp is not None and held.get(base_model) is None:
        raise ChatVecError(
            f"base_model {base_model} is not one of the models that have a role.",
            f"Write `base_model: {cp}`, spelled exactly as after `model:`",
        )


def _check_own_ratio(source: Source, role: str, shared_ratio: bool) -> None:
    ratio = (source.parameters or {}).get("ratio")
    if ratio is not None and role not in ("chat", "vector"):
        raise ChatVecError(
            f"model {source.model}: a ratio belongs to a chat vector, and the role here is {role}.",
            "Write `parameters: {role: chat, ratio: ...}` under the chat model, or `ratio:` in the "
            "recipe's top-level parameters.",
            code="misplaced-ratio",
        )
    if ratio is None and role in ("chat", "vector") and not shared_ratio:
        raise ChatVecError(
            f"model {source.model}: its chat vector has no ratio, and there is no default.",
            f"Write `parameters: {{role: {role}, ratio: 1.0}}` (1 is the paper's; 0.5 keeps more "
            "of the cp model).",
        )
    _check_ratios(ratio, f"model {source.model}")


def _check_same_layers(sources: Sequence[InputSliceDefinition], roles: Roles, place: str) -> None:
    """Check that no chat vector is the difference of two different layers."""
    layers = {source.model: source.layer_range for source in sources}
    for chat in roles.chats:
        if chat not in roles.vectors and layers[chat] != layers[roles.base]:
            raise ChatVecError(
                f"{place}: model {chat} has the layers {list(layers[chat])}, and the base model "
                f"{roles.base} {list(layers[roles.base])}; a chat vector is the difference of the "
                "same layers.",
                f"Write `layer_range: {list(layers[chat])}` under both.",
            )


def _check_above_models(settings: Settings, place: str) -> None:
    _check_names(settings, place)
    if "role" in (settings or {}):
        raise ChatVecError(
            f"{place}: a role belongs to one model.",
            "Write it under that model, as in `parameters: {role: cp}`",
        )
    _check_ratios((settings or {}).get("ratio"), place)


def _check_names(settings: Settings, place: str) -> None:
    for name in settings or {}:
        if name not in PARAMETERS:
            near = difflib.get_close_matches(name, PARAMETERS, n=1)
            raise ChatVecError(
                f"{place}: chat_vector has no parameter `{name}`, only role and ratio.",
                f"Write `{near[0]}:`" if near else "Remove it.",
                code="unknown-parameter",
            )


def _check_ratios(setting: ParameterSetting | None, place: str) -> None:
    if setting == []:
        raise ChatVecError(f"{place}: the list of ratios is empty.", "Write `ratio: 1.0`")
    cases = ratio_cases(setting)
    for _, value in cases:
        for number in value if isinstance(value, list) else [value]:
            ratio_value(number, place)
    if any(pattern in (None, "*") for pattern, _ in cases[:-1]):
        raise ChatVecError(
            f"{place}: the first filter that matches decides, so the entries after the one for all "
            "tensors never count.",
            "Write that one last, as in `ratio: [{filter: mlp, value: 0.5}, {value: 1.0}]`",
        )


def _all_settings(config: MergeConfiguration) -> Iterator[Settings]:
    yield config.parameters
    for module in config.modules.values():
        yield module.parameters
        for output_slice in module.slices:
            yield output_slice.parameters
            yield from (source.parameters for source in output_slice.sources)
