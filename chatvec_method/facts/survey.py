"""All that is known of a merge before any weight is read.

The recipe, the models it names, the ratio of every tensor, the output's vocabulary, its tensors and
its chat format. What cannot be found out is left out, with the error that says why, so that a check
can still tell the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mergekit.common import ModelReference
from mergekit.options import MergeOptions

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.chat_format import ChatFormat, chat_format
from chatvec_method.facts.models import Model, look_up_all
from chatvec_method.facts.plan import MergePlan, plan_merge
from chatvec_method.facts.vocabulary import Vocabulary, align_vocabularies
from chatvec_method.recipe.file import Recipe


@dataclass(frozen=True)
class Survey:
    """What a recipe's merge will be."""

    recipe: Recipe
    options: MergeOptions
    models: Mapping[ModelReference, Model]
    """Those that could be looked up, in the order of the recipe."""
    plan: MergePlan | None
    vocabulary: Vocabulary | None
    """How tokens are matched; None without `tokenizer:`, where rows are."""
    tokens: Mapping[str, int] | None
    """The output's tokens and their ids."""
    format: ChatFormat | None
    problems: tuple[ChatVecError, ...]
    """Why something is missing above. Without problems, only `vocabulary` may be None."""


def survey(recipe: Recipe, options: MergeOptions) -> Survey:
    """Find out what a recipe's merge will be, of the models' small files alone."""
    models, problems = look_up_all(_in_order(recipe), options.trust_remote_code)
    plan = vocabulary = tokens = output_format = None
    try:
        if not problems:
            plan = plan_merge(recipe.config, models, options)
            vocabulary = align_vocabularies(plan, models, options.trust_remote_code)
            tokens = _output_tokens(recipe, models, vocabulary)
            output_format = chat_format(recipe.config, plan.roles, models, tokens or {})
    except ChatVecError as error:
        problems.append(error)
    return Survey(recipe, options, models, plan, vocabulary, tokens, output_format, tuple(problems))


def _in_order(recipe: Recipe) -> list[ModelReference]:
    """Return the models in the order in which the recipe lists them (mergekit's is by hash)."""
    config = recipe.config
    parts = [config, *(config.modules or {}).values()]
    listed = [entry.model for part in parts for entry in part.models or ()]
    slices = [each for part in parts for each in part.slices or ()]
    sliced = [source.model for each in slices for source in each.sources]
    return list(dict.fromkeys([*listed, *sliced, *config.referenced_models()]))


def _output_tokens(
    recipe: Recipe, models: Mapping[ModelReference, Model], vocabulary: Vocabulary | None
) -> Mapping[str, int] | None:
    if vocabulary is not None:
        return vocabulary.ids
    donor = recipe.config.base_model
    known = models[donor].tokenizer if donor in models else None
    return known.ids if known else None
