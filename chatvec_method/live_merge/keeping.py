"""Where base, chats and cp stay while a merge is live.

On a CPU that is their files, mapped. On an accelerator, the card has them where they fit beside the
model; else they wait in pinned memory, or in their files, and are sent to it a tensor ahead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias

import psutil
import torch
from mergekit.common import ModelReference
from torch import Tensor

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.plan import PlannedTensor
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.weights.inputs import Inputs
from chatvec_method.weights.matching import Matching, matching_of
from chatvec_method.weights.reading import Reader
from chatvec_method.weights.sums import Elements

Keep: TypeAlias = Literal["device", "pinned", "mapped"]
KEEPS: tuple[Keep, ...] = ("device", "pinned", "mapped")
LEFT_ON_DEVICE = 0.1
"""The share of an accelerator's memory that is left to what is computed on it."""
LEFT_IN_MEMORY = 0.2
"""The share of the memory that is free which is left to other programs."""


class Keeper:
    """Gives every tensor of the models, from wherever it stays."""

    def __init__(
        self, survey: ReadySurvey, keep: Keep, devices: Mapping[str, torch.device]
    ) -> None:
        """Keep the models' tensors.

        Args:
            survey: Of the recipe, with all models' files here.
            keep: Where they stay.
            devices: Where each tensor of the merge is computed.
        """
        self.keep = keep
        self._devices = devices
        self._matching: Matching | None = matching_of(survey)
        self._reader = Reader(survey.plan.checkpoints, lazy_unpickle=survey.options.lazy_unpickle)
        self._kept: dict[str, dict[ModelReference, Tensor]] = {}
        self._subtracted: dict[str, dict[ModelReference, ModelReference]] = {}
        self._mapped: dict[tuple[str, tuple[ModelReference, ...]], Inputs] = {}

    def elements(self, survey: ReadySurvey, tensor: PlannedTensor) -> Elements:
        """Return a tensor's elements in the models that its sum needs.

        Args:
            survey: Of the recipe, with the ratios that count.
            tensor: The tensor, with its ratios.
        """
        if self.keep == "mapped":
            return self._in_files(survey, tensor)
        kept = self._kept.setdefault(tensor.name, {})
        subtracted = self._subtracted.setdefault(tensor.name, {})
        if any(model not in kept for model in tensor.readers):
            inputs = Inputs(survey, self._reader, self._matching, tensor)
            for model, elements in inputs.part(slice(0, inputs.shape.numel())).items():
                if model not in kept:
                    kept[model] = self._moved(tensor.name, elements)
            subtracted |= inputs.subtracted
        shape = torch.Size(survey.headers[tensor.name].shape)
        bases = {model: subtracted[model] for model in tensor.readers if model in subtracted}
        needed = (*tensor.readers, *bases.values())
        return Kept(shape, {model: kept[model] for model in needed}, bases)

    def _in_files(self, survey: ReadySurvey, tensor: PlannedTensor) -> Inputs:
        """Return a tensor's elements as they are mapped; what is computed of files is not kept."""
        key = (tensor.name, tensor.readers)
        if key in self._mapped:
            return self._mapped[key]
        inputs = Inputs(survey, self._reader, self._matching, tensor)
        sources = [source for source in tensor.sources.values() if source is not None]
        if survey.recipe.config.dtype is None and all(source.mapped for source in sources):
            self._mapped[key] = inputs
        return inputs

    def _moved(self, name: str, elements: Tensor) -> Tensor:
        if self.keep == "pinned":
            return elements.pin_memory()
        return elements.to(self._devices[name], copy=True)


class Kept:
    """A tensor's elements that are in memory."""

    def __init__(
        self,
        shape: torch.Size,
        models: Mapping[ModelReference, Tensor],
        subtracted: Mapping[ModelReference, ModelReference],
    ) -> None:
        self.shape = shape
        self.subtracted = subtracted
        self._models = models

    def part(self, elements: slice) -> dict[ModelReference, Tensor]:
        """Return some elements of each model that the sum needs, in a row."""
        return {model: tensor[elements] for model, tensor in self._models.items()}


def checked_keep(keep: str | None, devices: Iterable[torch.device]) -> Keep | None:
    """Return where the models are to stay; None where that is to be chosen.

    Raises:
        ChatVecError: There is no such place, or none without an accelerator.
    """
    if keep is None:
        return None
    for known in KEEPS:
        if keep == known:
            if known == "pinned" and all(device.type == "cpu" for device in devices):
                raise ChatVecError(
                    'keep="pinned" is for a model on an accelerator, and this one is on the CPU.',
                    'Write `keep="mapped"`, or leave it out.',
                )
            return known
    raise ChatVecError(
        f"keep={keep!r} is no place for the models.",
        f"Write one of {', '.join(map(repr, KEEPS))}, or leave it out.",
    )


def chosen_keep(survey: ReadySurvey, devices: Mapping[str, torch.device]) -> Keep:
    """Return where the models' tensors stay, by the memory that is free now."""
    sizes: dict[torch.device, int] = {}
    for tensor in survey.plan.tensors:
        if tensor.name in devices:
            device = devices[tensor.name]
            sizes[device] = sizes.get(device, 0) + _bytes(survey, tensor)
    if all(device.type == "cpu" for device in sizes):
        return "mapped"
    if all(size <= _room(device) for device, size in sizes.items()):
        return "device"
    return "pinned" if sum(sizes.values()) <= _free_memory() else "mapped"


def _bytes(survey: ReadySurvey, tensor: PlannedTensor) -> int:
    """Return the size of a tensor in all models, with the rows of the output."""
    elements = torch.Size(survey.headers[tensor.name].shape).numel()
    models = tensor.roles.all if not tensor.has_no_vector else (tensor.roles.cp,)
    headers = (tensor.header(model) for model in models)
    return sum(elements * header.dtype.itemsize for header in headers if header is not None)


def _room(device: torch.device) -> float:
    """Return how many bytes more may be put on a device."""
    memory = getattr(torch.get_device_module(device), "mem_get_info", None)
    if device.type == "cpu" or memory is None:  # or it shares the memory of the CPU
        return _free_memory()
    free, total = memory(device)
    return float(free - LEFT_ON_DEVICE * total)


def _free_memory() -> float:
    """Return how many bytes more may be put into memory."""
    return (1 - LEFT_IN_MEMORY) * int(psutil.virtual_memory().available)
