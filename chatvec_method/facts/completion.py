"""The tensors that mergekit plans, found in every model, and those that it would leave out.

mergekit plans from a definition or from what it infers, and drops what it does not know: experts
beside dense layers, the language model of a vision model under another name, heads that predict
further ahead. Here every tensor of cp is in the plan: merged where base and chat have it too,
whatever it is called there, and else kept as it is.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mergekit.architecture import WeightInfo
from mergekit.common import ModelReference

from chatvec_method.facts.checkpoint import Checkpoint, Source
from chatvec_method.facts.layout import LANGUAGE_MODEL
from chatvec_method.facts.models import config_value, text_config
from chatvec_method.facts.place import NotedTensor, Place, StructuredTensor
from chatvec_method.method.computed import is_computed
from chatvec_method.method.roles import Roles
from chatvec_method.stated import MOST_LAYERS

NUMBERED = re.compile(r"(?:^|(?<=\.))(\d+)(?=\.)")
"""The number of a layer: the first in a tensor's name."""
EMBEDDINGS = re.compile(r"(?:embed_tokens|wte|word_embeddings|embed_in|lm_head|embed_out)\.weight$")
"""Tensors with a row for each token, in models that transformers does not know."""


@dataclass(frozen=True)
class _Layer:
    """A layer of the output, and from which layer of each model it comes."""

    place: Place
    numbers: Mapping[ModelReference, int]


def completed(
    noted: Sequence[NotedTensor],
    checkpoints: Mapping[ModelReference, Checkpoint],
    roles: Roles,
    *,
    mixed: bool,
    sliced: bool,
) -> tuple[tuple[StructuredTensor, ...], tuple[str, ...]]:
    """Return all tensors of a merge with where each model has them, and what is left out of cp.

    Args:
        noted: What mergekit plans.
        checkpoints: Of all models.
        roles: Who is who.
        mixed: Whether the models are of several architectures.
        sliced: Whether the recipe says which layers it takes, so that others are meant to go.
    """
    finder = _Finder(checkpoints, roles, mixed)
    tensors = [finder.planned(tensor) for tensor in noted]
    cp = checkpoints[roles.cp]
    if cp.model.tensors is None:
        return tuple(tensors), ()
    if all(tensor.weight.vocabulary_axis is None for tensor in tensors):
        tensors = [finder.with_vocabulary(tensor) for tensor in tensors]
    tensors = [t for t in tensors if t.sources[roles.cp] or not finder.is_superfluous(t)]
    tensors = [each for tensor in tensors for each in finder.as_cp_stores_it(tensor)]
    tensors = [tensor for tensor in tensors if not finder.is_computed(tensor)]
    covered = {
        weight.name for t in tensors if (s := t.sources.get(roles.cp)) for weight in s.weights
    }
    left = [name for name in cp.weights if name not in covered]
    ignored = tuple(name for name in left if _is_computed(name, cp))
    extra = _Extra(finder, _outside(noted), tensors, sliced)
    for name in left:
        if name not in covered and name not in ignored:
            for tensor in extra.tensors(name):
                source = tensor.sources[roles.cp]
                assert source is not None
                covered |= {weight.name for weight in source.weights}
                tensors.append(tensor)
    return tuple(tensors), ignored


def _outside(noted: Sequence[NotedTensor]) -> Place:
    """Return where tensors stand that are in no layer.

    The first that mergekit plans may be in a layer, of a vision part for one; its main part,
    `default`, has those of no layer.
    """
    places = {tensor.place for tensor in noted if tensor.place.layer is None}
    in_order = sorted(places, key=lambda place: (place.module != "default", place.module, place.t))
    return in_order[0] if in_order else replace(noted[0].place, layer=None, t=0.0)


def _is_computed(name: str, cp: Checkpoint) -> bool:
    return is_computed(name, cp.weights[name].header.shape)


class _Finder:
    """Finds a tensor in the models, by name or by what it is."""

    def __init__(
        self, checkpoints: Mapping[ModelReference, Checkpoint], roles: Roles, mixed: bool
    ) -> None:
        self.checkpoints = checkpoints
        self.roles = roles
        self.mixed = mixed
        self.cp = checkpoints[roles.cp]
        self.others = [*roles.chats, *roles.bases]

    def planned(self, tensor: NotedTensor) -> StructuredTensor:
        """Return a tensor that mergekit plans, with where each model has it."""
        cp = self.roles.cp
        sources: dict[ModelReference, Source | None] = {}
        for model in (cp, *self.others):
            checkpoint, weight = self.checkpoints[model], tensor.inputs[model]
            if checkpoint.model.tensors is not None:
                sources[model] = self._named(checkpoint, weight) or self._same(
                    checkpoint, sources.get(cp), weight
                )
        if self.mixed and not all(sources.get(model) for model in self.others):
            sources |= dict.fromkeys(self.others)  # the part that only cp has
        return StructuredTensor(tensor.weight, tensor.inputs, sources, tensor.place, True)

    def is_computed(self, tensor: StructuredTensor) -> bool:
        """Tell whether a planned tensor is a buffer, which nobody has to learn nor to store."""
        source = tensor.sources.get(self.roles.cp)
        return source is not None and is_computed(tensor.weight.name, source.header.shape)

    def with_vocabulary(self, tensor: StructuredTensor) -> StructuredTensor:
        """Return a tensor with the axis along which it has a row for each token, if it has one.

        mergekit asks transformers for it, which does not always answer.
        """
        source, layout = tensor.sources.get(self.roles.cp), self.cp.layout
        if source is None or layout is None:
            return tensor
        parameters = self.cp.parameters_of(source)
        axis = next(
            (a for p in parameters if (a := layout.vocabulary_axes.get(p)) is not None), None
        )
        if axis is None:
            return tensor
        change = {"vocabulary_axis": axis}
        return replace(
            tensor,
            weight=tensor.weight.model_copy(update=change),
            inputs={m: weight.model_copy(update=change) for m, weight in tensor.inputs.items()},
        )

    def as_cp_stores_it(self, tensor: StructuredTensor) -> list[StructuredTensor]:
        """Return a planned tensor as the tensors that cp's files have for it.

        mergekit writes what transformers makes of a checkpoint, experts joined for one, under names
        that other programs, and transformers before version 5, do not know. The ratio is that of
        the planned tensor.
        """
        source, planned = tensor.sources.get(self.roles.cp), tensor.inputs[self.roles.cp]
        names = (planned.name, *(planned.aliases or ()), *(planned.tied_names or ()))
        if source is None or (source.conversion is None and source.weights[0].name in names):
            return [tensor]
        alone = not any(tensor.sources.get(model) for model in self.others)
        split = []
        for weight in source.weights:
            sources: dict[ModelReference, Source | None] = {
                model: self.checkpoints[model].stored(
                    _renumbered([weight.name], tensor.inputs[model].name)
                )
                for model in tensor.sources
            }
            if source.conversion is None:  # the same tensor by another name
                sources |= {model: tensor.sources[model] for model in sources}
            if not alone and not all(sources.values()):
                return [tensor]
            name = next(_renumbered([weight.name], tensor.weight.name))
            split.append(
                replace(
                    tensor,
                    weight=tensor.weight.model_copy(update={"name": name}),
                    sources=sources,
                    in_stock=tensor.weight.name,
                )
            )
        return split

    def is_superfluous(self, tensor: StructuredTensor) -> bool:
        """Tell whether a planned tensor that cp lacks is none of the models'.

        Because nobody has it (a definition of mergekit's may have more than a checkpoint), or
        because cp has it under a name of its own, by which it is planned then.
        """
        complete = len(tensor.sources) == len(self.roles.all)
        if complete and not any(tensor.sources.values()):
            return True
        return any(
            self.cp.parameter(parameter)
            for model, source in tensor.sources.items()
            if source is not None
            for parameter in self.checkpoints[model].parameters_of(source)
        )

    def like(
        self, source: Source, names: Mapping[ModelReference, str]
    ) -> dict[ModelReference, Source | None]:
        """Return where the other models have a tensor of cp's, all None if one of them lacks it."""
        sources: dict[ModelReference, Source | None] = {}
        for model in self.others:
            checkpoint = self.checkpoints[model]
            if checkpoint.model.tensors is None:
                continue
            weight = WeightInfo(name=names[model])
            sources[model] = self._named(checkpoint, weight) or self._same(
                checkpoint, source, weight
            )
        if not all(sources.values()):
            return dict.fromkeys(sources)
        return sources

    def _named(self, checkpoint: Checkpoint, weight: WeightInfo) -> Source | None:
        """Return where a tensor is under its names, or what is made into it."""
        names = [weight.name, *(weight.aliases or ())]
        stored = checkpoint.stored([*names, *(weight.tied_names or ())])
        if stored is not None:
            return stored
        if checkpoint.layout is None:
            return None
        return next((s for name in names if (s := checkpoint.parameter(name))), None)

    def _same(
        self, checkpoint: Checkpoint, source: Source | None, weight: WeightInfo
    ) -> Source | None:
        """Return where a model has what cp has under another name."""
        if source is None or checkpoint is self.cp or self.cp.layout is None:
            return None
        renamed = _renumbered(self.cp.parameters_of(source), weight.name)
        for parameter in renamed:
            same = checkpoint.parameter(parameter)
            if same is None and self.mixed:
                text = LANGUAGE_MODEL.sub("", parameter, count=1)
                other = checkpoint.text_parameters.get(text)
                same = checkpoint.parameter(other) if other else None
            if same is not None:
                return same
        return None


def _renumbered(parameters: Sequence[str], name: str) -> Iterator[str]:
    """Yield parameters with the layer that a name has, where both have one."""
    number = NUMBERED.search(name)
    for parameter in parameters:
        yield NUMBERED.sub(number[0], parameter, count=1) if number else parameter


class _Extra:
    """Plans what mergekit leaves out, by the rules by which it plans the rest."""

    def __init__(
        self,
        finder: _Finder,
        outside: Place,
        tensors: Sequence[StructuredTensor],
        sliced: bool,
    ) -> None:
        self.finder = finder
        self.roles = finder.roles
        self.cp = finder.cp
        self.sliced = sliced
        self.outside = outside
        self.layers: dict[tuple[str, int], list[_Layer]] = defaultdict(list)
        for tensor in tensors:
            self._note(tensor)
        self.prefixes = {prefix: layers[0] for (prefix, _), layers in self.layers.items()}
        # What comes beyond these predicts further ahead, and is no layer for a recipe to take.
        self.depth = config_value(text_config(self.cp.model.config), "num_hidden_layers") or 0
        self.depths: dict[str, int] = defaultdict(int)
        for name in self.cp.weights:
            prefix, number = _numbered(name)
            if number is not None:
                self.depths[prefix] = max(self.depths[prefix], number + 1)

    def _note(self, tensor: StructuredTensor) -> None:
        source = tensor.sources.get(self.roles.cp)
        if tensor.place.layer is None or source is None:
            return
        prefix, number = _numbered(source.weights[0].name)
        numbers = {model: _numbered(weight.name)[1] for model, weight in tensor.inputs.items()}
        if number is None or None in numbers.values():
            return
        layers = self.layers[prefix, number]
        if all(layer.place != tensor.place for layer in layers):
            layers.append(_Layer(tensor.place, {m: n or 0 for m, n in numbers.items()}))

    def tensors(self, name: str) -> Iterator[StructuredTensor]:
        """Yield the output's tensors that come from a tensor of cp's."""
        prefix, number = _numbered(name)
        layers = self.layers.get((prefix, number)) if number is not None else None
        if layers:
            for layer in layers:
                yield self._tensor(name, layer.place, layer.numbers)
        elif number is not None and prefix in self.prefixes:
            if self.sliced and number < self.depth:
                return  # a layer that the recipe leaves out
            module = self.prefixes[prefix].place.module
            last = max(p.place.slice for ls in self.layers.values() for p in ls)
            yield self._tensor(name, Place(module, module, last, None, 1.0), {})
        elif number is not None and self.depths[prefix] <= MOST_LAYERS:
            depth = number / (self.depths[prefix] - 1) if self.depths[prefix] > 1 else 1.0
            module = self.outside.settings_module
            yield self._tensor(name, Place(prefix, module, 0, number, depth), {})
        else:
            yield self._tensor(name, self.outside, {})

    def _tensor(
        self, name: str, place: Place, numbers: Mapping[ModelReference, int]
    ) -> StructuredTensor:
        source = self.cp.stored([name])
        assert source is not None
        names = {
            model: NUMBERED.sub(str(numbers[model]), name, count=1) if numbers else name
            for model in self.roles.all
        }
        sources = self.finder.like(source, names)
        out = NUMBERED.sub(str(place.layer), name, count=1) if numbers else name
        parameters = self.cp.layout.parameters_of(name) if self.cp.layout else ()
        if not all(sources.values()) and len(parameters) == 1:
            # One of several parts that others have joined: then it is the whole that is merged.
            whole = self.cp.parameter(parameters[0])
            joined = {m: next(_renumbered(parameters, names[m])) for m in names}
            if whole is not None and whole.conversion is not None:
                others = self.finder.like(whole, joined)
                if others and all(others.values()):
                    source, sources, names = whole, others, joined
                    out = next(_renumbered(parameters, out))
        axes = self.cp.layout.vocabulary_axes if self.cp.layout else {}
        axis = next((axes[p] for p in parameters if p in axes), None)
        if self.cp.layout is None and EMBEDDINGS.search(name):
            axis = 0
        return StructuredTensor(
            weight=WeightInfo(name=out, vocabulary_axis=axis),
            inputs={m: WeightInfo(name=n, vocabulary_axis=axis) for m, n in names.items()},
            sources={self.roles.cp: source, **sources},
            place=place,
            by_mergekit=False,
        )


def _numbered(name: str) -> tuple[str, int | None]:
    """Return what stands before the first number in a tensor's name, and the number."""
    match = NUMBERED.search(name)
    return (name[: match.start()].rstrip("."), int(match[0])) if match else ("", None)
