"""A vector where a model should be: chat − base, or cp − base, published as if it were a model.

Such a folder has the config and the shapes of a model. A few rows tell it from one: what was
trained from base still resembles it, and a difference is short and points elsewhere.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from mergekit.common import ModelReference
from torch import Tensor

from chatvec_method.checks.findings import Finding, error, warning
from chatvec_method.checks.rows import Likeness, Rows, likeness
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.models import Model, TensorHeader
from chatvec_method.facts.survey import Survey
from chatvec_method.method.roles import Roles
from chatvec_method.method.vector import vector_facts
from chatvec_method.weights.fingerprint import fingerprint_of, tensor_stored_as
from chatvec_method.weights.reading import Reader

MATRICES, NORMS = 12, 6
"""Of so many matrices a row is read, and of so many norms all."""
NORM = re.compile(r"(norm|\bln_|\bln\d)(?!.*bias$)", re.IGNORECASE)
ELSEWHERE = 0.5
"""A model's rows point where base's do (cosines above 0.9); those of a vector come to about 0."""
SHORT = 0.5
"""A vector's rows come to some hundredths of the length of base's."""
FLAT = 0.25
"""And so do its norms, which in a model are near 1; or around what is added to 1, as Gemma's are:
there those of a model are short too, and prove nothing by themselves."""
ANOTHER, UNSURE = 0.5, 0.8
"""Continual pretraining turns rows a little (cosines above 0.9), those of another base have 0."""


def vector_findings(survey: Survey, roles: Roles | None) -> Iterator[Finding]:
    """Find folders that hold a difference of two models, and vectors that are none."""
    if roles is None:
        return
    rows = _rows(survey, [survey.models[m] for m in roles.all if m in survey.models])
    yield from _under_other_roles(survey, roles)
    yield from _whole_models(roles, rows)
    yield from _of_another_base(survey, roles)
    yield from _rows_beside(survey, roles)
    for model, own in rows.items():
        if model in roles.vectors:
            continue
        for other, others in rows.items():
            if other in roles.vectors:
                continue
            alike = _likeness(own, others, matrices=True)
            if alike is None or abs(alike.cosine) >= ELSEWHERE:
                continue
            norms = _likeness(own, others, matrices=False)
            if alike.size < SHORT or (norms is not None and norms.size < FLAT):
                yield _vector(roles, model, other, alike)
                break


def _under_other_roles(survey: Survey, roles: Roles) -> Iterator[Finding]:
    for reference in roles.all:
        model = survey.models.get(reference)
        if model is None or reference in roles.vectors or vector_facts(model.config) is None:
            continue
        yield error(
            "vector-under-another-role",
            model,
            "it is a chat vector that `chatvec vector extract` wrote, and no model.",
            f"Write `role: vector` for it in place of `role: {roles.role_of(reference)}`.",
        )


def _whole_models(
    roles: Roles, rows: Mapping[ModelReference, Mapping[str, Tensor]]
) -> Iterator[Finding]:
    """Find models under `role: vector`, which would be added whole."""
    for vector in (chat for chat in roles.chats if chat in roles.vectors):
        others = (model for model in rows if model not in roles.vectors)
        for other in others:
            alike = _likeness(rows.get(vector, {}), rows[other], matrices=True)
            if alike is not None and abs(alike.cosine) >= ELSEWHERE:
                yield error(
                    "not-a-vector",
                    vector,
                    f"it looks like a whole model, and not like a difference of two: its weights "
                    f"point where those of {other} do (a cosine of {alike.cosine:.2g}, of some "
                    "rows).",
                    "Write `role: chat` for it, and its base beside it with `role: base`; "
                    "`chatvec vector extract --base BASE --chat CHAT OUT` makes a vector of both.",
                )
                break


def _of_another_base(survey: Survey, roles: Roles) -> Iterator[Finding]:
    """Find vectors of another base than cp's, by the rows of base that they keep."""
    cp, plan = survey.models.get(roles.cp), survey.plan
    if cp is None or plan is None:
        return
    reader = Rows(cp)
    for chat in roles.chats:
        model = survey.models.get(chat)
        if chat not in roles.vectors or model is None:
            continue
        pairs = []
        for name, row in fingerprint_of(model).items():
            tensor = tensor_stored_as(plan, chat, name)
            source = tensor.sources.get(roles.cp) if tensor else None
            own = reader.middle(source.weights[0].name) if source and source.mapped else None
            if own is not None and own.shape == row.shape:
                pairs.append((own, row))
        alike = likeness(pairs)
        if alike is None or alike.cosine >= UNSURE:
            continue
        facts = vector_facts(model.config)
        base = f" ({facts.base})" if facts and facts.base else ""
        report = error if alike.cosine < ANOTHER else warning
        yield report(
            "vector-of-another-base",
            chat,
            f"it is a vector of another base{base} than the one that {roles.cp} was trained from: "
            f"the rows of that base point elsewhere than cp's (a cosine of {alike.cosine:.2g})."
            if alike.cosine < ANOTHER
            else f"whether {roles.cp} was trained from the base of this vector{base} is not sure: "
            f"their rows have a cosine of {alike.cosine:.2g}, where a cp and its base have more "
            "than 0.9.",
            f"Write a vector of the model that {roles.cp} was trained from.",
        )


def _rows_beside(survey: Survey, roles: Roles) -> Iterator[Finding]:
    """Find vectors whose further files have no rows of their tensors."""
    if survey.plan is None:
        return
    reader = Reader(survey.plan.checkpoints)
    for vector in roles.vectors & survey.models.keys():
        model = survey.models[vector]
        facts, checkpoint = vector_facts(model.config), survey.plan.checkpoints[vector]
        if facts is None or model.folder is None or model.file_problem:
            continue
        try:
            for tensor in survey.plan.tensors:
                source = tensor.sources.get(vector)
                if tensor.weight.vocabulary_axis is not None and source and facts.added_tokens:
                    reader.added_rows(vector, source)
            for name in checkpoint.quantisation.weights if checkpoint.quantisation else ():
                reader.kept_rows(vector, name)
        except ChatVecError as problem:
            yield error("damaged-files", vector, problem.problem, problem.fix)


def _likeness(
    own: Mapping[str, Tensor], others: Mapping[str, Tensor], *, matrices: bool
) -> Likeness | None:
    """Return how a model's matrices, or its norms, lie to another's."""
    names = [name for name in own if name in others and (NORM.search(name) is None) is matrices]
    return likeness([(own[name], others[name]) for name in names])


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
    """Return a row of some matrices, and some norms, as far as each model's can be read."""
    rows: dict[ModelReference, dict[str, Tensor]] = {model.reference: {} for model in models}
    readers = [(model.reference, Rows(model)) for model in models]
    stored = _stored(survey, models)
    shapes = {name: _shape(of_models) for name, of_models in stored.items()}
    matrices = [n for n, shape in shapes.items() if len(shape) > 1 and not NORM.search(n)]
    norms = [n for n, shape in shapes.items() if len(shape) == 1 and NORM.search(n)]
    for name in (*_evenly(matrices, MATRICES), *_evenly(norms, NORMS)):
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


def _shape(stored: Mapping[ModelReference, tuple[str, TensorHeader]]) -> tuple[int, ...]:
    """Return the shape that a tensor has in all models that have it, () where it is another."""
    shapes = {header.shape for _, header in stored.values()}
    return shapes.pop() if len(stored) > 1 and len(shapes) == 1 else ()


def _evenly(names: Sequence[str], most: int) -> list[str]:
    step = max(len(names) / most, 1)
    return [names[int(i * step)] for i in range(min(most, len(names)))]
