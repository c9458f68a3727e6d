"""Where a tensor of the merge stands, and where each model has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mergekit.architecture import WeightInfo
from mergekit.common import ModelReference
from mergekit.config import ConfigReader, MergeConfiguration

from chatvec_method.facts.checkpoint import Source


@dataclass(frozen=True)
class Place:
    """Where in a model a tensor stands, as far as its ratio goes."""

    module: str
    """The part of the model, as mergekit calls it."""
    settings_module: str
    """The part whose `parameters:` count for it."""
    slice: int
    """The slice of that part whose `parameters:` count."""
    layer: int | None
    """The output's layer; None for what stands outside the layers."""
    t: float
    """The depth in its slice, from 0 to 1, at which lists are read."""

    def reader(self, config: MergeConfiguration) -> ConfigReader:
        """Return mergekit's view of a recipe, in its own form, from this place."""
        module = config.modules[self.settings_module]
        return ConfigReader(
            config=config, t=self.t, slice_out=module.slices[self.slice], module=module
        )


@dataclass(frozen=True)
class NotedTensor:
    """A tensor that mergekit plans."""

    weight: WeightInfo
    inputs: Mapping[ModelReference, WeightInfo]
    place: Place


@dataclass(frozen=True)
class StructuredTensor:
    """One tensor of the output, whatever its ratio is."""

    weight: WeightInfo
    inputs: Mapping[ModelReference, WeightInfo]
    """What it is called in each model."""
    sources: Mapping[ModelReference, Source | None]
    """Where each model has it, None where it lacks it; a model is missing whose files are not here
    yet, so that nothing is known of its tensors."""
    place: Place
    by_mergekit: bool
    """Whether stock mergekit would write it too."""
    in_stock: str | None = None
    """The tensor in which stock mergekit writes it, if under another name: alone, or joined with
    others."""
