"""How tests look at what a recipe's merge will be."""

from __future__ import annotations

from typing import Any

import yaml
from conftest import Recipe
from mergekit.options import MergeOptions

from chatvec_method.facts.survey import ReadySurvey, Survey, survey
from chatvec_method.recipe.file import parse_recipe


def surveyed(recipe: Recipe | str, **options: Any) -> Survey:
    """Return what is known of a recipe's merge; `options` are mergekit's."""
    text = recipe if isinstance(recipe, str) else yaml.safe_dump(recipe, allow_unicode=True)
    return survey(parse_recipe(text, "recipe.yaml"), MergeOptions(**options))


def ready(recipe: Recipe | str, **options: Any) -> ReadySurvey:
    """Return what is known of the merge of a recipe in which nothing is wrong."""
    return surveyed(recipe, **options).ready()
