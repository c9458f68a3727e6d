"""What a picture of ratios shows: rows of kinds of tensors, and what is outside the layers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby

from mergekit.common import ModelReference

from chatvec_method.facts.plan import KINDS, MergePlan, PlannedTensor

Row = dict[int, float]
"""The ratio of each layer."""


def rows_of(plan: MergePlan, chat: ModelReference) -> dict[str, Row]:
    """Return the ratios of each kind of tensor, or of its parts where these differ."""
    parts: dict[str, dict[str, Row]] = {kind: defaultdict(dict) for kind in KINDS}
    for tensor in plan.language_model:
        if tensor.layer is not None:
            parts[tensor.kind][_part(tensor)][tensor.layer] = tensor.ratios[chat]
    rows: dict[str, Row] = {}
    for kind, of_kind in parts.items():
        alike = all(row == next(iter(of_kind.values())) for row in of_kind.values())
        if of_kind and alike:
            rows[kind] = next(iter(of_kind.values()))
        else:
            rows |= of_kind
    return rows


def _part(tensor: PlannedTensor) -> str:
    """Return the end of a tensor's name, as in `q_proj`."""
    return tensor.name.removesuffix(".weight").rpartition(".")[2]


def outside_of(plan: MergePlan, chat: ModelReference) -> dict[str, float]:
    """Return the ratios of what has no layer."""
    names = {"norms": "final norm", "other": "other"}
    return {
        names.get(tensor.kind, tensor.kind): tensor.ratios[chat]
        for tensor in plan.language_model
        if tensor.layer is None
    }


def labels_of(row: Row, room: float) -> Iterator[tuple[float, float]]:
    """Yield where a row's ratios are written, and which: in long runs, and where slopes turn.

    Args:
        row: The ratio of each layer.
        room: What a number needs, in layers.
    """
    runs = [(list(layers), ratio) for ratio, layers in groupby(sorted(row), key=row.__getitem__)]
    free = -math.inf
    for i, (layers, ratio) in enumerate(runs):
        before = runs[i - 1][1] if i else math.nan
        after = runs[i + 1][1] if i + 1 < len(runs) else math.nan
        turns = not (before < ratio < after or before > ratio > after)
        first, end = layers[0], layers[-1] + 1
        x = min(max((first + end) / 2, room / 2), max(row) + 1 - room / 2)
        if (end - first >= room or turns) and x - room / 2 >= free:
            yield x, ratio
            free = x + room / 2
