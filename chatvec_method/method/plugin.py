"""The merge method `chat_vector`, as mergekit calls it. Importing this module registers it.

The arithmetic is in `kernel.py`, a tensor's merge in `tensor_merge.py`, what a recipe means in
`recipe.py`; here is what joins them to mergekit: parameters, and when what is checked.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import torch
from mergekit.merge_methods.base import (
    BatchOptions,
    InputContract,
    MergeMethod,
    MergeMethodSpec,
    ParameterScope,
    ParameterSpec,
    TensorGroup,
)
from mergekit.merge_methods.registry import register, registered_methods
from pydantic import BeforeValidator
from torch import Tensor

from chatvec_method.errors import ChatVecError
from chatvec_method.method.compatibility import check_models
from chatvec_method.method.refusals import check_filters, check_raw_recipe, check_recipe
from chatvec_method.method.roles import Roles, assign_roles, number_from_yaml, ratio_value
from chatvec_method.method.settings import tokenizer_source, weights_dtype
from chatvec_method.method.tensor_merge import tensor_merge
from chatvec_method.method.vector import vector_facts

if TYPE_CHECKING:
    from mergekit.merge_methods.task_adapter import ExecuteMergeMethodTask
    from mergekit.plan import MergePlanner

NAME = "chat_vector"


def _caller(module: str, name: str = "self") -> Any:
    """Return a local variable of the nearest caller in a module of mergekit, None without one.

    mergekit 0.1.5 hands a method the tensors of one output and their parameters, and nothing else.
    Only the call stack tells for which recipe and which task: that is what lets mistakes be told
    while mergekit plans, before it writes, and `out_dtype` be known before the result is rounded.
    """
    frame: FrameType | None = sys._getframe(1)
    # The module is compared by name: mergekit's planner cannot be imported while mergekit's methods
    # are, and to look into the frames of others would keep their tensors alive.
    while frame is not None and frame.f_globals.get("__name__") != module:
        frame = frame.f_back
    return frame and frame.f_locals.get(name)


def _calling_task() -> ExecuteMergeMethodTask | None:
    """Return the task that mergekit is making or running, if it is one of this method."""
    task = _caller("mergekit.merge_methods.task_adapter")
    return task if getattr(task, "method_name", None) == NAME else None


def _calling_planner() -> MergePlanner | None:
    return _caller("mergekit.plan")


def _out_dtype_of_recipe(value: Any) -> torch.dtype | None:
    """Return the `out_dtype` of the recipe that mergekit is planning, whatever the parameter is."""
    planner = _calling_planner()
    return weights_dtype(planner.config.out_dtype) if planner else value


class ChatVector(MergeMethod):  # type: ignore[misc]
    """θ_cp + Σ ratio · (θ_chat − θ_base), for each tensor (arXiv 2310.04799).

    Parameters in a recipe: `role` (base, chat, cp, or vector for a chat − base that is a file)
    under each model; `ratio` (a finite number, a list over the layers, or filters) under a chat
    model or a vector for its own, or at a level above for all of them.
    """

    spec = MergeMethodSpec(
        name=NAME,
        pretty_name="Chat Vector",
        reference_url="https://arxiv.org/abs/2310.04799",
        contract=InputContract(min_inputs=2),  # cp and a vector
        # The values are taken as they are and judged in `recipe.py`, where it is known for which
        # model and tensor they resolved.
        parameters=(
            ParameterSpec("role", Any, ParameterScope.INPUT, default=None),
            ParameterSpec(
                "ratio",
                Annotated[Any, BeforeValidator(number_from_yaml)],
                ParameterScope.INPUT,
                default=None,
            ),
            # Not for recipes: carries the recipe's top-level `out_dtype` from planning, where it
            # can be seen, to the tensor's merge.
            ParameterSpec(
                "out_dtype",
                Annotated[Any, BeforeValidator(_out_dtype_of_recipe)],
                ParameterScope.SHARED,
                default=None,
            ),
        ),
    )

    def validate_inputs(
        self,
        input_ids: Sequence[Hashable],
        base_id: Hashable | None = None,
        *,
        group_name: str | None = None,
    ) -> None:
        """Check the recipe when mergekit plans it, and roles and ratios of each tensor it plans.

        Raises:
            ChatVecError: The first mistake found.
            ValueError: Outside of a recipe: fewer than two inputs, or one twice.
        """
        if task := _calling_task():
            roles, _ = roles_and_ratios(task.output_weight.name, *_task_settings(task))
            _check_added_tokens(task, roles)
        elif planner := _calling_planner():
            # mergekit asks once for every slice; the first time is for all of them.
            if group_name == f"{next(iter(planner.config.modules))}.slices[0]":
                _check_plan(planner)
        elif raw_recipe := _caller("mergekit.scripts.merge_raw_pytorch", "config"):
            check_raw_recipe(raw_recipe)
        else:
            super().validate_inputs(input_ids, group_name=group_name)

    def _execute(
        self,
        groups: Sequence[TensorGroup],
        parameters: list[dict[str, Any]],
        options: BatchOptions,
        *,
        input_dtypes: Sequence[torch.dtype | None],
        out_dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, ...]:
        task = _calling_task()
        results = []
        for group, values, dtype in zip(groups, parameters, input_dtypes, strict=True):
            # `values` leaves out the models that lack an optional tensor, the task knows them all.
            settings = _task_settings(task) if task else (values["role"], values["ratio"])
            roles, ratios = roles_and_ratios(_name(group), *settings)
            merge = tensor_merge(
                group,
                roles,
                ratios,
                input_dtype=dtype,
                out_dtype=out_dtype or values["out_dtype"],
            )
            results.append(merge.whole())
        return tuple(results)


def roles_and_ratios(
    tensor: str, roles: Mapping[Hashable, Any], ratios: Mapping[Hashable, Any]
) -> tuple[Roles, dict[Hashable, float]]:
    """Return who is who for a tensor, and each chat vector's ratio, from resolved parameters.

    Raises:
        ChatVecError: A role or a ratio is missing or wrong.
    """
    assigned = assign_roles(roles, tensor)
    return assigned, {
        chat: ratio_value(ratios[chat], f"{tensor}, chat model {chat}") for chat in assigned.chats
    }


def _check_plan(planner: MergePlanner) -> None:
    architecture, tensors = planner.arch_info, set()
    for roles in check_recipe(planner.config):
        trust = planner.options.trust_remote_code
        configs = {model: model.config(trust_remote_code=trust) for model in roles.all}
        vocabulary_key = architecture.vocab_size_config_key or "vocab_size"
        check_models(planner.config, roles, configs, vocabulary_key)
        for chat in roles.chats:
            tensors |= {weight.name for weight in architecture.all_weights(configs[chat])}
    check_filters(planner.config, tensors)


def _check_added_tokens(task: ExecuteMergeMethodTask, roles: Roles) -> None:
    """Check that mergekit matches no rows of a vector that keeps some of them beside the others."""
    planner = _calling_planner()
    if planner is None or task.output_weight.vocabulary_axis is None or not roles.vectors:
        return
    if tokenizer_source(planner.config) is None:
        return
    for vector in sorted(roles.vectors, key=str):
        facts = vector_facts(vector.config(trust_remote_code=planner.options.trust_remote_code))
        odd = (*facts.added_tokens, *facts.moved_tokens) if facts is not None else ()
        if odd:
            raise ChatVecError(
                f"model {vector} is a chat vector with tokens that its base lacks, or has under "
                f"another number ({', '.join(map(repr, odd[:3]))}), whose rows mergekit-yaml "
                "does not match.",
                "Use `chatvec merge`, or leave `tokenizer:` out where the vocabularies are equal.",
                code="vector-adds-tokens",
            )


def _task_settings(
    task: ExecuteMergeMethodTask,
) -> tuple[dict[Hashable, Any], dict[Hashable, Any]]:
    """Return the resolved role and ratio of every model that the recipe names for this tensor."""
    resolved = {model: task.input_parameters[model] for model in task.model_order}
    return (
        {model: values["role"] for model, values in resolved.items()},
        {model: values["ratio"] for model, values in resolved.items()},
    )


def _name(group: TensorGroup) -> str:
    return group.metadata.name or "a tensor without a name"


if NAME not in {method.spec.name for method in registered_methods()}:
    register(ChatVector())
