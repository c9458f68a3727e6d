"""What the output's tensors will be, as far as headers tell, and in which order they are saved."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from mergekit.common import ModelReference
from mergekit.config import MergeConfiguration

from chatvec_method.facts.models import TensorHeader
from chatvec_method.facts.plan import MergePlan, PlannedTensor
from chatvec_method.facts.vocabulary import Vocabulary
from chatvec_method.method.settings import weights_dtype


def expected_headers(
    plan: MergePlan, vocabulary: Vocabulary | None
) -> dict[str, TensorHeader | None]:
    """Return dtype and shape of every tensor in the output (files are not known yet).

    None for a tensor of models whose files are not here yet, or that cp lacks.
    """
    return {t.name: _expected_header(plan.config, t, vocabulary) for t in plan.tensors}


def in_stock_order(plan: MergePlan) -> list[PlannedTensor]:
    """Return the tensors in the order in which mergekit's writer gets them.

    Its executor takes tasks by their label, the last of the names under which the models have a
    tensor; what has to be converted has none and comes first. What it leaves out comes last.
    """
    stock = [tensor for tensor in plan.tensors if tensor.by_mergekit]
    ours = [tensor for tensor in plan.tensors if not tensor.by_mergekit]
    return [*sorted(stock, key=_label), *sorted(ours, key=lambda tensor: tensor.name)]


def _label(tensor: PlannedTensor) -> str:
    labels = [""]
    for model, source in tensor.sources.items():
        weight = tensor.inputs[model]
        names = (weight.name, *(weight.aliases or ()), *(weight.tied_names or ()))
        if source is not None and source.conversion is None and source.weights[0].name in names:
            labels.append(source.weights[0].name)
    return max(labels)


def _expected_header(
    config: MergeConfiguration, tensor: PlannedTensor, vocabulary: Vocabulary | None
) -> TensorHeader | None:
    headers = {model: tensor.header(model) for model in tensor.sources}
    cp = headers.get(tensor.roles.cp)
    if cp is None:
        return None
    shape = cp.shape
    matched = vocabulary is not None and tensor.weight.vocabulary_axis is not None
    if vocabulary is not None and (axis := tensor.weight.vocabulary_axis) is not None:
        shape = (*shape[:axis], vocabulary.rows, *shape[axis + 1 :])
    dtype = _output_dtype(config, tensor, headers, matched)
    return TensorHeader(dtype, shape, "") if dtype else None


def _output_dtype(
    config: MergeConfiguration,
    tensor: PlannedTensor,
    headers: Mapping[ModelReference, TensorHeader | None],
    matched: bool,
) -> torch.dtype | None:
    own = headers[tensor.roles.cp]
    assert own is not None
    if not own.dtype.is_floating_point:  # numbers of positions and the like
        return own.dtype
    forced = weights_dtype(tensor.weight.force_dtype or config.out_dtype or config.dtype)
    if forced is not None:
        return forced
    if len(tensor.readers) == 1 and not matched:  # cp's tensor as it is
        return own.dtype
    # A vector's own dtype is that of a difference, and no reason for a wider output.
    dtypes = [
        header.dtype
        for model, header in headers.items()
        if header is not None and model not in tensor.roles.vectors
    ]
    if len(headers) < len(tensor.roles.all):
        return None
    try:
        return reduce(torch.promote_types, dtypes)
    except RuntimeError:  # torch promotes no float8
        return None
