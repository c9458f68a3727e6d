"""A recipe on its way: what it says so far, and why each of its keys is there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from mergekit.common import ModelReference
from mergekit.options import MergeOptions

from chatvec_method.checks.findings import Finding, Severity
from chatvec_method.checks.report import Report, check_survey
from chatvec_method.facts.survey import Survey, resurveyed, survey
from chatvec_method.method.roles import Roles, assign_roles
from chatvec_method.recipe.edits import Edit, edited
from chatvec_method.recipe.file import METADATA, METHOD, KeyPath, Recipe, parse_recipe

ROUNDS = 10
"""A fix may bring to light what it hid; so many times the recipe is checked again."""
DEEPEST = 2
"""Reasons are kept for keys, and for those right below them (`tokenizer: tokens:`)."""


@dataclass
class Draft:
    """A recipe, the survey of it, and the reasons for what it says."""

    raw: dict[str, Any]
    survey: Survey
    reasons: dict[KeyPath, list[str]] = field(default_factory=lambda: defaultdict(list))
    _report: Report | None = None

    @property
    def roles(self) -> Roles:
        """Who is who."""
        held = {
            ModelReference.parse(entry["model"]): entry["parameters"]["role"]
            for entry in self.raw["models"]
        }
        return assign_roles(held, "the new recipe")

    def check(self) -> Report:
        """Return what a check says of it."""
        if self._report is None or self._report.survey is not self.survey:
            self._report = check_survey(self.survey)
        return self._report

    def write(self, path: KeyPath, value: Any, *reasons: str) -> None:
        """Write a value, with the reasons for it."""
        self.apply((Edit(path, value),))
        self.give_reasons(path, *reasons)

    def apply(self, edits: Sequence[Edit]) -> None:
        """Make changes."""
        self.raw = yaml.safe_load(edited(as_yaml(self.raw), edits))
        self.survey = resurveyed(self.survey, _parsed(self.raw))

    def give_reasons(self, path: KeyPath, *reasons: str) -> None:
        """Note reasons for a key, each once."""
        held = self.reasons[path[:DEEPEST]]
        held += [reason for reason in reasons if reason not in held]

    def mend(self) -> None:
        """Write what a check would write, again and again until it has nothing left to write."""
        for _ in range(ROUNDS):
            report = self.check()
            if not report.edits:
                return
            for finding in report.findings:
                written = all(edit in report.edits for edit in finding.edits)
                if finding.severity is not Severity.ADVICE and written:
                    self._note(finding)
            self.apply(report.edits)

    def follow(self, *codes: str) -> None:
        """Write what a check only advises to, for some kinds of finding."""
        for finding in self.check().findings:
            if finding.code in codes and finding.edits:
                self._note(finding)
                self.apply(finding.edits)

    def explain(self, path: KeyPath, code: str) -> None:
        """Note what a check says of a key, as a reason for it."""
        if path[0] in self.raw:
            says = (in_words(f) for f in self.check().findings if f.code == code)
            self.give_reasons(path, *says)

    def _note(self, finding: Finding) -> None:
        if finding.edits:
            self.give_reasons(finding.edits[-1].path, in_words(finding))


def plain_draft(
    base: str | None,
    chats: Sequence[str],
    vectors: Sequence[str],
    cp: str,
    ratios: Sequence[Any],
    options: MergeOptions,
) -> Draft:
    """Return the plain recipe: base and the chat models, the vectors, and cp.

    Raises:
        ChatVecError: A model is not there, is gated, or has no readable config.
    """
    models = [{"model": base, "parameters": {"role": "base"}}] if base is not None else []
    added = [*(("chat", name) for name in chats), *(("vector", name) for name in vectors)]
    for (role, name), ratio in zip(added, ratios, strict=True):
        models.append({"model": name, "parameters": {"role": role, "ratio": ratio}})
    models.append({"model": cp, "parameters": {"role": "cp"}})
    raw = {METADATA: {}, "merge_method": METHOD, "base_model": cp, "models": models}
    surveyed = survey(_parsed(raw), options)
    for problem in surveyed.problems:
        if len(surveyed.models) < len(models):
            raise problem
    return Draft(raw, surveyed)


def in_words(finding: Finding) -> str:
    """Return what a finding says as a sentence, which names the model that it is about."""
    about = "/" in finding.place or finding.place.startswith("config.json")
    return f"{finding.place}: {finding.message}" if about else finding.message


def as_yaml(raw: Mapping[str, Any]) -> str:
    """Return a recipe as YAML, in the order of its keys."""
    text: str = yaml.safe_dump(dict(raw), sort_keys=False, allow_unicode=True, width=float("inf"))
    return text


def _parsed(raw: Mapping[str, Any]) -> Recipe:
    return parse_recipe(as_yaml(raw), "the new recipe")
