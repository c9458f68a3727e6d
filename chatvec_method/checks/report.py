"""What is wrong with a recipe and its models, told before the merge and with what to write instead.

A check reads only small files and headers, unless it is asked to go deep. Findings are data, so
that tables, JSON and tests read the same thing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mergekit.config import (
    InputSliceDefinition,
    MergeConfiguration,
    OutputModuleDefinition,
    OutputSliceDefinition,
)
from mergekit.options import MergeOptions

from chatvec_method.checks.accepted import accept_findings, divided, with_way_to_accept
from chatvec_method.checks.adapters import adapter_findings
from chatvec_method.checks.completeness import completeness_findings
from chatvec_method.checks.findings import Finding, Severity, compatible_edits, error
from chatvec_method.checks.keys import key_findings
from chatvec_method.checks.models import model_findings
from chatvec_method.checks.quantised import quantised_findings
from chatvec_method.checks.ratios import ratio_findings
from chatvec_method.checks.readiness import readiness_findings
from chatvec_method.checks.roles import role_findings
from chatvec_method.checks.room import cost_findings
from chatvec_method.checks.stock import Difference, differences, stock_findings
from chatvec_method.checks.vectors import vector_findings
from chatvec_method.checks.vocabulary import vocabulary_findings
from chatvec_method.checks.weights import weight_findings
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.cost import Cost, cost_of
from chatvec_method.facts.survey import Survey, survey
from chatvec_method.method.refusals import check_recipe
from chatvec_method.method.roles import ROLES, Roles, assign_roles
from chatvec_method.recipe.edits import Edit
from chatvec_method.recipe.file import Recipe

MOST_OF_A_KIND = 50
LAYERS = "same number of layers"
"""What mergekit says where cp is deeper, which is told better."""

__all__ = ["Finding", "Report", "Severity", "check", "check_survey"]


@dataclass(frozen=True, repr=False)
class Report:
    """What a check found out."""

    survey: Survey
    roles: Roles | None
    """Who is who, as far as the recipe tells."""
    findings: tuple[Finding, ...]
    """Errors first."""
    accepted: tuple[Finding, ...]
    """What the recipe says that it knows, by `chatvec: {accept: [...]}`; not among the findings."""
    cost: Cost
    differences: tuple[Difference, ...]

    def __repr__(self) -> str:
        errors, warnings, advice = (len(self.of(severity)) for severity in Severity)
        counts = f"{errors} errors, {warnings} warnings, {advice} advice"
        return f"<Report on {self.survey.recipe.name}: {counts}>"

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings)) or "Nothing found."

    def of(self, severity: Severity) -> list[Finding]:
        """Return the findings of one severity."""
        return [finding for finding in self.findings if finding.severity is severity]

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The changes to the recipe that mend errors and warnings; advice is left to people.

        Some may have to wait for others: they come up when the changed recipe is checked again.
        """
        return compatible_edits(f for f in self.findings if f.severity is not Severity.ADVICE)


def check(
    recipe: Recipe,
    options: MergeOptions,
    out: Path | None = None,
    *,
    deep: bool = False,
    on_tensor: Callable[[str], None] = lambda _: None,
) -> Report:
    """Return all that can be said of a recipe before its merge.

    Args:
        recipe: The recipe.
        options: As for the merge.
        out: Where the output will be; the current folder if that is not known yet.
        deep: Read all weights too.
        on_tensor: Is told the name of every tensor that has been read, if deep.
    """
    return check_survey(survey(recipe, options), out, deep=deep, on_tensor=on_tensor)


def check_survey(
    surveyed: Survey,
    out: Path | None = None,
    *,
    deep: bool = False,
    on_tensor: Callable[[str], None] = lambda _: None,
) -> Report:
    """Return all that can be said of a merge that has been surveyed; arguments as `check`'s."""
    recipe = surveyed.recipe
    roles = surveyed.plan.roles if surveyed.plan else _roles(recipe.config)
    cost = cost_of(surveyed, out or Path())
    judged = list(_findings(surveyed, roles, cost))
    if deep:
        judged += weight_findings(surveyed, on_tensor)
    refused = (*surveyed.problems, *_refusals(surveyed))
    # What mergekit or the method refuses too, no recipe can accept.
    certain = {problem.code for problem in refused}
    judged = [replace(f, certain=True) if f.code in certain else f for f in judged]
    # A check tells it with edits, or of more models.
    told = {finding.code for finding in judged if finding.severity is Severity.ERROR}
    judged += [
        error(problem.code, recipe.name, problem.problem, problem.fix, certain=True)
        for problem in refused
        if problem.code not in told and not ("depth-expanded" in told and LAYERS in problem.problem)
    ]
    unique = {(f.code, f.place, f.message): f for f in judged}
    order = list(Severity)
    in_order = sorted(_readable(unique.values()), key=lambda each: order.index(each.severity))
    findings, accepted = divided(in_order, recipe)
    return Report(
        surveyed,
        roles,
        tuple(with_way_to_accept(finding, recipe) for finding in findings),
        accepted,
        cost,
        tuple(differences(surveyed)),
    )


def _readable(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield findings, of each kind no more than anybody reads."""
    of_kind: Counter[str] = Counter()
    for finding in findings:
        of_kind[finding.code] += 1
        if of_kind[finding.code] <= MOST_OF_A_KIND:
            yield finding


def _findings(surveyed: Survey, roles: Roles | None, cost: Cost) -> Iterator[Finding]:
    yield from key_findings(surveyed.recipe)
    yield from accept_findings(surveyed.recipe)
    yield from _base_model(surveyed.recipe, roles)
    yield from role_findings(surveyed, roles)
    yield from model_findings(surveyed, roles)
    yield from adapter_findings(surveyed)
    yield from vector_findings(surveyed, roles)
    yield from quantised_findings(surveyed)
    yield from completeness_findings(surveyed)
    yield from vocabulary_findings(surveyed, roles)
    yield from ratio_findings(surveyed)
    yield from readiness_findings(surveyed)
    yield from stock_findings(surveyed)
    yield from cost_findings(cost)


def _refusals(surveyed: Survey) -> Iterator[ChatVecError]:
    """Return what the method refuses in a recipe, also where a model could not be looked up.

    Without the models' configs mergekit plans nothing, and so does not ask the method.
    """
    config = surveyed.recipe.config
    if surveyed.models.keys() >= set(config.referenced_models()):
        return
    modules = config.modules or {
        "default": OutputModuleDefinition(models=config.models, slices=config.slices)
    }
    try:
        check_recipe(config.model_copy(update={"modules": _in_slices(modules)}))
    except ChatVecError as problem:
        yield problem


def _in_slices(modules: Mapping[str, OutputModuleDefinition]) -> dict[str, OutputModuleDefinition]:
    """Return modules in the form that mergekit's planner gives them, a layer for each model."""
    return {
        name: OutputModuleDefinition(
            slices=module.slices
            or [
                OutputSliceDefinition(
                    sources=[
                        InputSliceDefinition(
                            model=entry.model, layer_range=(0, 1), parameters=entry.parameters
                        )
                        for entry in module.models or []
                    ]
                )
            ],
            parameters=module.parameters,
        )
        for name, module in modules.items()
    }


def _roles(config: MergeConfiguration) -> Roles | None:
    """Return who is who, as far as a recipe that is refused tells."""
    parts = list((config.modules or {}).values()) or [config]
    slices = parts[0].slices
    sources = parts[0].models or (slices[0].sources if slices else [])
    held = {source.model: (source.parameters or {}).get("role") for source in sources}
    if any(role not in ROLES for role in held.values()):
        return None
    try:
        return assign_roles(held, "the recipe")
    except ChatVecError:
        return None


def _base_model(recipe: Recipe, roles: Roles | None) -> Iterator[Finding]:
    if recipe.config.base_model is None and roles is not None:
        yield error(
            "no-base-model",
            "base_model",
            "the recipe has no base_model, so stock mergekit would take config and tokenizer of "
            "any of the models, by chance.",
            f"Write `base_model: {roles.cp}`",
            (Edit(("base_model",), str(roles.cp)),),
        )
