"""Where in a live model each tensor of the merge goes.

Most are parameters as they stand. Experts that are stored one by one are slices of one parameter,
each written in its place. What else transformers makes of stored tensors is made by its own
operations once more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import Concatenate, ConversionOps, MergeModulelist

from chatvec_method.facts.layout import Conversion, Layout

Operation = TypeVar("Operation", bound=ConversionOps)


@dataclass(frozen=True)
class Place:
    """Parameters that are written together, and the merge's tensors that they hold."""

    names: tuple[str, ...]
    """Of the tensors."""
    parameters: tuple[Tensor, ...]
    """The parameters, or the view of one that is a tensor as it stands."""
    conversion: Conversion | None = None
    """How the parameters are made of the tensors; None for one that is its tensor."""
    targets: tuple[str, ...] = ()
    """What the conversion calls the parameters."""

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.parameters[0].device

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Write the merge's tensors, rounded to the parameters' dtype where that is another."""
        if self.conversion is None:
            self.parameters[0].copy_(tensors[self.names[0]])
            return
        made = self.conversion.parameters(tensors)
        for target, parameter in zip(self.targets, self.parameters, strict=True):
            parameter.copy_(made[target])


def places_of(
    model: PreTrainedModel, layout: Layout, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Place, ...]:
    """Return where the merge's tensors go; those that transformers does not load go nowhere.

    Args:
        model: The model.
        layout: Of a checkpoint with the merge's tensors.
        shapes: Of the merge's tensors.
    """
    held: dict[str, Tensor] = model.state_dict()
    places = [Place((stored,), (held[parameter],)) for stored, parameter in layout.renamed.items()]
    by_conversion: dict[int, list[str]] = {}
    for parameter, conversion in layout.conversions.items():
        by_conversion.setdefault(id(conversion), []).append(parameter)
    for targets in by_conversion.values():
        conversion = layout.conversions[targets[0]]
        parameters = tuple(held[target] for target in targets)
        slices = _slices(conversion, parameters[0], shapes) if len(targets) == 1 else None
        if slices is None:
            places.append(Place(conversion.names, parameters, conversion, tuple(targets)))
        else:
            places += [Place((stored,), (view,)) for stored, view in slices.items()]
    return tuple(places)


def _slices(
    conversion: Conversion, parameter: Tensor, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor] | None:
    """Return the part of a parameter that each stored tensor is; None where it is not that simple.

    Experts are stacked, and what several patterns give is joined.
    """
    operations = list(conversion.converter.operations)
    stacking = _next(operations, MergeModulelist)
    joining = _next(operations, Concatenate)
    by_pattern: dict[str, list[str]] = defaultdict(list)
    for pattern, name in conversion.parts:
        by_pattern[pattern].append(name)
    if operations or (joining is None and len(by_pattern) > 1):
        return None
    views: dict[str, Tensor] = {}
    start = 0
    for names in (by_pattern[pattern] for pattern in conversion.converter.source_patterns):
        for group in [names] if stacking else [[name] for name in names]:
            part = parameter
            if joining is not None:
                shape = list(shapes[group[0]])
                if stacking:
                    shape.insert(stacking.dim, len(group))
                part = parameter.narrow(joining.dim, start, shape[joining.dim])
                start += shape[joining.dim]
            views |= dict(
                zip(group, part.unbind(stacking.dim) if stacking else [part], strict=True)
            )
    return views


def _next(operations: list[ConversionOps], kind: type[Operation]) -> Operation | None:
    """Return the operation that is left first, and take it away, if it is of a kind."""
    first = operations[0] if operations else None
    if type(first) is not kind:
        return None
    operations.pop(0)
    return first


def in_order(places: Iterable[Place], names: Iterable[str]) -> Iterator[Place]:
    """Yield places in the order in which files have the first of their tensors."""
    numbers = {name: i for i, name in enumerate(names)}
    yield from sorted(places, key=lambda place: numbers[place.names[0]])
