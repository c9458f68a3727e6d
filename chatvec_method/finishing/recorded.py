"""Which commits of the models an output was made from, kept in the recipe that lies beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.finishing.output import RECIPE_FILE
from chatvec_method.recipe.pins import commits_in, pinned
from chatvec_method.recipe.text import parse_yaml, read_text
from chatvec_method.recipe.yaml_text import load_yaml


def with_commits_of(survey: ReadySurvey) -> ReadySurvey:
    """Return a survey whose recipe says, as text, which commits the survey is about.

    What mergekit takes of the recipe stays as it was, and so do the names of the models.
    """
    paths = {str(m.reference.model): m.commit for m in survey.models.values()}
    return _recorded(survey, {path: commit for path, commit in paths.items() if commit})


def with_commits_in(out: Path, survey: ReadySurvey) -> ReadySurvey:
    """Return a survey whose recipe says which commits an output was made from.

    As the recipe in the output's folder has them, where the one that is given does not say.
    """
    file = out / RECIPE_FILE
    if not file.is_file():
        return survey
    return _recorded(survey, commits_in(parse_yaml(read_text(file), str(file))))


def _recorded(survey: ReadySurvey, commits: Mapping[str, str]) -> ReadySurvey:
    recipe = survey.recipe
    try:
        text = pinned(recipe.text, commits)
    except ChatVecError:  # written so that nothing in it can be changed: then above it
        lines = (f"# {name} is that of the commit {commit}\n" for name, commit in commits.items())
        text = "".join(lines) + recipe.text
    return replace(survey, recipe=replace(recipe, text=text, raw=load_yaml(text)))
