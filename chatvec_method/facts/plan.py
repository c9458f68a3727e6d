"""What a merge will compute: every output tensor, its inputs, and the ratio of each chat vector.

mergekit's own planner walks the recipe; where it would make a task of a tensor, the resolved ratios
are noted instead. So layers, slices, filters and lists mean here what they mean in the merge.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mergekit.architecture import ModelArchitecture, WeightInfo, get_architecture_info
from mergekit.common import ModelReference
from mergekit.config import ConfigReader, MergeConfiguration
from mergekit.options import MergeOptions
from mergekit.parameter_resolver import resolve_parameters
from mergekit.plan import MergePlanner

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.models import Model, TensorHeader
from chatvec_method.method.plugin import roles_and_ratios
from chatvec_method.method.roles import Roles
from chatvec_method.method.settings import Settings
from chatvec_method.quiet import quiet

Value = TypeVar("Value")
KINDS = ("attention", "MLP", "norms", "embeddings", "head", "other")


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the output."""

    weight: WeightInfo
    inputs: Mapping[ModelReference, WeightInfo]
    """What it is called in each model."""
    layer: int | None
    """The output's layer; None for embeddings, head and final norm."""
    kind: str
    """One of KINDS."""
    roles: Roles
    ratios: Mapping[ModelReference, float]
    """Of each chat model."""
    settings: Mapping[ModelReference, tuple[Settings, ...]]
    """The `parameters:` in which mergekit looks for each chat model's ratio, nearest first."""

    @property
    def name(self) -> str:
        """Its name in the output."""
        return self.weight.name

    @property
    def readers(self) -> tuple[ModelReference, ...]:
        """The models whose tensor the sum needs: cp, and base and chats where a ratio is not 0."""
        active = [chat for chat in self.roles.chats if self.ratios[chat] != 0]
        return (self.roles.cp, *([self.roles.base, *active] if active else []))


@dataclass(frozen=True)
class MergePlan:
    """All that a merge will compute."""

    config: MergeConfiguration
    """The recipe in the `modules:` with `slices:` form that mergekit gives it."""
    architecture: ModelArchitecture
    roles: Roles
    tensors: tuple[PlannedTensor, ...]

    @property
    def layers(self) -> int:
        """How many layers the output has."""
        return len({tensor.layer for tensor in self.tensors} - {None})


def plan_merge(
    config: MergeConfiguration, models: Mapping[ModelReference, Model], options: MergeOptions
) -> MergePlan:
    """Return what mergekit will compute for a recipe.

    Args:
        config: The recipe; it is not modified.
        models: All models that the recipe names.
        options: As for the merge.

    Raises:
        ChatVecError: The recipe is refused, by the method or by mergekit.
    """
    config = config.model_copy(deep=True)
    try:
        with quiet():
            architecture = get_architecture_info(config, options)
            planner = _NotingPlanner(config, architecture, options, models)
            planner.note_tensors()
    except ChatVecError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError) as error:  # mergekit's own refusals
        raise ChatVecError(
            f"mergekit refuses the recipe: {_reason(error)}.",
            "Write models of one architecture, with as many layers as the recipe takes from each.",
        ) from error
    if not planner.noted:
        raise ChatVecError("the recipe plans no tensor.", "Write `models:` or `slices:`.")
    return MergePlan(config, architecture, planner.noted[0].roles, tuple(planner.noted))


def _reason(error: Exception) -> str:
    """Return what mergekit says, without the whole config that it may quote."""
    if isinstance(error, KeyError):
        return f"it knows no {error} here"
    words = re.sub(r"\{.*\}", "", str(error), flags=re.DOTALL).split()
    return " ".join(words).removesuffix(".") or type(error).__name__


def header_of(model: Model, weight: WeightInfo, *, tied: bool = True) -> TensorHeader | None:
    """Return the header of a model's tensor under the name, alias or tied name it is stored by."""
    names = [weight.name, *(weight.aliases or ()), *((weight.tied_names or ()) if tied else ())]
    tensors = model.tensors or {}
    return next((tensors[name] for name in names if name in tensors), None)


def layer_runs(
    kinds: Mapping[str, Mapping[int | None, Value]],
) -> Iterator[tuple[int, int, dict[str, Value]]]:
    """Yield the first and the last of neighbouring layers that are alike, and what they have.

    Args:
        kinds: What each layer has, by kind of tensor; the layer None is left out.
    """
    layers = sorted({i for by_layer in kinds.values() for i in by_layer if i is not None})
    held = [{kind: part[i] for kind, part in kinds.items() if i in part} for i in layers]
    start = 0
    for end in range(1, len(layers) + 1):
        if end == len(layers) or held[end] != held[start]:
            yield layers[start], layers[end - 1], held[start]
            start = end


class _NotingPlanner(MergePlanner):
    """mergekit's planner, which notes ratios and makes no tasks, so that no weights are needed."""

    def __init__(
        self,
        config: MergeConfiguration,
        architecture: ModelArchitecture,
        options: MergeOptions,
        models: Mapping[ModelReference, Model],
    ) -> None:
        donor = config.base_model or config.referenced_models()[0]
        super().__init__(config, architecture, options, models[donor].config)
        self.models = models
        self.layer: int | None = None
        self.noted: list[PlannedTensor] = []

    def note_tensors(self) -> None:
        self.normalize_config()
        for name, module in self.config.modules.items():
            self.plan_module(name, module)

    def plan_layer(self, *args: Any, **kwargs: Any) -> None:
        self.layer = self._current_module_layers
        super().plan_layer(*args, **kwargs)
        self.layer = None

    def plan_tensor(
        self,
        weight: WeightInfo,
        weights_in: Sequence[WeightInfo],
        models: Sequence[ModelReference],
        cfg_reader: ConfigReader,
    ) -> None:
        inputs = dict(zip(models, weights_in, strict=True))
        if weight.optional and not any(self._has(m, w) for m, w in inputs.items()):
            return
        _, resolved = resolve_parameters(
            self._method.spec,
            tensor_name=weight.name,
            inputs={model: w.name for model, w in inputs.items()},
            sources=cfg_reader.parameter_sources,
            base_model=cfg_reader.base_model,
            t=cfg_reader.t,
        )
        roles, ratios = roles_and_ratios(
            weight.name,
            {model: values["role"] for model, values in resolved.items()},
            {model: values["ratio"] for model, values in resolved.items()},
        )
        self.noted.append(
            PlannedTensor(
                weight=weight,
                inputs=inputs,
                layer=self.layer,
                kind=_kind(weight, self.layer),
                roles=roles,
                ratios=ratios,
                settings={chat: tuple(cfg_reader.parameter_sources(chat)) for chat in roles.chats},
            )
        )

    def _has(self, model: ModelReference, weight: WeightInfo) -> bool:
        """Tell whether a model has an optional tensor under a name of its own, as mergekit asks."""
        known = self.models[model]
        if known.tensors is None:
            return not getattr(known.config, "tie_word_embeddings", False)
        return header_of(known, weight, tied=False) is not None


def _kind(weight: WeightInfo, layer: int | None) -> str:
    name = weight.name.lower()
    if layer is None and weight.vocabulary_axis is not None:
        return "embeddings" if "emb" in name or "wte" in name else "head"
    if "norm" in name or ".ln" in name or "layernorm" in name:
        return "norms"
    if "attn" in name or "attention" in name:
        return "attention"
    if any(part in name for part in ("mlp", "feed_forward", "ffn", "experts", "block_sparse_moe")):
        return "MLP"
    return "other"


def ratio_table(plan: MergePlan) -> dict[ModelReference, dict[str, dict[int | None, list[float]]]]:
    """Return, for each chat model and kind of tensor, the ratios in every layer.

    The layer None is what stands outside the layers. A list has more than one number where tensors
    of one kind in one layer differ.
    """
    table: dict[ModelReference, dict[str, dict[int | None, list[float]]]] = {}
    for tensor in plan.tensors:
        for chat, ratio in tensor.ratios.items():
            kinds = table.setdefault(chat, defaultdict(dict))
            ratios = kinds[tensor.kind].setdefault(tensor.layer, [])
            if ratio not in ratios:
                ratios.append(ratio)
    return table


def slices_of(plan: MergePlan) -> list[range]:
    """Return the layers of the output in each slice; a plan without slices is one."""
    ranges, start = [], 0
    for output_slice in next(iter(plan.config.modules.values())).slices:
        first, end = output_slice.sources[0].layer_range
        ranges.append(range(start, start + end - first))
        start += end - first
    return ranges
