"""Models that are not what their roles need: unrelated, swapped, damaged, or with other configs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mergekit.common import ModelReference
from transformers import PretrainedConfig

from chatvec_method.checks.depth import depth_findings
from chatvec_method.checks.findings import Finding, error, warning
from chatvec_method.checks.heads import head_findings
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.layout import why_not_built
from chatvec_method.facts.models import Model, config_value, text_config
from chatvec_method.facts.plan import MergePlan
from chatvec_method.facts.survey import Survey
from chatvec_method.kernel import SUPPORTED
from chatvec_method.method.roles import Roles
from chatvec_method.method.settings import dtype_name, weights_dtype
from chatvec_method.recipe.edits import Edit

ROTATED = re.compile(r"[qk]_proj|qkv|query|key")
"""The tensors that a rotary embedding acts on."""

ROPE_FIELDS = ("rope_parameters", "rope_theta", "rope_scaling", "partial_rotary_factor")
ATTENTION_FIELDS = ("sliding_window", "use_sliding_window", "layer_types", "attn_logit_softcapping")
HEAD_FIELDS = ("num_attention_heads", "num_key_value_heads", "head_dim")
SIZE_FIELDS = ("num_hidden_layers", "hidden_size", "intermediate_size")
OTHER_FIELDS = (
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "hidden_act",
    "hidden_activation",
    "final_logit_softcapping",
    "logit_scale",
    "embedding_multiplier",
    "num_experts_per_tok",
    "attention_bias",
    "mlp_bias",
)


def model_findings(survey: Survey, roles: Roles | None) -> Iterator[Finding]:
    """Find what is wrong with the models, each alone and side by side."""
    for model in survey.models.values():
        yield from _files(model)
    if roles is None:
        return
    yield from _sizes(survey, roles)
    yield from _configs(survey, roles)
    yield from _dtypes(survey, roles)
    if survey.plan is not None:
        yield from _tensors(survey, survey.plan)
        yield from _layers(survey, survey.plan)
        yield from head_findings(survey, survey.plan)
        yield from _loading(survey.plan)


def _files(model: Model) -> Iterator[Finding]:
    if model.file_problem:
        yield error(
            "damaged-files",
            model,
            f"its weights cannot be merged: {model.file_problem}.",
            "Download or save the model again.",
        )
    if model.pickled:
        yield warning(
            "pickled-weights",
            model,
            "its weights are pickle files (.bin), which can carry code. mergekit and this check "
            "load them with torch's safe loader, which refuses code; other tools may not.",
            "Prefer a revision of the model in safetensors.",
        )


def _with_roles(survey: Survey, roles: Roles) -> dict[ModelReference, Model]:
    """Return the models with a role that could be looked up."""
    return {model: survey.models[model] for model in roles.all if model in survey.models}


def _sizes(survey: Survey, roles: Roles) -> Iterator[Finding]:
    """Models that cannot come from one base, by what their configs say of their size."""
    names = ["model_type", *SIZE_FIELDS]
    if survey.recipe.config.models is None:  # slices may take some layers of each
        names.remove("num_hidden_layers")
    mixed = survey.plan is not None and survey.plan.mixed
    if survey.options.allow_crimes or mixed:
        names.remove("model_type")
    expanded = list(depth_findings(survey, roles))
    if expanded:
        names.remove("num_hidden_layers")
    yield from expanded
    for name in names:
        values = _values(survey, roles, name)
        if len({repr(value) for value in values.values()}) > 1:
            yield error(
                "not-related",
                f"config.json: {name}",
                f"`{name}` differs: {_listed(values)}. These models do not come from one.",
                "Write models that were trained from the same base.",
            )


def _values(survey: Survey, roles: Roles, name: str) -> dict[ModelReference, Any]:
    """Return what the configs have under a name, of the models whose config has it."""
    values = {}
    for reference, model in _with_roles(survey, roles).items():
        config = text_config(model.config)
        value = config_value(config, name)
        if value is None and name == "head_dim":
            value = _quotient(config, "hidden_size", "num_attention_heads")
        if value is None and name == "num_key_value_heads":
            value = config_value(config, "num_attention_heads")
        if value is not None or name in config.to_dict():
            values[reference] = dict(sorted(value.items())) if isinstance(value, dict) else value
    return values


def _quotient(config: PretrainedConfig, over: str, under: str) -> int | None:
    dividend, divisor = config_value(config, over), config_value(config, under)
    return dividend // divisor if dividend and divisor else None


def _listed(values: Mapping[ModelReference, Any]) -> str:
    return ", ".join(f"{model} {_short(value)}" for model, value in values.items())


def _short(value: Any, most: int = 100) -> str:
    text = str(value)
    return text if len(text) <= most else f"{text[:most]} ..."


def _configs(survey: Survey, roles: Roles) -> Iterator[Finding]:
    """Config fields that the weights were trained with; the output has those of base_model."""
    donor = survey.recipe.config.base_model
    told: set[str] = set()  # transformers keeps some fields under an old name too
    for name in (*ROPE_FIELDS, *ATTENTION_FIELDS, *HEAD_FIELDS, *OTHER_FIELDS):
        values = _values(survey, roles, name)
        seen = repr(list(values.values()))
        if len({repr(value) for value in values.values()}) < 2 or seen in told:
            continue
        told.add(seen)
        mixed = survey.plan is not None and survey.plan.mixed
        if mixed and name in ROPE_FIELDS and _agree_in_common(list(values.values())):
            continue  # a model that sees says more, of the axes of pictures
        message = f"`{name}` differs: {_listed(values)}"
        if name in HEAD_FIELDS:
            yield error(
                "config-differs",
                f"config.json: {name}",
                f"{message}. Attention heads that are cut differently do not add up.",
                "Write models with the same heads.",
                certain=True,
            )
            continue
        if name in ROPE_FIELDS and _rotated_parts_are_left_out(survey, roles, values):
            continue
        of_donor = f"that of base_model, {donor}" if donor else "one of them"
        part = "q_proj and k_proj" if name in (*ROPE_FIELDS, *ATTENTION_FIELDS) else "those parts"
        yield warning(
            "config-differs",
            f"config.json: {name}",
            f"{message}. The output has {of_donor}, and not all that it is made of was trained "
            "with that.",
            f"Write a lower ratio for {part} (as in `- {{filter: q_proj, value: 0}}`), or name as "
            "`base_model:` the model whose value the output should have.",
        )


def _agree_in_common(values: Sequence[Any]) -> bool:
    """Whether mappings agree in all keys that all of them have."""
    if not all(isinstance(value, dict) for value in values):
        return False
    common = set.intersection(*map(set, values))
    return all(len({repr(value[key]) for value in values}) == 1 for key in common)


def _rotated_parts_are_left_out(
    survey: Survey, roles: Roles, values: Mapping[ModelReference, Any]
) -> bool:
    """Whether the recipe takes no query and key from chat models with another RoPE than cp."""
    plan = survey.plan
    if plan is None or any(values.get(base) != values.get(roles.cp) for base in roles.bases):
        return False
    others = [chat for chat in roles.chats if values.get(chat) != values.get(roles.cp)]
    rotated = [tensor for tensor in plan.tensors if ROTATED.search(tensor.name)]
    return bool(rotated) and not any(t.ratios[chat] for t in rotated for chat in others)


def _dtypes(survey: Survey, roles: Roles) -> Iterator[Finding]:
    models = _with_roles(survey, roles)
    dtypes = {name: _stored_dtype(model) for name, model in models.items()}
    stored = {name: dtype for name, dtype in dtypes.items() if dtype in SUPPORTED}
    listed = ", ".join(f"{model} {dtype_name(dtype)}" for model, dtype in stored.items())
    config = survey.recipe.config
    try:
        cast = weights_dtype(config.dtype, "dtype")
    except ChatVecError:  # told of the recipe as a whole
        return
    if any(cast and torch.promote_types(d, cast) != cast for d in stored.values()):
        edit = (
            Edit(("dtype",), remove=True)
            if config.out_dtype
            else Edit(("dtype",), rename="out_dtype")
        )
        yield warning(
            "dtype-rounds-inputs",
            "dtype",
            f"`dtype: {config.dtype}` makes mergekit round weights ({listed}) while it loads them, "
            "before the subtraction.",
            f"Write `out_dtype: {config.out_dtype or config.dtype}` alone, which rounds once.",
            (edit,),
        )
    if cast is None and config.out_dtype is None and len(set(stored.values())) > 1:
        wanted = dtype_name(stored.get(roles.cp, torch.bfloat16))
        yield warning(
            "mixed-dtypes",
            "out_dtype",
            f"the models' weights have different dtypes ({listed}), so the output's are in one "
            "that holds them all, but for tensors with a ratio of 0.",
            f"Write `out_dtype: {wanted}`",
            (Edit(("out_dtype",), wanted),),
        )


def _stored_dtype(model: Model) -> torch.dtype | None:
    """Return the dtype of most of a model's weights; what its config says, if nothing else does."""
    dtype = model.weights_dtype or getattr(model.config, "dtype", None)
    return dtype if isinstance(dtype, torch.dtype) else None


def _tensors(survey: Survey, plan: MergePlan) -> Iterator[Finding]:
    """Tensors that a model lacks, or has in another shape (reported once a model)."""
    reported: set[ModelReference] = set()
    for tensor in plan.tensors:
        headers = {model: tensor.header(model) for model in tensor.sources}
        if tensor.has_no_vector:
            continue
        cp = headers.get(tensor.roles.cp)
        for model, header in headers.items():
            if model in reported:
                continue
            if header is None and not tensor.weight.optional:
                reported.add(model)
                yield error(
                    "tensor-missing",
                    model,
                    f"it has no tensor {tensor.inputs[model].name}, which others have.",
                    "Write the model from which this one came, or download it again.",
                )
            elif header and cp and _differ(header.shape, cp.shape, tensor.weight.vocabulary_axis):
                reported.add(model)
                yield error(
                    "not-related",
                    model,
                    f"{tensor.name} has the shape {list(header.shape)} here and {list(cp.shape)} "
                    f"in {tensor.roles.cp}: these models do not come from one.",
                    "Write models that were trained from the same base.",
                )


def _layers(survey: Survey, plan: MergePlan) -> Iterator[Finding]:
    """Whether there are tensors of as many layers as the config that the output gets counts."""
    module = plan.architecture.modules.get(plan.module)
    donor = plan.checkpoints.get(plan.config.base_model)
    if survey.recipe.config.models is None or module is None or donor is None or not plan.layers:
        return  # slices say themselves which layers they take
    key = module.architecture.num_layers_config_key()
    counted = config_value(donor.model.config, key)
    if isinstance(counted, int) and counted > plan.layers:
        yield error(
            "layers-missing",
            donor.model,
            f"its config says `{key}: {counted}`, and there are tensors of {plan.layers} layers.",
            "Download or save the model again.",
        )


def _differ(one: tuple[int, ...], other: tuple[int, ...], vocabulary_axis: int | None) -> bool:
    if vocabulary_axis is not None and len(one) == len(other):
        one = (*one[:vocabulary_axis], *one[vocabulary_axis + 1 :])
        other = (*other[:vocabulary_axis], *other[vocabulary_axis + 1 :])
    return one != other


def _loading(plan: MergePlan) -> Iterator[Finding]:
    """Whether the config that the output gets is one by which its weights can be loaded."""
    donor = plan.config_donor
    if donor is None:
        return
    model, problem = donor.model, ""
    if donor.layout is None:
        problem = why_not_built(model.config)
    elif donor.quantisation is None and donor.layout.misfits:
        name, shape = next(iter(donor.layout.misfits.items()))
        stored = list((model.tensors or {})[name].shape)
        problem = f"{name} has the shape {stored} in its files, and {list(shape)} by its config"
    if problem:
        yield warning(
            "config-does-not-fit",
            model,
            f"transformers does not load it ({problem}), nor what is merged with its config.",
            "Download or save the model again, or mend its config.json.",
        )
