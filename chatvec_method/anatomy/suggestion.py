"""A schedule that follows from what the anatomy saw: a place to begin, not a result."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mergekit.common import ModelReference

from chatvec_method.anatomy.report import Anatomy
from chatvec_method.anatomy.sums import Sums
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.plan import PlannedTensor, slices_of
from chatvec_method.schedules.cases import Schedule, Tensor, as_yaml, ratio_cases
from chatvec_method.schedules.spec import Shape

HEURISTIC = (
    "A heuristic, tried by nobody on these models: the ratio is lowered where",
    "what chat and cp have changed pulls apart more than chance has it. Measure",
    "before you trust it.",
)


def agreement(sums: Sums) -> float:
    """Return by what the heuristic multiplies a ratio: min(1, 1 + Σ τλ / Σ |τλ|).

    It is 1 up to a weighted conflict of 0.5, which is chance, and falls to 0 where all pulls apart.
    """
    return min(1.0, 1.0 + sums.product / sums.overlap) if sums.overlap else 1.0


def suggested_schedule(anatomy: Anatomy, chat: ModelReference) -> str:
    """Return a `ratio:` for a chat vector, as YAML that says what it is."""
    plan = anatomy.survey.plan
    assert plan is not None
    pair = (chat, anatomy.roles.cp)
    planned = [tensor.planned for tensor in anatomy.tensors]
    kinds = {
        kind: _shape(anatomy, chat, kind)
        for kind in ("attention", "MLP")
        if any(t.layer is not None and t.kind == kind for t in planned)
    }
    outside = {
        name: round(agreement(sums) * _ratio(planned, chat, None, kind), 2)
        for (layer, kind), sums in anatomy.by_layer_and_kind(pair).items()
        if layer is None and (name := {"norms": "final_norm"}.get(kind, kind)) != "other"
    }
    lines: list[str] = []
    for part in slices_of(plan):
        inside = [t for t in planned if t.layer is None or t.layer in part]
        tensors = [Tensor(t.inputs[chat].name, t.kind, t.layer) for t in inside]
        try:
            schedule = Schedule(_shape(anatomy, chat, None), kinds, **outside)
            cases = ratio_cases(schedule, tensors, plan.layers, part)
        except ChatVecError:  # names that no filter can tell apart
            schedule = Schedule(_shape(anatomy, chat, None), {}, **outside)
            cases = ratio_cases(schedule, tensors, plan.layers, part)
        if part != range(plan.layers):
            lines.append(f"# In the slice with layers {part.start} to {part.stop - 1}:")
        lines += as_yaml(cases)
    return "\n".join([*(f"# {line}" for line in HEURISTIC), *lines])


def _shape(anatomy: Anatomy, chat: ModelReference, kind: str | None) -> Shape:
    """Return the suggested ratio of a kind of tensor in each layer, or of all kinds together."""
    pair = (chat, anatomy.roles.cp)
    by_layer = anatomy.by_layer(pair)
    by_kind = anatomy.by_layer_and_kind(pair)
    planned = [tensor.planned for tensor in anatomy.tensors]
    numbers = [
        round(
            agreement(by_kind.get((layer, kind or ""), by_layer[layer]))
            * _ratio(planned, chat, layer, kind),
            2,
        )
        for layer in anatomy.layers
    ]
    return Shape("where both agree", lambda _: np.array(numbers))


def _ratio(
    planned: Sequence[PlannedTensor], chat: ModelReference, layer: int | None, kind: str | None
) -> float:
    """Return the recipe's ratio of a kind of tensor in a layer, the mean if there are several."""
    ratios = [t.ratios[chat] for t in planned if t.layer == layer and kind in (None, t.kind)]
    return sum(ratios) / len(ratios) if ratios else 0.0
