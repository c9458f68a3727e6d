"""What a merge will compute: every output tensor, its inputs, and the ratio of each chat vector.

mergekit's own planner walks the recipe; where it would make a task of a tensor, it is noted what
the task would take from where. So layers, slices, filters and lists mean here what they mean in the
merge. What mergekit would leave out of a checkpoint is planned beside that, by the same rules, and
where base and chat are of another architecture than cp, the tensors of their common language model
are found by what they are (`layout.py`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

from mergekit.architecture import ModelArchitecture, WeightInfo
from mergekit.common import ModelReference
from mergekit.config import ConfigReader, MergeConfiguration
from mergekit.merge_methods import get as merge_method
from mergekit.options import MergeOptions
from mergekit.parameter_resolver import resolve_parameters

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.checkpoint import Checkpoint, Source
from chatvec_method.facts.models import Model, TensorHeader
from chatvec_method.facts.place import Place, StructuredTensor
from chatvec_method.facts.structure import structure_of
from chatvec_method.method.plugin import roles_and_ratios
from chatvec_method.method.roles import Roles
from chatvec_method.method.settings import Settings, ratio_cases

Value = TypeVar("Value")
KINDS = ("attention", "MLP", "norms", "embeddings", "head", "other")
OTHER_PARTS = re.compile(r"vision|visual|audio|image|speech|encoder")
"""What the names of parts have in them that see or hear, in a model of several."""


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the output."""

    weight: WeightInfo
    inputs: Mapping[ModelReference, WeightInfo]
    """What it is called in each model."""
    sources: Mapping[ModelReference, Source | None]
    """Where each model has it, None where it lacks it; a model is missing whose files are not here
    yet, so that nothing is known of its tensors."""
    place: Place
    layer: int | None
    """The output's layer, in its module; None for embeddings, head and final norm."""
    kind: str
    """One of KINDS."""
    roles: Roles
    ratios: Mapping[ModelReference, float]
    """Of each chat model, and of each vector."""
    settings: Mapping[ModelReference, tuple[Settings, ...]]
    """The `parameters:` in which mergekit looks for each chat model's ratio, nearest first."""
    by_mergekit: bool = True
    """Whether stock mergekit would write it too."""
    in_stock: str | None = None
    """The tensor in which stock mergekit writes it, if under another name: alone, or joined with
    others."""

    @property
    def name(self) -> str:
        """Its name in the output."""
        name: str = self.weight.name
        return name

    @property
    def module(self) -> str:
        """The part of the model, as mergekit calls it, to which it belongs."""
        return self.place.module

    @property
    def readers(self) -> tuple[ModelReference, ...]:
        """The models whose tensor the sum needs: cp, and base and chats where a ratio is not 0."""
        if self.has_no_vector:
            return (self.roles.cp,)
        return self.roles.inputs(chat for chat in self.roles.chats if self.ratios[chat] != 0)

    @property
    def has_no_vector(self) -> bool:
        """Whether it is kept as it is, whatever the ratio says.

        Because only cp has it, or because it holds no weights but numbers, of positions for one.
        """
        cp = self.header(self.roles.cp)
        if cp is not None and not cp.dtype.is_floating_point:
            return True
        others = [source for model, source in self.sources.items() if model != self.roles.cp]
        return len(self.sources) == len(self.roles.all) and not any(others)

    def header(self, model: ModelReference) -> TensorHeader | None:
        """Return dtype and shape of a model's tensor; None where it has none, or none is known."""
        source = self.sources.get(model)
        return source.header if source else None


@dataclass(frozen=True, repr=False)
class MergePlan:
    """All that a merge will compute."""

    config: MergeConfiguration
    """The recipe in the `modules:` with `slices:` form that mergekit gives it."""
    architecture: ModelArchitecture
    roles: Roles
    tensors: tuple[PlannedTensor, ...]
    checkpoints: Mapping[ModelReference, Checkpoint]
    ignored: tuple[str, ...] = ()
    """Tensors of cp that are computed and not learnt, which the output does not need."""
    mixed: bool = False
    """Whether the models are of several architectures, which have a language model in common."""

    def __repr__(self) -> str:
        return f"<MergePlan of {len(self.tensors)} tensors, {self.layers} layers>"

    @cached_property
    def module(self) -> str:
        """The module of the language model, whose layers ratios over the depth are about."""
        layers: dict[str, set[int | None]] = defaultdict(set)
        attends = set()
        for tensor in self.tensors:
            layers[tensor.module].add(tensor.layer)
            if tensor.kind == "attention":
                attends.add(tensor.module)
        text = [name for name in layers if not OTHER_PARTS.search(name)] or list(layers)
        return max(text, key=lambda name: (name in attends, len(layers[name])))

    @property
    def config_donor(self) -> Checkpoint | None:
        """The model whose config the output gets.

        None where nothing is known of its tensors, or cp is of another architecture.
        """
        donor, cp = (self.checkpoints.get(each) for each in (self.config.base_model, self.roles.cp))
        if donor is None or cp is None or donor.model.tensors is None:
            return None
        alike = donor.model.config.architectures == cp.model.config.architectures
        return donor if alike else None

    @property
    def layers(self) -> int:
        """How many layers the output's language model has."""
        module = self.module
        return len({t.layer for t in self.tensors if t.module == module} - {None})

    @cached_property
    def language_model(self) -> tuple[PlannedTensor, ...]:
        """The tensors of the language model: all of them, where there is nothing else."""
        module = self.module
        return tuple(
            tensor
            for tensor in self.tensors
            if tensor.module == module
            or (tensor.layer is None and not OTHER_PARTS.search(tensor.name))
        )

    @cached_property
    def other_parts(self) -> Mapping[str, tuple[PlannedTensor, ...]]:
        """The tensors of parts that see or hear, by module, each with layers of its own."""
        inside = {tensor.name for tensor in self.language_model}
        parts: dict[str, list[PlannedTensor]] = defaultdict(list)
        for tensor in self.tensors:
            if tensor.name not in inside:
                parts[tensor.module].append(tensor)
        return {module: tuple(tensors) for module, tensors in parts.items()}

    def is_spare(self, tensor: PlannedTensor) -> bool:
        """Tell whether transformers does not load a tensor.

        So it is with heads that predict further ahead, which other programs use.
        """
        cp = self.checkpoints[self.roles.cp]
        source = tensor.sources.get(self.roles.cp)
        if source is None or cp.layout is None:
            return False
        return all(weight.name in cp.layout.unused for weight in source.weights)

    def with_ratios(self, config: MergeConfiguration) -> MergePlan:
        """Return the plan of a recipe that differs in nothing but its ratios.

        Args:
            config: A recipe of the same models, slices and tokenizer, as it is written.

        Raises:
            ChatVecError: A ratio or a role is refused.
        """
        normalised = self.config.model_copy(deep=True)
        _take_parameters(normalised, config)
        return _with_resolved(self, normalised)


def plan_merge(
    config: MergeConfiguration, models: Mapping[ModelReference, Model], options: MergeOptions
) -> MergePlan:
    """Return what a recipe's merge will compute.

    Args:
        config: The recipe; it is not modified.
        models: All models that the recipe names.
        options: As for the merge.

    Raises:
        ChatVecError: The recipe is refused, by the method or by mergekit.
    """
    structure = structure_of(config, models, options)
    roles = structure.roles
    plan = MergePlan(
        config=structure.config,
        architecture=structure.architecture,
        roles=roles,
        tensors=tuple(_unresolved(tensor, roles) for tensor in structure.tensors),
        checkpoints=structure.checkpoints,
        ignored=structure.ignored,
        mixed=structure.mixed,
    )
    return _with_resolved(plan, structure.config)


def _unresolved(tensor: StructuredTensor, roles: Roles) -> PlannedTensor:
    layer = tensor.place.layer
    return PlannedTensor(
        weight=tensor.weight,
        inputs=tensor.inputs,
        sources=tensor.sources,
        place=tensor.place,
        layer=layer,
        kind=kind_of(
            tensor.weight.name,
            of_vocabulary=layer is None and tensor.weight.vocabulary_axis is not None,
        ),
        roles=roles,
        ratios={},
        settings={},
        by_mergekit=tensor.by_mergekit,
        in_stock=tensor.in_stock,
    )


def _with_resolved(plan: MergePlan, config: MergeConfiguration) -> MergePlan:
    """Return a plan with every ratio resolved, by mergekit's own resolver.

    What it returns depends on a tensor's place and on which filters are in its names, so that it
    has to be asked once for all tensors that agree in those.
    """
    spec = merge_method(config.merge_method).spec
    readers: dict[Place, ConfigReader] = {}
    patterns = _patterns(config)
    resolved: dict[Any, tuple[Roles, dict[ModelReference, float], dict[Any, Any]]] = {}
    tensors = []
    for tensor in plan.tensors:
        place = tensor.place
        reader = readers.get(place)
        if reader is None:
            reader = readers[place] = place.reader(config)
        names = {model: weight.name for model, weight in tensor.inputs.items()}
        matched = tuple(tuple(p in name for p in patterns) for name in (*names.values(),))
        key = (place, matched, tuple(names))
        if key not in resolved:
            _, values = resolve_parameters(
                spec,
                tensor_name=tensor.name,
                inputs=names,
                sources=reader.parameter_sources,
                base_model=reader.base_model,
                t=reader.t,
            )
            roles, ratios = roles_and_ratios(
                tensor.name,
                {model: each["role"] for model, each in values.items()},
                {model: each["ratio"] for model, each in values.items()},
            )
            settings = {chat: tuple(reader.parameter_sources(chat)) for chat in roles.chats}
            resolved[key] = roles, ratios, settings
        roles, ratios, settings = resolved[key]
        tensors.append(replace(tensor, roles=roles, ratios=ratios, settings=settings))
    return replace(plan, config=config, roles=tensors[0].roles, tensors=tuple(tensors))


def _patterns(config: MergeConfiguration) -> tuple[str, ...]:
    """Return the filters of all settings of a recipe in mergekit's form."""
    settings = [config.parameters]
    for module in (config.modules or {}).values():
        settings.append(module.parameters)
        for output_slice in module.slices or ():
            settings.append(output_slice.parameters)
            settings += [source.parameters for source in output_slice.sources]
    cases = [
        case for each in settings for value in (each or {}).values() for case in ratio_cases(value)
    ]
    return tuple(dict.fromkeys(pattern for pattern, _ in cases if pattern))


def _take_parameters(normalised: MergeConfiguration, config: MergeConfiguration) -> None:
    """Give a recipe in mergekit's form the `parameters:` of one as it is written."""
    normalised.parameters = config.parameters
    for name, module in normalised.modules.items():
        written = config.modules[name] if config.modules else config
        if config.modules:
            module.parameters = written.parameters
        for i, output_slice in enumerate(module.slices):
            of_slice = written.slices[i] if written.slices else None
            if of_slice is not None:
                output_slice.parameters = of_slice.parameters
            sources = {s.model: s for s in (of_slice.sources if of_slice else written.models)}
            for source in output_slice.sources:
                if source.model not in sources:
                    raise ChatVecError(
                        f"model {source.model} is not in the recipe any more, so that more than "
                        "its ratios has changed.",
                        "Plan the recipe anew.",
                    )
                source.parameters = sources[source.model].parameters


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


def kind_of(name: str, *, of_vocabulary: bool) -> str:
    """Return the kind of a tensor, one of KINDS.

    Args:
        name: Its name in a checkpoint.
        of_vocabulary: Whether it has a row for each token, and stands outside the layers.
    """
    name = name.lower()
    if of_vocabulary:
        return "embeddings" if "emb" in name or "wte" in name else "head"
    if "norm" in name or ".ln" in name or "layernorm" in name:
        return "norms"
    if "attn" in name or "attention" in name:
        return "attention"
    if any(part in name for part in ("mlp", "feed_forward", "ffn", "experts", "block_sparse_moe")):
        return "MLP"
    return "other"


def ratio_table(
    tensors: Iterable[PlannedTensor],
) -> dict[ModelReference, dict[str, dict[int | None, list[float]]]]:
    """Return, for each chat model and kind of tensor, the ratios in every layer of a part.

    The layer None is what stands outside the layers. A list has more than one number where tensors
    of one kind in one layer differ.
    """
    table: dict[ModelReference, dict[str, dict[int | None, list[float]]]] = {}
    for tensor in tensors:
        for chat, ratio in tensor.ratios.items():
            kinds = table.setdefault(chat, defaultdict(dict))
            ratios = kinds[tensor.kind].setdefault(tensor.layer, [])
            if ratio not in ratios:
                ratios.append(ratio)
    return table


def slices_of(plan: MergePlan) -> list[range]:
    """Return the layers of the output in each slice; a plan without slices is one."""
    ranges, start = [], 0
    module = plan.config.modules.get(plan.module, next(iter(plan.config.modules.values())))
    for output_slice in module.slices:
        first, end = output_slice.sources[0].layer_range
        ranges.append(range(start, start + end - first))
        start += end - first
    return ranges
