"""Heads that are the embeddings once more (tied), that only ought to be, or that are missing."""

from __future__ import annotations

from collections.abc import Iterator

from chatvec_method.checks.findings import Finding, advice, error
from chatvec_method.checks.rows import Rows
from chatvec_method.facts.models import config_value
from chatvec_method.facts.plan import MergePlan
from chatvec_method.facts.survey import Survey


def head_findings(survey: Survey, plan: MergePlan) -> Iterator[Finding]:
    """Find models of which some are tied and some are not, or that are and have another head."""
    tied = {
        model: bool(getattr(survey.models[model].config, "tie_word_embeddings", False))
        for model in plan.roles.all
    }
    yield from _missing_head(plan)
    if len(set(tied.values())) == 1:
        if all(tied.values()):
            yield from _heads_of_their_own(survey, plan)
        return
    listed = ", ".join(
        f"{model} {'tied' if is_tied else 'untied'}" for model, is_tied in tied.items()
    )
    donor = plan.config.base_model
    head = any(tensor.kind == "head" for tensor in plan.tensors)
    if head and tied.get(donor):
        yield advice(
            "tied-head",
            "tie_word_embeddings",
            f"some models have a head of their own and some use their embeddings ({listed}). The "
            "output gets a head, but stock mergekit writes `tie_word_embeddings: true`, and what "
            "goes by that uses the embeddings in its place.",
            "Use `chatvec merge`, or `chatvec finish` on the output: they write false.",
        )
    else:
        yield advice(
            "tied-head",
            "tie_word_embeddings",
            f"some models have a head of their own and some use their embeddings ({listed}), which "
            "then stand for their head.",
            "Nothing, if that is meant; `- {filter: lm_head, value: 0}` keeps cp's head.",
        )


def _missing_head(plan: MergePlan) -> Iterator[Finding]:
    """Find an output whose config tells of a head that it does not get."""
    donor = plan.config_donor
    if donor is None or config_value(donor.model.config, "tie_word_embeddings"):
        return
    names = {tensor.name for tensor in plan.tensors}
    for weight in plan.architecture.all_weights(donor.model.config):
        if weight.tied_names and weight.name not in names:
            yield error(
                "head-missing",
                donor.model,
                f"its config says `tie_word_embeddings: false`, and no model has {weight.name}.",
                "Download or save the model again; a model whose head is its embeddings says "
                "`tie_word_embeddings: true` in its config.json.",
            )
            return


def _heads_of_their_own(survey: Survey, plan: MergePlan) -> Iterator[Finding]:
    """Find heads that are stored and are not the embeddings, as their model's config says.

    One row of each is compared; a head that is the embeddings once more does no harm.
    """
    kinds = {tensor.kind: tensor for tensor in reversed(plan.tensors)}
    head, embeddings = kinds.get("head"), kinds.get("embeddings")
    if head is None or embeddings is None or head.ratios != embeddings.ratios:
        return
    for model in plan.roles.all:
        sources = head.sources.get(model), embeddings.sources.get(model)
        rows = Rows(survey.models[model])
        own, due = (rows.middle(s.weights[0].name) if s and s.mapped else None for s in sources)
        if own is not None and due is not None and not own.equal(due):
            yield error(
                "head-not-tied",
                model,
                f"its config says `tie_word_embeddings: true`, and its {head.name} is not "
                f"{embeddings.name} once more. Some programs use the one, some the other.",
                "Write `tie_word_embeddings: false` into its config.json if it has a head of its "
                "own, or else remove the head from its files.",
            )
