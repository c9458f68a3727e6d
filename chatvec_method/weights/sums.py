"""The merge of one tensor, of which any range of elements can be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from mergekit.common import ModelReference
from torch import Tensor

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.plan import PlannedTensor
from chatvec_method.kernel import SUPPORTED
from chatvec_method.method.settings import dtype_name
from chatvec_method.method.tensor_merge import TensorMerge


class Elements(Protocol):
    """A tensor's elements in all models that its sum needs."""

    @property
    def shape(self) -> torch.Size:
        """The output's."""

    @property
    def subtracted(self) -> Mapping[ModelReference, ModelReference]:
        """What is subtracted from vectors of which some rows are chat's own."""

    def part(self, elements: slice) -> dict[ModelReference, Tensor]:
        """Return some elements of each model that the sum needs, in a row."""


class Sum:
    """θ_cp + Σ ratio · (θ_chat − θ_base) for one tensor, computed a part at a time."""

    def __init__(
        self, tensor: PlannedTensor, inputs: Elements, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Prepare the sum; nothing is read yet.

        Args:
            tensor: The tensor, with its ratios.
            inputs: Its elements in the models.
            dtype: The result's.
            device: Where the sum is formed.

        Raises:
            ChatVecError: A model has it in a dtype to which no chat vector can be added.
        """
        _check_dtypes(tensor)
        self.name = tensor.name
        self.shape = inputs.shape
        self.dtype = dtype
        self.device = device
        self._inputs = inputs
        self.cp = tensor.roles.cp
        self._roles = tensor.roles
        self._ratios = {
            chat: tensor.ratios[chat] for chat in tensor.roles.chats if chat in tensor.readers
        }
        self._subtracted = inputs.subtracted

    def inputs(self, elements: slice) -> dict[ModelReference, Tensor]:
        """Return some elements of each model that the sum needs."""
        return {m: part.to(self.device) for m, part in self._inputs.part(elements).items()}

    def part(self, elements: slice, out: Tensor) -> Tensor:
        """Return some elements; those of cp itself are not copied into `out`.

        Raises:
            ChatVecError: A model has NaN or infinite elements, or the sum does not fit the dtype.
        """
        roles = self._roles
        merge = TensorMerge(
            self.name,
            self.inputs(elements),
            roles.cp,
            roles.base,
            self._ratios,
            self.dtype,
            roles.vectors,
            self._subtracted,
        )
        return merge.into(out)


def _check_dtypes(tensor: PlannedTensor) -> None:
    if len(tensor.readers) == 1:
        return
    for model in tensor.readers:
        header = tensor.header(model)
        if header is not None and header.dtype not in SUPPORTED:
            raise ChatVecError(
                f"{tensor.name}: model {model} has it in {dtype_name(header.dtype)}, to which no "
                "chat vector can be added.",
                "Write the name of the model's unquantised version.",
            )
