"""A vector where a model should be: chat − base, or cp − base, published as if it were a model.

Such a folder has the config and the shapes of a model. A few rows tell it from one: what was
trained from base still resembles it, and a difference is short and points elsewhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from mergekit.common import ModelReference
from torch import Tensor

from chatvec_method.checks.findings import Finding, error
from chatvec_method.checks.rows import Likeness, Rows, likeness
from chatvec_method.facts.models import Model, TensorHeader
from chatvec_method.facts.survey import Survey
from chatvec_method.method.roles import Roles

MATRICES = 12
"""Of so many a row is read."""
SHORT, ELSEWHERE = 0.5, 0.5
"""A model's rows are about as long as base's and point the same way (cosines above 0.9); those of a
vector come to some hundredths of that length, and to cosines near 0."""


def vector_findings(survey: Survey, roles: Roles | None) -> Iterator[Finding]:
    """Find folders that hold a difference of two models."""
    if roles is None:
        return
    rows = _rows(survey, [survey.models[m] for m in roles.all if m in survey.models])
    for model, own in rows.items():
        for other, others in rows.items():
            alike = likeness([(own[name], others[name]) for name in own.keys() & others.keys()])
            if alike and alike.size < SHORT and abs(alike.cosine) < ELSEWHERE:
                yield _vector(roles, model, other, alike)
                break


def _vector(roles: Roles, model: ModelReference, whole: ModelReference, alike: Likeness) -> Finding:
    if model == roles.base:
        looks = "a difference of two models, and not like a base model"
        fix = "Write the model that the others were trained from."
    else:
        what = "a language vector, cp − base" if model == roles.cp else "a chat vector, chat − base"
        looks = f"{what}, and not like a {'cp' if model == roles.cp else 'chat'} model"
        fix = (
            f"Write the model itself; it can be made of {roles.base} and this with mergekit's "
            "`merge_method: linear`, `weight: 1` for both, `parameters: {normalize: false}` and "
            "`dtype: float32`."
        )
    return error(
        "looks-like-a-vector",
        model,
        f"it looks like {looks}: its weights are {alike.size:.2g} times as long as those of "
        f"{whole} and point elsewhere (a cosine of {alike.cosine:.2g}, of some rows).",
        fix,
    )


def _rows(survey: Survey, models: Sequence[Model]) -> dict[ModelReference, dict[str, Tensor]]:
    """Return the middle row of some matrices, by name, as far as each model's can be read.

    Norms are left out: where they are stored as what is added to 1, as Gemma's are, those of a
    model are short too.
    """
    rows: dict[ModelReference, dict[str, Tensor]] = {model.reference: {} for model in models}
    readers = [(model.reference, Rows(model)) for model in models]
    stored = _stored(survey, models)
    for name in _evenly([name for name, of_models in stored.items() if _is_matrix(of_models)]):
        for reference, reader in readers:
            row = reader.middle(stored[name][reference][0]) if reference in stored[name] else None
            if row is not None:
                rows[reference][name] = row
    return rows


def _stored(
    survey: Survey, models: Sequence[Model]
) -> dict[str, dict[ModelReference, tuple[str, TensorHeader]]]:
    """Return what each model has of every tensor, by the plan, or without one by its name."""
    stored: dict[str, dict[ModelReference, tuple[str, TensorHeader]]] = defaultdict(dict)
    for model in models:
        reference = model.reference
        if survey.plan is None:
            for name, header in (model.tensors or {}).items():
                stored[name][reference] = (name, header)
            continue
        for tensor in survey.plan.tensors:
            source = tensor.sources.get(reference)
            if source is not None and source.mapped:
                stored[tensor.name][reference] = (source.weights[0].name, source.header)
    return stored


def _is_matrix(stored: Mapping[ModelReference, tuple[str, TensorHeader]]) -> bool:
    shapes = {header.shape for _, header in stored.values()}
    return len(stored) > 1 and len(shapes) == 1 and len(shapes.pop()) > 1


def _evenly(names: Sequence[str]) -> list[str]:
    step = max(len(names) / MATRICES, 1)
    return [names[int(i * step)] for i in range(min(MATRICES, len(names)))]
