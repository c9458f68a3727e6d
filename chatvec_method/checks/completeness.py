"""Tensors that stock mergekit would leave out or cannot merge, and those that only cp has."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from chatvec_method.checks.findings import Finding, advice, error
from chatvec_method.facts.plan import MergePlan, PlannedTensor
from chatvec_method.facts.survey import Survey

NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def completeness_findings(survey: Survey) -> Iterator[Finding]:
    """Find what becomes of tensors that mergekit, or another model than cp, does not know."""
    plan = survey.plan
    if plan is None:
        return
    if plan.mixed:
        yield from _language_models(survey, plan)
    else:
        yield from _dropped_by_stock(plan)
        yield from _renamed_by_stock(plan)
    yield from _kept(plan)


def _dropped_by_stock(plan: MergePlan) -> Iterator[Finding]:
    dropped = [tensor for tensor in plan.tensors if not tensor.by_mergekit]
    if dropped:
        yield advice(
            "stock-drops-tensors",
            plan.roles.cp,
            f"stock mergekit-yaml would leave out {_named(dropped)}, without a word: it does not "
            "know them, or not under these names.",
            "Use `chatvec merge`, which merges them. `chatvec finish` cannot bring them back.",
        )


def _renamed_by_stock(plan: MergePlan) -> Iterator[Finding]:
    renamed = [tensor for tensor in plan.tensors if tensor.in_stock is not None]
    if renamed:
        joined = sorted({NUMBER.sub("N", tensor.in_stock or "") for tensor in renamed})
        yield advice(
            "stock-renames-tensors",
            plan.roles.cp,
            f"stock mergekit-yaml would write {_named(renamed)} as transformers 5 holds them "
            f"({', '.join(joined[:3])}), which transformers 4 and other programs do not know: they "
            "make up what they do not find.",
            "Use `chatvec merge`, which keeps the names of cp's files.",
        )


def _kept(plan: MergePlan) -> Iterator[Finding]:
    cp = plan.roles.cp
    kept = [
        tensor
        for tensor in plan.tensors
        if tensor.has_no_vector and not any(s for m, s in tensor.sources.items() if m != cp)
    ]
    if kept:
        yield advice(
            "tensors-kept",
            cp,
            f"base and chat have no {_named(kept, 'nor')}: they stay cp's, at any ratio.",
            "Nothing, if cp is meant to have parts of its own.",
        )


def _language_models(survey: Survey, plan: MergePlan) -> Iterator[Finding]:
    """Whether models of several architectures have a language model in common."""
    roles, donor = plan.roles, plan.config.base_model
    inside = [t for t in plan.tensors if t.module == plan.module and t.layer is not None]
    alone = [tensor for tensor in inside if tensor.has_no_vector]
    architectures = {
        model: (survey.models[model].config.architectures or ["?"])[0] for model in roles.all
    }
    listed = ", ".join(f"{model} {name}" for model, name in architectures.items())
    if alone:
        yield error(
            "not-related",
            roles.cp,
            f"the models are of several architectures ({listed}), and of the language model of cp "
            f"base and chat have no {_named(alone, 'nor')}.",
            "Write models whose language model was trained from the same base.",
        )
        return
    yield advice(
        "stock-refuses-architectures",
        "models",
        f"the models are of several architectures ({listed}), with a language model in common: "
        "the chat vector goes there, and stock mergekit-yaml merges models of one architecture "
        "only.",
        "Use `chatvec merge`.",
    )
    if donor is not None and architectures.get(donor) != architectures[roles.cp]:
        yield error(
            "base-model-of-another-architecture",
            "base_model",
            f"the output has the tensors of {roles.cp}, and would get the config of {donor}, which "
            "is of another architecture.",
            f"Write `base_model: {roles.cp}`",
        )


def _named(tensors: Sequence[PlannedTensor], word: str = "and") -> str:
    """Return how many tensors there are and what they are called, numbers left out."""
    patterns = Counter(NUMBER.sub("N", tensor.name) for tensor in tensors)
    shown = [name for name, _ in patterns.most_common(3)]
    more = f" {word} others" if len(patterns) > len(shown) else ""
    count = "1 tensor" if len(tensors) == 1 else f"{len(tensors)} tensors"
    return f"{count} ({', '.join(shown)}{more})"
