"""What a merge is made of, whatever its ratios: every output tensor, its place, and where it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mergekit.architecture import ModelArchitecture
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration
from mergekit.options import MergeOptions

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.checkpoint import Checkpoint
from chatvec_method.facts.completion import completed
from chatvec_method.facts.models import Model
from chatvec_method.facts.place import NotedTensor, StructuredTensor
from chatvec_method.facts.planner import noted_tensors
from chatvec_method.facts.stand_ins import as_mergekit_sees_them, is_mixed, rename_models
from chatvec_method.method.roles import Roles, assign_roles


@dataclass(frozen=True)
class Structure:
    """All tensors of a merge."""

    config: MergeConfiguration
    """The recipe in mergekit's form."""
    architecture: ModelArchitecture
    roles: Roles
    tensors: tuple[StructuredTensor, ...]
    checkpoints: Mapping[ModelReference, Checkpoint]
    ignored: tuple[str, ...]
    mixed: bool


def structure_of(
    config: MergeConfiguration, models: Mapping[ModelReference, Model], options: MergeOptions
) -> Structure:
    """Return what a recipe's merge is made of.

    Args:
        config: The recipe; it is not modified.
        models: All models that it names.
        options: As for the merge.

    Raises:
        ChatVecError: The recipe is refused, by the method or by mergekit.
    """
    trust = options.trust_remote_code
    checkpoints: dict[ModelReference, Checkpoint] = {}
    for name, model in models.items():
        checkpoints[name] = Checkpoint(model, trust, tuple(checkpoints.values()))
    for checkpoint in checkpoints.values():
        checkpoint.check_quantisation()
    sliced = config.models is None
    config = config.model_copy(deep=True)
    mixed = is_mixed(config, checkpoints)
    real = {name: name for name in models}
    with as_mergekit_sees_them(config, checkpoints, mixed) as stand_ins:
        real |= {stand_in: name for name, stand_in in stand_ins.items()}
        seen = {stand_ins.get(name, name): checkpoints[name] for name in models}
        architecture, noted = noted_tensors(config, seen, options, real)
        rename_models(config, {stand_in: name for name, stand_in in stand_ins.items()})
    if not noted:
        raise ChatVecError("the recipe plans no tensor.", "Write `models:` or `slices:`.")
    noted = [
        NotedTensor(t.weight, {real[m]: weight for m, weight in t.inputs.items()}, t.place)
        for t in noted
    ]
    roles = _roles(config, noted[0])
    tensors, ignored = completed(noted, checkpoints, roles, mixed=mixed, sliced=sliced)
    return Structure(config, architecture, roles, tensors, checkpoints, ignored, mixed)


def _roles(config: MergeConfiguration, tensor: NotedTensor) -> Roles:
    """Return who is who; roles are words, which are the same everywhere (`check_recipe`)."""
    reader = tensor.place.reader(config)
    held = {
        model: next(iter((s or {}).get("role") for s in reader.parameter_sources(model)), None)
        for model in tensor.inputs
    }
    return assign_roles(held, "the recipe")
