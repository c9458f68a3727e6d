"""A search from its recipe to what it found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from chatvec_method.errors import ChatVecError
from chatvec_method.evaluation import suite
from chatvec_method.evaluation.answers import kept_in, key_of
from chatvec_method.evaluation.by_prompt import (
    Figure,
    Marks,
    Place,
    figures_of,
    measured,
    places_of,
)
from chatvec_method.evaluation.evaluating import Wanted, questions_of, versions
from chatvec_method.evaluation.recipes import recipe_identity, revisions
from chatvec_method.evaluation.sweep import Questions
from chatvec_method.evaluation.targets import Live, RecipeTarget, Setting
from chatvec_method.facts.plan import MergePlan
from chatvec_method.facts.survey import Survey
from chatvec_method.recipe.file import Recipe
from chatvec_method.searching import objectives, sampling, starts, trials
from chatvec_method.searching.ending import better_beyond_doubt
from chatvec_method.searching.halves import halves_of
from chatvec_method.searching.kept import packed, rounded, unpacked
from chatvec_method.searching.life import Pace
from chatvec_method.searching.objectives import sought
from chatvec_method.searching.outcome import (
    Candidate,
    Outcome,
    Tried,
    best_uniform,
    pareto,
)
from chatvec_method.searching.recipes import with_ratios
from chatvec_method.searching.space import DEFAULT, HIGH, LOW, space_of
from chatvec_method.searching.storage import open_storage, open_study, told_in_one_line
from chatvec_method.searching.trials import NAME, UNIFORM, Ended, Start

MARKS, SECONDS, PROMPTS = "marks", "seconds", "prompts"
"""What a trial keeps: its marks, how long it took, and how many prompts it was asked."""
BEATEN_BY, SO_FAR = "beaten by", "values so far"
"""And where it ended early: which trial is better for certain, and its own values up to there."""
REPORT = "report"
"""How the attributes of a study begin that have the marks of the reporting half."""


@dataclass(frozen=True)
class Asked:
    """What a search is asked to do."""

    trials: int
    objectives: Sequence[str] = ()
    """As they are written; none for the default ones."""
    space: str = DEFAULT
    low: float = LOW
    high: float = HIGH
    fixed: Mapping[str, float] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Where:
    """Where a search keeps its trials."""

    storage: str
    study: str


@dataclass(frozen=True)
class News:
    """How far a search is."""

    done: int
    """Trials that are finished, by all workers."""
    wanted: int
    objectives: tuple[str, ...] = ()
    """Their names."""
    trial: FrozenTrial | None = None
    """One that this worker has just finished."""
    others: int | None = None
    """How many trials others are at, while this worker waits for them."""
    reported: tuple[int, int] | None = None
    """Of the recipes that are asked the reporting half, how many are done, and how many there
    are."""


OnNews = Callable[[News], None]


class Search:
    """A recipe's merge, and what is sought in it."""

    def __init__(
        self,
        survey: Survey,
        wanted: Wanted,
        asked: Asked,
        *,
        open_live: Callable[[Survey], Live],
        device: str,
    ) -> None:
        """Find out what is to be measured; no weights are read.

        Args:
            survey: Of the recipe.
            wanted: What can be measured.
            asked: What is to be done.
            open_live: Opens the recipe's merge.
            device: As torch names it, or "auto".

        Raises:
            ChatVecError: A task, a language or a figure is not there, the space does not fit the
                models, or there are too few prompts.
        """
        plan = survey.ready().plan
        questions = questions_of(wanted, writing_only=False)
        self.asked = asked
        self.space = space_of(plan, asked.space, low=asked.low, high=asked.high, fixed=asked.fixed)
        figures = figures_of(questions)
        self.sought = sought(asked.objectives or default_objectives(questions), figures)
        self.halves = halves_of(places_of(questions, self.figures), asked.seed)
        self.survey, self._plan, self._questions = survey, plan, questions
        self._target = RecipeTarget(
            survey.recipe.name,
            None,
            (),
            lambda: open_live(survey),
            device,
            moved=dict,
            revisions={},
            chats=self.space.chats,
        )
        self._agreements = cache(lambda: starts.agreements_of(survey))

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Return what is measured."""
        return self.sought.figures

    @property
    def settings(self) -> dict[str, Any]:
        """Return all on which a trial depends, as JSON has it: what workers must agree on."""
        places = [place.id for place in (*self.halves.search, *self.halves.report)]
        return {
            "recipe": key_of(recipe_identity(self.survey.recipe, list(self.survey.models))),
            "prompts": key_of(places),
            "objectives": [each.text for each in self.sought.objectives],
            "limits": [each.text for each in self.sought.constraints],
            "space": self.space.name,
            "bounds": [self.space.low, self.space.high],
            "fixed": dict(self.space.fixed),
            "seed": self.asked.seed,
        }

    def recipe(self, values: Mapping[str, float]) -> Recipe:
        """Return the recipe that some values of the space's numbers mean."""
        return with_ratios(self.survey.recipe, self.space.ratios(values), self._plan)

    def plan(self, recipe: Recipe) -> MergePlan:
        """Return the plan of a recipe that differs from the first one in its ratios alone."""
        return self._plan.with_ratios(recipe.config)

    def measure(self, values: Mapping[str, float], places: Sequence[Place]) -> dict[str, Marks]:
        """Set the ratios in memory, and ask some prompts."""
        return self.measure_recipe(self.recipe(values), places)

    def measure_recipe(self, recipe: Recipe, places: Sequence[Place]) -> dict[str, Marks]:
        """Ask the merge of a recipe that differs in its ratios alone some prompts."""
        setting = Setting(recipe, None)
        with kept_in(None) as answers:
            marks = measured(
                self._target,
                setting,
                self._questions,
                self.figures,
                places,
                answers,
                lambda *_: None,
            )
        return rounded(marks)

    def starts(self, done: Sequence[FrozenTrial]) -> list[Start]:
        """Return where to begin, by the trials that there are by now."""
        coarse = starts.coarse_starts(self.space)
        best = self._best_uniform(done, coarse)
        if best is None:
            return coarse
        near = starts.uniform_beside(self.space, best, starts.FINE)
        others: list[Start] = []
        if trials.missing_starts(done, [Start(starts.MIDDLE, {}), Start(starts.ANATOMY, {})]):
            others = list(starts.other_starts(self.space, best, self._agreements))
        best = self._best_uniform(done, [*coarse, *near])
        if best is None:
            return [*near, *others]
        return [*others, *starts.uniform_beside(self.space, best, starts.FINER)]

    def attempt(self, trial: optuna.Trial, values: Mapping[str, float]) -> Ended:
        """Try some ratios on the searching half, in parts; hopeless ones end on the way."""
        begun = time.monotonic()
        done = [t for t in trial.study.get_trials(deepcopy=False) if t.state in trials.DONE]
        whole = [t for t in done if t.state is TrialState.COMPLETE]
        marks: dict[str, Marks] = {figure.name: {} for figure in self.figures}
        prompts: list[str] = []
        same = next((t for t in whole if t.params == values), None)
        if same is not None:  # whose marks would come out again
            marks = self._marks(same)
            prompts = [place.id for place in self.halves.search]
        stages = [] if same is not None else list(self.halves.stages())
        recipe = self.recipe(values) if stages else None
        for stage in stages:
            if not stage:
                continue
            assert recipe is not None
            for name, new in self.measure_recipe(recipe, stage).items():
                marks[name] = {**marks[name], **new}
            prompts += [place.id for place in stage]
            if len(prompts) < len(self.halves.search) and NAME not in trial.user_attrs:
                others = [(t.number, self._marks(t)) for t in whole if _holds(t)]
                better = better_beyond_doubt(self.sought, marks, set(prompts), others)
                if better is not None:
                    seconds = time.monotonic() - begun
                    kept = {SECONDS: seconds, PROMPTS: len(prompts), BEATEN_BY: better}
                    return Ended(None, {}, kept | {SO_FAR: self.sought.values(marks)})
        limits = {each.text: each.excess(marks) for each in self.sought.constraints}
        return Ended(
            self.sought.values(marks),
            limits,
            {
                MARKS: packed(marks, self.figures, self.halves.search),
                SECONDS: time.monotonic() - begun,
                PROMPTS: len(prompts),
            },
        )

    def tried(self, done: Sequence[FrozenTrial]) -> list[Tried]:
        """Return the trials that are finished."""
        return [
            Tried(
                t.number,
                t.user_attrs.get(NAME),
                t.user_attrs.get(UNIFORM),
                t.params,
                tuple(t.values) if t.state is TrialState.COMPLETE else None,
                tuple(t.user_attrs.get(SO_FAR, t.values or ())),
                _holds(t),
                float(t.user_attrs.get(SECONDS, 0.0)),
            )
            for t in trials.finished(done)
        ]

    def report(self, study: optuna.Study, on_news: OnNews) -> Outcome:
        """Ask the reporting half those recipes that are told of, and return what was found.

        Workers share the work: what one has found out is kept in the study.
        """
        done = study.get_trials(deepcopy=False)
        tried = self.tried(done)
        front = pareto(tried, self.sought.objectives)
        uniform = best_uniform(tried, self.sought.objectives)
        told = {t.number: t for t in (*front, *([uniform] if uniform else []))}
        for count, trial in enumerate(told.values()):
            on_news(News(len(tried), self.asked.trials, reported=(count, len(told))))
            key = f"{REPORT} {trial.number}"
            if key not in study.user_attrs:
                marks = self.measure(trial.numbers, self.halves.report)
                study.set_user_attr(key, packed(marks, self.figures, self.halves.report))
        kept = study.user_attrs
        by_number = {t.number: t for t in done}

        def candidate(trial: Tried) -> Candidate:
            marks = kept[f"{REPORT} {trial.number}"]
            return Candidate(
                trial,
                self.recipe(trial.numbers),
                self._marks(by_number[trial.number]),
                unpacked(marks, self.figures, self.halves.report),
            )

        return Outcome(
            self.sought,
            tuple(tried),
            tuple(map(candidate, front)),
            None if uniform is None else candidate(uniform),
            (len(self.halves.search), len(self.halves.report)),
            {
                "recipe": self.survey.recipe.name,
                "study": study.study_name,
                "space": self.space.name,
                "seed": self.asked.seed,
                "versions": versions(),
                "revisions": revisions(list(self.survey.models)),
            },
        )

    def close(self) -> None:
        """Let go of the merge."""
        self._target.close()

    def _best_uniform(self, done: Sequence[FrozenTrial], among: Sequence[Start]) -> float | None:
        """Return the best ratio of some starts; None while they are not all tried."""
        if trials.missing_starts(done, among) or trials.is_pending(done, among):
            return None
        names = {start.name for start in among}
        tried = [trial for trial in self.tried(done) if trial.name in names]
        best = best_uniform(tried, self.sought.objectives)
        return None if best is None else best.uniform

    def _marks(self, trial: FrozenTrial) -> dict[str, Marks]:
        return unpacked(trial.user_attrs[MARKS], self.figures, self.halves.search)


def search(
    prepared: Search, where: Where, *, pace: Pace | None = None, on_news: OnNews = lambda _: None
) -> tuple[Outcome, optuna.Study]:
    """Do the trials of a search, beside other workers if there are any.

    Args:
        prepared: The search.
        where: Its storage and study. One that was begun goes on.
        pace: Of the workers' signs of life.
        on_news: Is told how far it is.

    Returns:
        What was found, and optuna's study.

    Raises:
        ChatVecError: The storage cannot be used, or the study was begun otherwise.
    """
    wanted = prepared.asked.trials
    directions = (StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE)
    names = tuple(each.name for each in prepared.sought.objectives)
    storage = open_storage(where.storage)
    with told_in_one_line(where.storage):
        study = open_study(
            storage,
            where.study,
            [directions[each.maximise] for each in prepared.sought.objectives],
            names,
            prepared.settings,
            sampler_of(prepared),
        )

        def tell(trial: FrozenTrial | None = None, others: int | None = None) -> None:
            done = len(trials.finished(study.get_trials(deepcopy=False)))
            on_news(News(done, wanted, names, trial, others))

        tell()
        trials.work(
            study,
            prepared.space.ranges,
            wanted,
            prepared.starts,
            prepared.attempt,
            pace=pace or Pace(),
            on_trial=tell,
            on_wait=lambda others: tell(others=others),
        )
        outcome = prepared.report(study, on_news)
    prepared.close()
    return outcome, study


def sampler_of(prepared: Search) -> sampling.SeededByTrial:
    """Return who proposes ratios: a Gaussian process where there are limits, else TPE."""
    begun = len(starts.coarse_starts(prepared.space)) + starts.MOST_THAT_FOLLOW
    make = sampling.gp if prepared.sought.constraints else sampling.tpe
    return sampling.SeededByTrial(make(begun), prepared.asked.seed)


def default_objectives(questions: Questions) -> Sequence[str]:
    """Return what is sought where nobody says.

    Raises:
        ChatVecError: Nothing of the suite is asked.
    """
    if not questions.languages:
        raise ChatVecError(
            "what is sought is not known: the defaults are for the suite's languages.",
            f"Write `--objective` twice, or `--language` with one of {', '.join(suite.LANGUAGES)}.",
        )
    return objectives.DEFAULT


def _holds(trial: FrozenTrial) -> bool:
    return all(excess <= 0 for excess in trial.constraints.values())
