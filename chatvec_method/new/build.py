"""From the names of base, chat and cp to a recipe in which a check finds nothing.

The plain recipe of three roles is surveyed and checked; the findings' own fixes build the rest, and
each says why. What a check warns of and no recipe can mend, but a person may know better, is
accepted in the recipe where everybody sees it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from mergekit.options import MergeOptions

from chatvec_method.checks.findings import Finding, Severity
from chatvec_method.checks.report import Report, check_survey
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.plan import plan_merge
from chatvec_method.facts.survey import resurveyed
from chatvec_method.new.choices import (
    choose_base_model,
    choose_dtype,
    choose_template,
    choose_tokenizer_source,
)
from chatvec_method.new.draft import Draft, plain_draft
from chatvec_method.new.preface import about, opening_comment
from chatvec_method.new.text import recipe_text
from chatvec_method.recipe.file import METADATA, Recipe, parse_recipe
from chatvec_method.schedules.cases import Schedule
from chatvec_method.schedules.into_recipe import with_schedule
from chatvec_method.schedules.spec import parse_shape

SWAPPED = "roles-look-swapped"
OF_THIS_MACHINE = ("disk-too-small", "memory-tight")
"""Findings that say nothing of the recipe."""
WITH_REASON = ("marker-untrained",)
"""Advice that a recipe made for these models follows."""


@dataclass(frozen=True)
class NewRecipe:
    """A recipe that was written, and what is to be said of it."""

    recipe: Recipe
    report: Report
    """Of the recipe as it is written."""
    accepted: tuple[str, ...]
    """What a check warns of and the recipe accepts, in words."""


def build_recipe(
    base: str | None,
    chats: Sequence[str],
    cp: str,
    *,
    vectors: Sequence[str] = (),
    ratios: Sequence[Any] = (1.0,),
    schedule: str | None = None,
    language: str | None = None,
    file: str = "recipe.yaml",
    options: MergeOptions | None = None,
    accept: Collection[str] = (),
) -> NewRecipe:
    """Return a recipe for base, chat models and cp, or for vectors and cp.

    Args:
        base: The model that all others were trained from; None where there are vectors alone.
        chats: Those whose vectors are added.
        cp: The model that they are added to.
        vectors: Chat vectors as files, which are added, too.
        ratios: One for all chat models and vectors, or one for each; as a recipe has them.
        schedule: A shape in place of ratios, as `chatvec schedule` takes it.
        language: Of cp, as in `ko`; None for what its card tells.
        file: What the recipe will be called, for its opening comment.
        options: mergekit's, of which `trust_remote_code` counts.
        accept: Warnings to accept although they say that the names are wrong.

    Raises:
        ChatVecError: A model cannot be had, or no recipe of these models can be right.
    """
    options = options or MergeOptions()
    given = _for_each(ratios, [*chats, *vectors])
    draft = plain_draft(base, chats, vectors, cp, given, options)
    _refuse_swapped(draft, accept)
    choose_dtype(draft)
    choose_base_model(draft)
    draft.mend()
    draft.follow(*WITH_REASON)
    choose_tokenizer_source(draft)
    draft.explain(("tokenizer",), "tokens-of-cp")
    choose_template(draft)
    draft.mend()
    accepted = _accept(draft, accept)
    report = draft.check()
    block = about(draft.survey, draft.roles, report.cost, language)
    draft.raw[METADATA] = {**block, **draft.raw[METADATA]}
    text = recipe_text(draft, opening_comment(draft.survey, draft.roles, block, file))
    if schedule is not None:
        text = _scheduled(text, file, schedule, draft)
    recipe = parse_recipe(text, file)
    return NewRecipe(recipe, check_survey(resurveyed(draft.survey, recipe)), accepted)


def _for_each(ratios: Sequence[Any], chats: Sequence[str]) -> Sequence[Any]:
    if len(ratios) == 1:
        return list(ratios) * len(chats)
    if len(ratios) != len(chats):
        raise ChatVecError(
            f"there are {len(ratios)} ratios for {len(chats)} chat models and vectors.",
            "Write one for all, or one for each.",
        )
    return ratios


def _refuse_swapped(draft: Draft, accept: Collection[str]) -> None:
    """Refuse names that are in each other's place, as their cards or a check tell."""
    roles, models = draft.roles, draft.survey.models
    for other in (roles.cp, *roles.chats) if roles.bases else ():
        parents = models[roles.base].card.base_model
        listed = [parents] if isinstance(parents, str) else parents or []
        if other.model.path in listed:
            raise ChatVecError(
                f"{roles.base} is to be base, and its card says that it was made from {other}.",
                f"Exchange the two: `--base {other}`.",
                code=SWAPPED,
            )
    for finding in draft.check().findings:
        if finding.code == SWAPPED and SWAPPED not in accept:
            raise ChatVecError(f"{finding.place}: {finding.message}", finding.fix, SWAPPED)


def _accept(draft: Draft, accept: Collection[str]) -> tuple[str, ...]:
    """Have the recipe accept what it cannot mend, and refuse what nobody can accept."""
    findings = [
        finding
        for finding in draft.check().findings
        if finding.severity is not Severity.ADVICE and finding.code not in OF_THIS_MACHINE
    ]
    for finding in findings:
        wrong = finding.severity is Severity.ERROR and finding.code not in accept
        if wrong or not finding.acceptable:
            raise ChatVecError(f"{finding.place}: {finding.message}", finding.fix, finding.code)
    if not findings:
        return ()
    codes = list(dict.fromkeys(finding.code for finding in findings))
    draft.write((METADATA, "accept"), codes, *map(_accepted, findings))
    return tuple(map(_accepted, findings))


def _accepted(finding: Finding) -> str:
    about = "" if finding.place in finding.message else f"{finding.place}: "
    return f"{finding.code}, accepted: {about}{finding.message}"


def _scheduled(text: str, file: str, schedule: str, draft: Draft) -> str:
    """Return a recipe's text with a schedule for each of its chat models."""
    models, options = draft.survey.models, draft.survey.options
    numbers = Schedule(parse_shape(schedule))
    for chat in draft.roles.chats:
        text = with_schedule(
            parse_recipe(text, file),
            numbers,
            lambda recipe: plan_merge(recipe.config, models, options),
            str(chat),
        )
    return text
