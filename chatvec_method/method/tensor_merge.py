"""The merge of one tensor: which models it takes, and the sum of them, whole or a part of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from chatvec_method.errors import ChatVecError
from chatvec_method.kernel import (
    SUPPORTED,
    Summand,
    add_vectors,
    all_finite,
    checked_finite,
    rounded,
)
from chatvec_method.method.computed import is_computed
from chatvec_method.method.roles import Roles
from chatvec_method.method.settings import dtype_name
from chatvec_method.workers import workers

if TYPE_CHECKING:  # mergekit's methods import this module
    from mergekit.merge_methods.base import TensorGroup


@dataclass(frozen=True)
class TensorMerge:
    """θ_cp + Σ ratio · (θ_chat − θ_base) for one tensor, ready to be computed.

    Models whose ratio is 0 are not in it, nor is base where all are: what is not touched of a
    mapped checkpoint is not read.
    """

    name: str
    tensors: Mapping[Hashable, Tensor]
    """Of the models that the sum needs, all of one shape."""
    cp: Hashable
    base: Hashable
    """None where all chats are vectors."""
    ratios: Mapping[Hashable, float]
    """Of each chat whose ratio is not 0; without any, the merge is cp's tensor."""
    dtype: torch.dtype
    """Of the result."""
    vectors: frozenset[Hashable] = frozenset()
    """The chats that are files of differences, from which base is subtracted already."""
    subtracted: Mapping[Hashable, Hashable] = field(default_factory=dict)
    """What is subtracted from a vector all the same, as some of its rows are chat's own."""

    @property
    def shape(self) -> torch.Size:
        """The shape of the result."""
        return self.tensors[self.cp].shape

    def whole(self) -> Tensor:
        """Return the merge; where all ratios are 0, cp's own tensor, bit for bit.

        Raises:
            ChatVecError: A model has NaN or infinite elements, or the sum does not fit the dtype.
        """
        on_cpu = self.tensors[self.cp].device.type == "cpu"
        contiguous = all(tensor.is_contiguous() for tensor in self.tensors.values())
        if not (self.ratios and on_cpu and contiguous):
            return self.into(None)
        out = torch.empty(self.shape, dtype=self.dtype)
        flat = out.view(-1)

        def compute(elements: slice) -> None:
            parts = {model: tensor.view(-1)[elements] for model, tensor in self.tensors.items()}
            replace(self, tensors=parts).into(flat[elements])

        with workers() as at_work:
            at_work.for_ranges(flat.numel(), compute)
        return out

    def into(self, out: Tensor | None) -> Tensor:
        """Return the merge, computed in the calling thread.

        Args:
            out: A tensor of the result's dtype and shape, to be overwritten; where cp's elements
                are the result, these are returned instead, and not copied.

        Raises:
            ChatVecError: As `whole`.
        """
        cp = self.tensors[self.cp]
        try:
            if not self.ratios:
                own = rounded(cp, self.dtype)
                # A mask may well be infinite.
                return own if is_computed(self.name, cp.shape) else checked_finite(own)
            return add_vectors(cp, [self._summand(chat) for chat in self.ratios], self.dtype, out)
        except FloatingPointError:
            raise self._blame() from None

    def _summand(self, chat: Hashable) -> Summand:
        is_vector = chat in self.vectors
        base = self.subtracted.get(chat) if is_vector else self.base
        return Summand(
            self.ratios[chat],
            self.tensors[chat],
            None if base is None else self.tensors[base],
            is_vector,
        )

    def _blame(self) -> ChatVecError:
        """Return whose fault an element is that is not finite."""
        for model, tensor in self.tensors.items():
            if not all_finite(tensor):
                return ChatVecError(
                    f"{self.name}: the tensor of model {model} has NaN or infinite elements, so "
                    "its checkpoint is damaged.",
                    "Download or convert it again.",
                )
        return ChatVecError(
            f"{self.name}: the merge overflows {dtype_name(self.dtype)}.",
            "Write a wider dtype, as in `out_dtype: float32`, or a smaller ratio.",
        )


def tensor_merge(
    group: TensorGroup,
    roles: Roles,
    ratios: Mapping[Hashable, float],
    input_dtype: torch.dtype | None,
    out_dtype: torch.dtype | None,
) -> TensorMerge:
    """Return the merge of one tensor, not computed yet.

    Args:
        group: The tensors of the models that have it, all of one shape.
        roles: Who is who; may name models that lack an optional tensor.
        ratios: The ratio of each chat model.
        input_dtype: The dtype that the inputs promote to, or another to cast them to first.
        out_dtype: The dtype of the result; None for that to which they are cast, or else to which
            the models promote (vectors do not count), and for cp's where ratios are 0.

    Raises:
        ChatVecError: A tensor that the sum needs is missing, or is no plain floating-point one.
    """
    name = group.metadata.name or "a tensor without a name"
    tensors = {entry.id: entry.tensor for entry in group.entries}
    # An optional tensor that only cp has, such as an lm_head, has no chat vector.
    only_cp = tensors.keys() == {roles.cp}
    kept = only_cp or is_computed(name, tensors[roles.cp].shape if roles.cp in tensors else ())
    active = [chat for chat in roles.chats if ratios[chat] != 0 and not kept]
    needed = roles.inputs(active)
    _check_tensors({model: tensors.get(model) for model in needed}, roles, name)
    # mergekit names the dtype to which all promote where the recipe names none: that is no cast.
    promoted = reduce(torch.promote_types, (t.dtype for t in tensors.values()))
    cast = input_dtype if input_dtype != promoted else None
    taken = {m: tensors[m] if cast is None else tensors[m].to(cast) for m in needed}
    axis = group.metadata.vocabulary_axis
    for vector in roles.vectors.intersection(active) if axis is not None else ():
        taken[vector] = _without_filled(taken[vector], taken[roles.cp], axis)
    of_models = (t.dtype for m, t in tensors.items() if m not in roles.vectors)
    own = cast or reduce(torch.promote_types, of_models)
    return TensorMerge(
        name=name,
        tensors=taken,
        cp=roles.cp,
        base=roles.base,
        ratios={chat: ratios[chat] for chat in active},
        dtype=out_dtype or (own if active else taken[roles.cp].dtype),
        vectors=roles.vectors,
    )


def _without_filled(vector: Tensor, cp: Tensor, axis: int) -> Tensor:
    """Return a vector with zeros for the tokens that it lacks.

    For those mergekit fills in cp's rows, as it would for a model. No difference of two models has
    a row that is cp's to the bit.
    """
    others = [i for i in range(cp.ndim) if i != axis]
    filled = (vector.to(cp.dtype) == cp).all(dim=others) if others else vector == cp
    if not bool(filled.any()):
        return vector
    shape = [-1 if i == axis else 1 for i in range(cp.ndim)]
    return vector.masked_fill(filled.view(shape), 0)


def _check_tensors(tensors: Mapping[Hashable, Tensor | None], roles: Roles, name: str) -> None:
    for model, tensor in tensors.items():
        if tensor is None and model == roles.cp:
            raise ChatVecError(
                f"{name}: the cp model {model} lacks this tensor, which others have, so there is "
                "nothing to add a chat vector to.",
                "Save the cp model with it first, for example with its head untied.",
            )
        if tensor is None:
            part = name.split(".", 3)[-1] if ".layers." in name else name
            raise ChatVecError(
                f"{name}: model {model} lacks this tensor, which others have.",
                f"Write a first filter for it under `ratio:` to keep cp's, as in "
                f"`- {{filter: {part}, value: 0}}`",
            )
        if tensor.dtype not in SUPPORTED:
            raise ChatVecError(
                f"{name}: model {model} has it in {dtype_name(tensor.dtype)}, to which no chat "
                "vector can be added.",
                "Write the name of the model's unquantised version.",
            )
