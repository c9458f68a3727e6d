"""A vector where a model should be: chat − base, or cp − base, published as if it were a model.

Such a folder has the config and the shapes of a model. A few rows tell it from one: what was
trained from base still resembles it, and a difference is short and points elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mergekit.common import ModelReference
from torch import Tensor

from chatvec_method.checks.findings import Finding, error
from chatvec_method.checks.rows import Likeness, can_be_read, likeness, read_row
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
    models = [survey.models[model] for model in roles.all if model in survey.models]
    rows = _rows(survey, [model.reference for model in models if can_be_read(model)])
    for model, own in rows.items():
        for other, others in rows.items():
            alike = likeness(list(zip(own, others, strict=True)))
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


def _rows(
    survey: Survey, references: Sequence[ModelReference]
) -> dict[ModelReference, list[Tensor]]:
    """Return the middle row of some matrices, the same of all models whose rows can be read.

    Norms are left out: where they are stored as what is added to 1, as Gemma's are, those of a
    model are short too.
    """
    models = [survey.models[reference] for reference in references]
    rows: dict[ModelReference, list[Tensor]] = {reference: [] for reference in references}
    for headers in _evenly(list(_matrices(survey, models))):
        row = headers[0].shape[0] // 2
        read = [read_row(m, header, row) for m, header in zip(models, headers, strict=True)]
        whole = [each for each in read if each is not None]
        if len(whole) == len(read):
            for reference, each in zip(references, whole, strict=True):
                rows[reference].append(each)
    return rows


def _matrices(survey: Survey, models: Sequence[Model]) -> Iterator[list[TensorHeader]]:
    """Yield the headers of each matrix that all models have in one shape."""
    for headers in _headers(survey, models):
        there = [header for header in headers if header is not None]
        shapes = {header.shape for header in there}
        if len(there) == len(models) and len(shapes) == 1 and len(shapes.pop()) > 1:
            yield there


def _headers(survey: Survey, models: Sequence[Model]) -> Iterator[list[TensorHeader | None]]:
    """Yield what each model has of every tensor, by the plan, or without one by its name."""
    if survey.plan is not None:
        for tensor in survey.plan.tensors:
            yield [tensor.header(model.reference) for model in models]
    elif models:
        for name in models[0].tensors or {}:
            yield [(model.tensors or {}).get(name) for model in models]


def _evenly(matrices: Sequence[list[TensorHeader]]) -> list[list[TensorHeader]]:
    step = max(len(matrices) / MATRICES, 1)
    return [matrices[int(i * step)] for i in range(min(MATRICES, len(matrices)))]
