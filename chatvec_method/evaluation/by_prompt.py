"""What a merge is measured by, prompt by prompt, so that two can be compared on the same prompts.

A figure is a share, a mean or a perplexity: two sums over prompts. Of an evaluation at one ratio
here are the sums' parts; whoever compares adds up those of the prompts that he is about.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lm_eval.api import metrics  # type: ignore[import-untyped]

from chatvec_method.evaluation.adapter import OnProgress
from chatvec_method.evaluation.answers import Answers
from chatvec_method.evaluation.asked import asked_of, suite_name
from chatvec_method.evaluation.harness import Evaluation, Tasks
from chatvec_method.evaluation.scores import PASSED, answered, better_of, suite_marks
from chatvec_method.evaluation.sweep import Questions, put
from chatvec_method.evaluation.targets import RecipeTarget, Setting

SUITE = (*PASSED, "language", "english", "mixed", "other language", "ends", "loops", "length")
READS = "reads"

Marks: TypeAlias = Mapping[str, tuple[float, float]]
"""A figure by prompt: of each a value and its weight."""


@dataclass(frozen=True)
class Figure:
    """Something that is measured."""

    name: str
    """As tables call it: `follows`, `reads`, `kmmlu acc`."""
    tasks: tuple[str, ...]
    """Of the harness, whose documents it is about; those of the suite and of texts among them."""
    metric: str
    """Of the tasks; the axis where they are the suite's."""
    filter: str | None
    """None for the first one of each task."""
    perplexity: bool
    """Whether it is exp(−Σ values / Σ weights), and not Σ values / Σ weights."""
    higher_is_better: bool | None


@dataclass(frozen=True)
class Place:
    """A prompt of the suite, a document of a task, or a piece of a text."""

    id: str
    task: str
    document: int
    stratum: str
    """What it is one of: an axis of the suite, a task or a text."""


def figures_of(questions: Questions) -> dict[str, Figure]:
    """Return all that these questions measure prompt by prompt, by name."""
    figures: list[Figure] = []
    suites = tuple(map(suite_name, questions.languages))
    if suites:
        figures += [Figure(a, suites, a, None, False, better_of(a)) for a in SUITE]
    by_axis: defaultdict[str, list[str]] = defaultdict(list)
    for text in questions.texts:
        by_axis[text.axis].append(text.task)
    figures += [
        Figure(axis, tuple(tasks), "byte_perplexity", None, True, False)
        for axis, tasks in by_axis.items()
    ]
    if questions.tasks is not None:
        loaded = questions.tasks.loaded
        named = {name: [task] for name, task in loaded["tasks"].items() if name not in suites}
        for name, group in loaded.get("groups", {}).items():
            named[name] = list(group.get_all_tasks())
        for name, tasks in named.items():
            figures += _of_tasks(name, tasks)
    return {figure.name: figure for figure in figures}


def places_of(questions: Questions, figures: Sequence[Figure]) -> list[Place]:
    """Return all prompts that some figures are about."""
    tasks = _loaded(questions)
    wanted = dict.fromkeys(task for figure in figures for task in figure.tasks)
    return [place for task in wanted for place in _places(questions, task, tasks[task])]


def measured(
    target: RecipeTarget,
    setting: Setting,
    questions: Questions,
    figures: Sequence[Figure],
    places: Sequence[Place],
    answers: Answers,
    tell: OnProgress,
) -> dict[str, Marks]:
    """Ask a merge some prompts, and return its marks by figure.

    Args:
        target: The recipe, as a live merge.
        setting: Its ratio.
        questions: What places are of.
        figures: Those to return.
        places: What to ask.
        answers: What was answered before, and where to keep what is answered now.
        tell: Is told after every response.

    Raises:
        ChatVecError: The merge cannot be made, or memory does not suffice for even one request.
    """
    samples: defaultdict[str, list[int]] = defaultdict(list)
    for place in places:
        samples[place.task].append(place.document)
    tasks = _loaded(questions)
    asked = Tasks({"tasks": {t: tasks[t] for t in samples}, "groups": {}, "group_map": {}})
    point = target.point(setting)
    evaluation = put(target, point, asked, answers, tell, samples, intervals=False)
    by_metric = dict(_marks(evaluation, questions, samples))
    ids = {(place.task, place.document): place.id for place in places}
    marked: dict[str, Marks] = {}
    for figure in figures:
        marks: dict[str, tuple[float, float]] = {}
        for task in figure.tasks:
            for (of, metric, filter_), by_document in by_metric.items():
                if of == task and metric == figure.metric and figure.filter in (None, filter_):
                    marks |= {ids[task, each]: mark for each, mark in by_document.items()}
                    break
        marked[figure.name] = marks
    return marked


def _marks(
    evaluation: Evaluation, questions: Questions, samples: Mapping[str, Sequence[int]]
) -> Iterator[tuple[tuple[str, str, str | None], Mapping[int, tuple[float, float]]]]:
    """Yield marks by document, of every task, metric and filter."""
    for marks in evaluation.marks:
        yield (marks.task, marks.metric, marks.filter), marks.by_document
    for language in questions.languages:
        task = suite_name(language)
        if task not in samples:
            continue
        prompts = asked_of(language, questions.limit)
        places = {prompt.id: place for place, prompt in enumerate(prompts)}
        for axis, by_id in suite_marks(list(answered(evaluation, prompts))):
            yield (task, axis, None), {places[each]: (mark, 1.0) for each, mark in by_id.items()}


def _loaded(questions: Questions) -> dict[str, Any]:
    """Return the harness's tasks by name: the suite, texts and others."""
    tasks: dict[str, Any] = {}
    for each in (questions.tasks, questions.reading):
        tasks |= each.loaded["tasks"] if each is not None else {}
    return tasks


def _places(questions: Questions, task: str, loaded: Any) -> Iterator[Place]:
    for language in questions.languages:
        if task == suite_name(language):
            for document, prompt in enumerate(asked_of(language, questions.limit)):
                yield Place(prompt.id, task, document, f"{language} {prompt.axis}")
            return
    documents: Sequence[int] = range(len(loaded.eval_docs))
    if questions.samples is not None:
        documents = questions.samples.get(task, documents)
    for document in documents:
        yield Place(f"{task}/{document}", task, document, task)


def _of_tasks(name: str, tasks: Sequence[Any]) -> Iterator[Figure]:
    """Yield the figures of a task, or of a group of tasks, that they all have."""
    first = tasks[0]
    filters = [each.name for each in first._filters]
    for metric, aggregation in first.aggregation().items():
        if any(metric not in task.aggregation() for task in tasks):
            continue
        for filter_ in filters:
            suffix = "" if filter_ == "none" else f" ({filter_})"
            yield Figure(
                f"{name} {metric}{suffix}",
                tuple(task.task_name for task in tasks),
                metric,
                filter_,
                aggregation in (metrics.weighted_perplexity, metrics.perplexity),
                first.higher_is_better().get(metric),
            )
