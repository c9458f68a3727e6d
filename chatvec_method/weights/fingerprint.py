"""The rows of its base that a vector keeps, and what a model has in their place."""

from __future__ import annotations

import torch
from mergekit.common import ModelReference
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from chatvec_method.facts.models import Model
from chatvec_method.facts.plan import MergePlan, PlannedTensor
from chatvec_method.method.vector import FINGERPRINT_FILE, LARGEST_FINGERPRINT_BYTES
from chatvec_method.weights.reading import Reader


def fingerprint_of(vector: Model) -> dict[str, Tensor]:
    """Return the rows of base that a vector keeps, flat, in float64; {} where it keeps none.

    Each is the middle row of a matrix, by the name that the vector's tensor has.
    """
    file = vector.small_files.file(FINGERPRINT_FILE)
    try:
        if file is None or file.stat().st_size > LARGEST_FINGERPRINT_BYTES:
            return {}
        rows = load_file(file)
    except (OSError, SafetensorError):
        return {}
    return {name: row.reshape(-1).to(torch.float64) for name, row in rows.items()}


def tensor_stored_as(plan: MergePlan, model: ModelReference, name: str) -> PlannedTensor | None:
    """Return the tensor of a merge that a model has under a name."""
    for tensor in plan.tensors:
        source = tensor.sources.get(model)
        if source is not None and source.weights[0].name == name:
            return tensor
    return None


def is_base_of(base: ModelReference, vector: Model, plan: MergePlan, reader: Reader) -> bool:
    """Tell whether a vector was extracted with this base: all rows that it keeps are the base's.

    Args:
        base: A model of the plan.
        vector: One of its vectors.
        plan: Of the merge.
        reader: Of the models' files.
    """
    rows = fingerprint_of(vector)
    for name, row in rows.items():
        tensor = tensor_stored_as(plan, vector.reference, name)
        source = tensor.sources.get(base) if tensor is not None else None
        if source is None:
            return False
        whole = reader.tensor(base, source)
        if not torch.equal(whole[len(whole) // 2].reshape(-1).float().double(), row):
            return False
    return bool(rows)
