"""What the output's tensors will be, as far as headers tell."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from mergekit.common import ModelReference

from chatvec_method.facts.models import DTYPE_NAMES, TensorHeader
from chatvec_method.facts.plan import PlannedTensor, header_of
from chatvec_method.facts.survey import Survey
from chatvec_method.method.settings import tokenizer_source, weights_dtype


def expected_header(survey: Survey, tensor: PlannedTensor) -> TensorHeader | None:
    """Return dtype and shape that a tensor will have in the output (its file is not known yet).

    None where only the weights tell: models whose headers cannot be read, and experts, which
    checkpoints have one by one and mergekit joins while it loads.
    """
    headers = {m: header_of(survey.models[m], w) for m, w in tensor.inputs.items()}
    cp = headers[tensor.roles.cp]
    if cp is None:
        return None
    shape = cp.shape
    if survey.vocabulary is not None and (axis := tensor.weight.vocabulary_axis) is not None:
        shape = (*shape[:axis], survey.vocabulary.rows, *shape[axis + 1 :])
    dtype = _output_dtype(survey, tensor, headers)
    return TensorHeader(dtype, shape, "") if dtype else None


def _output_dtype(
    survey: Survey, tensor: PlannedTensor, headers: Mapping[ModelReference, TensorHeader | None]
) -> torch.dtype | None:
    config = survey.recipe.config
    forced = weights_dtype(tensor.weight.force_dtype or config.out_dtype or config.dtype)
    if forced is not None:
        return forced
    known = [header.dtype for header in headers.values() if header is not None]
    aligned = survey.vocabulary is not None and tensor.weight.vocabulary_axis is not None
    if len(tensor.readers) == 1 and not aligned:  # cp's tensor as it is
        return headers[tensor.roles.cp].dtype  # type: ignore[union-attr]
    if len(known) < len(headers):
        return None
    try:
        return reduce(torch.promote_types, known)
    except RuntimeError:  # torch promotes no float8
        return None


def can_stream(survey: Survey) -> bool:
    """Tell whether the output's tensors are known beforehand and go to safetensors files.

    Not known are experts, which checkpoints have one by one and mergekit joins while it loads, and
    all where headers cannot be read. With `source: union`, mergekit numbers the tokens anew each
    time, so that its rows and its tokenizer have to come from one run.
    """
    options, config = survey.options, survey.recipe.config
    if survey.plan is None or not options.safe_serialization or options.multi_gpu:
        return False
    if tokenizer_source(config) == "union":
        return False
    headers = expected_headers(survey)
    return all(header and header.dtype in DTYPE_NAMES for header in headers.values())


def expected_headers(survey: Survey) -> Mapping[str, TensorHeader | None]:
    """Return what every planned tensor will be in the output, None where only weights tell."""
    assert survey.plan is not None
    return {tensor.name: expected_header(survey, tensor) for tensor in survey.plan.tensors}
