"""All that is known of a merge before any weight is read.

The recipe, the models it names, the ratio of every tensor, the output's vocabulary, its tensors and
its chat format. What cannot be found out is left out, with the error that says why, so that a check
can still tell the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from mergekit.common import ModelReference
from mergekit.options import MergeOptions

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.chat_format import ChatFormat, chat_format
from chatvec_method.facts.models import Model, TensorHeader, look_up_all
from chatvec_method.facts.output import expected_headers
from chatvec_method.facts.plan import MergePlan, plan_merge
from chatvec_method.facts.vocabulary import Vocabulary, align_vocabularies
from chatvec_method.recipe.file import Recipe
from chatvec_method.rendering import warm_up


@dataclass(frozen=True, repr=False)
class Survey:
    """What a recipe's merge will be, as far as it can be found out."""

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
    """Why something is missing above."""

    def __repr__(self) -> str:
        tensors = f"{len(self.plan.tensors)} tensors" if self.plan else "no plan"
        problems = "".join(f", {problem}" for problem in self.problems)
        return f"<Survey of {self.recipe.name}: {len(self.models)} models, {tensors}{problems}>"

    def ready(self) -> ReadySurvey:
        """Return the same with nothing missing.

        Raises:
            ChatVecError: The first problem, or what a merge cannot do without.
        """
        for problem in self.problems:
            raise problem
        assert self.plan is not None  # a problem says why
        assert self.format is not None
        for model in self.models.values():
            if model.adapter is not None and model.adapter.problem is not None:
                raise model.adapter.problem
            model.check_files()
        if self.tokens is None:
            donor = self.models[self.recipe.config.base_model]
            raise ChatVecError(
                f"model {donor} has no tokenizer that loads ({donor.tokenizer_problem}), so the "
                "output cannot have one.",
                "Download it again, with its tokenizer files, or write `tokenizer: {source: ...}` "
                "with another model and merge again.",
            )
        return ReadySurvey(
            self.recipe,
            self.options,
            self.models,
            self.plan,
            self.vocabulary,
            self.tokens,
            self.format,
        )


@dataclass(frozen=True, repr=False)
class ReadySurvey:
    """What a recipe's merge will be, all that a merge needs to know."""

    recipe: Recipe
    options: MergeOptions
    models: Mapping[ModelReference, Model]
    plan: MergePlan
    vocabulary: Vocabulary | None
    """How tokens are matched; None without `tokenizer:`, where rows are."""
    tokens: Mapping[str, int]
    """The output's tokens and their ids."""
    format: ChatFormat

    def __repr__(self) -> str:
        models, tensors = len(self.models), len(self.plan.tensors)
        return f"<ReadySurvey of {self.recipe.name}: {models} models, {tensors} tensors>"

    def ready(self) -> ReadySurvey:
        """Return itself: what takes a survey need not ask which kind it is."""
        return self

    @cached_property
    def expected(self) -> Mapping[str, TensorHeader | None]:
        """Dtype and shape of every tensor in the output, None where files are not here yet."""
        return expected_headers(self.plan, self.vocabulary)

    @cached_property
    def headers(self) -> Mapping[str, TensorHeader]:
        """Dtype and shape of every tensor in the output.

        Raises:
            ChatVecError: A tensor is not known: cp lacks it, or its files are not here yet.
        """
        for name, header in self.expected.items():
            if header is None:
                raise ChatVecError(
                    f"{name}: model {self.plan.roles.cp} has no such tensor, which others have.",
                    "Write the model from which the others came, or download it again.",
                )
        return {name: header for name, header in self.expected.items() if header is not None}


def survey(
    recipe: Recipe,
    options: MergeOptions,
    on_model: Callable[[ModelReference], None] = lambda _: None,
) -> Survey:
    """Find out what a recipe's merge will be, of the models' small files alone.

    Args:
        recipe: The recipe.
        options: As for the merge.
        on_model: Is told which model is looked up next.
    """
    warm_up()
    models, problems = look_up_all(_in_order(recipe), options.trust_remote_code, on_model)
    return _surveyed(recipe, options, models, problems)


def resurveyed(survey: Survey, recipe: Recipe) -> Survey:
    """Return the survey of another recipe of the same models, without looking them up again."""
    return _surveyed(recipe, survey.options, survey.models, [])


def survey_of_files(ready: ReadySurvey, files: Mapping[ModelReference, Model]) -> ReadySurvey:
    """Return a survey once more, after the files of some models have come.

    Args:
        ready: The survey from before.
        files: What the files tell of the models that were on the hub or had an adapter.
    """
    models = {**ready.models, **files}
    return _surveyed(ready.recipe, ready.options, models, []).ready()


def _surveyed(
    recipe: Recipe,
    options: MergeOptions,
    models: Mapping[ModelReference, Model],
    problems: list[ChatVecError],
) -> Survey:
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
    tokenizer = models[donor].tokenizer if donor in models else None
    return tokenizer.ids if tokenizer else None
