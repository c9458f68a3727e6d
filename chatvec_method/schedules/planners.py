"""A recipe's plan whatever its ratios are: for its models, or for stand-ins with so many layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.options import MergeOptions
from transformers import LlamaConfig

from chatvec_method.facts.models import look_up
from chatvec_method.facts.plan import MergePlan, PlannedTensor, plan_merge
from chatvec_method.method.roles import Roles
from chatvec_method.recipe.file import Recipe

Planner: TypeAlias = Callable[[Recipe], MergePlan]
"""What gives the plan of a recipe, whatever its ratios are."""


def planner_of_models(recipe: Recipe, trust_remote_code: bool = False) -> Planner:
    """Return what plans a recipe for the models that it names; no weights are read.

    Raises:
        ChatVecError: A model cannot be found.
    """
    names = sorted(recipe.config.referenced_models(), key=str)
    models = {name: look_up(name, trust_remote_code) for name in names}
    options = MergeOptions(trust_remote_code=trust_remote_code)
    return lambda changed: plan_merge(changed.config, models, options)


def planner_of_layers(layers: int) -> Planner:
    """Return what plans a recipe as for Llama-like models of so many layers.

    The models that it names are not looked at: it is planned for others, which have nothing but a
    config.
    """
    return lambda recipe: _plan_for_stand_ins(recipe, layers)


def _plan_for_stand_ins(recipe: Recipe, layers: int) -> MergePlan:
    names = sorted(recipe.config.referenced_models(), key=str)
    with TemporaryDirectory() as folder:
        paths = {str(model): str(Path(folder) / str(i)) for i, model in enumerate(names)}
        config = LlamaConfig(num_hidden_layers=layers, architectures=["LlamaForCausalLM"])
        for path in paths.values():
            config.save_pretrained(path)
        stand_ins = MergeConfiguration.model_validate(_renamed(recipe.raw, paths))
        models = {model: look_up(model) for model in stand_ins.referenced_models()}
        plan = plan_merge(stand_ins, models, MergeOptions())
    real = {ModelReference.parse(paths[str(model)]): model for model in names}
    tensors = tuple(_with_models(tensor, real) for tensor in plan.tensors)
    return replace(plan, roles=_with_real(plan.roles, real), tensors=tensors)


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [_renamed(part, names) for part in value]
    return names.get(value, value) if isinstance(value, str) else value


def _with_models(
    tensor: PlannedTensor, real: Mapping[ModelReference, ModelReference]
) -> PlannedTensor:
    return replace(
        tensor,
        inputs={real[model]: weight for model, weight in tensor.inputs.items()},
        roles=_with_real(tensor.roles, real),
        ratios={real[chat]: ratio for chat, ratio in tensor.ratios.items()},
        settings={real[chat]: settings for chat, settings in tensor.settings.items()},
    )


def _with_real(roles: Roles, real: Mapping[ModelReference, ModelReference]) -> Roles:
    return Roles(
        roles.base and real[roles.base],
        real[roles.cp],
        tuple(real[chat] for chat in roles.chats),
        frozenset(real[vector] for vector in roles.vectors),
    )
