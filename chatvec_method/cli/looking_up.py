"""A recipe's survey, with a line on the terminal that tells which model is being asked for."""

from __future__ import annotations

from mergekit.options import MergeOptions

from chatvec_method.facts.survey import Survey, survey
from chatvec_method.progress import status
from chatvec_method.recipe.file import Recipe


def looked_up(recipe: Recipe, options: MergeOptions) -> Survey:
    """Return the survey of a recipe; the models of a hub may take seconds each."""
    with status(quiet=options.quiet) as say:
        return survey(recipe, options, on_model=lambda model: say(f"Looking up {model} ..."))
