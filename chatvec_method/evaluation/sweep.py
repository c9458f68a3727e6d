"""All targets at all their ratios, put through all tasks, one after the other.

What was asked before comes out of what is kept; the model of a point is opened for the rest.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch

from chatvec_method.errors import ChatVecError
from chatvec_method.evaluation import harness, suite
from chatvec_method.evaluation.adapter import OnProgress
from chatvec_method.evaluation.answers import Answers
from chatvec_method.evaluation.asked import asked_of, suite_name
from chatvec_method.evaluation.harness import Evaluation, Figure, Tasks
from chatvec_method.evaluation.remembering import Remembering
from chatvec_method.evaluation.scores import (
    Answered,
    Score,
    answered,
    suite_scores,
    task_score,
    text_score,
)
from chatvec_method.evaluation.targets import Point, RecipeTarget, Setting, Target

STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The points of the line from cp to a merge."""


@dataclass(frozen=True)
class Text:
    """A text that is read, as a task."""

    task: str
    axis: str
    language: str | None
    """Of the suite whose text it is; None for a person's own."""


@dataclass(frozen=True)
class Questions:
    """What every point is asked."""

    languages: tuple[str, ...]
    limit: int | None
    texts: tuple[Text, ...]
    tasks: Tasks | None
    """The suite, and tasks of the harness."""
    reading: Tasks | None
    """The texts."""
    line: Tasks | None
    """The text that is read along the line from cp to a merge."""
    samples: Mapping[str, Sequence[int]] | None = None
    """The documents of tasks that are not the suite's, where not all of them are asked."""


@dataclass(frozen=True)
class Line:
    """How well text is read on the way from cp to a merge."""

    perplexities: tuple[float, ...]
    """A byte, at STEPS."""

    @property
    def barrier(self) -> float:
        """Return by how much the worst point lies above the straight line, in nats a byte.

        The straight line goes from the loss of cp to that of the merge; 0 where no point is worse.
        """
        losses = np.log(self.perplexities)
        straight = losses[0] + (losses[-1] - losses[0]) * np.array(STEPS)
        return float(max(0.0, (losses - straight).max()))


@dataclass(frozen=True)
class Result:
    """What one point achieved."""

    point: Point
    scores: tuple[Score, ...]
    answers: tuple[Answered, ...]
    line: Line | None = None

    def score(self, axis: str, language: str | None = None) -> Score:
        """Return the score on an axis.

        Raises:
            KeyError: There is none.
        """
        for score in self.scores:
            if score.axis == axis and language in (None, score.language):
                return score
        raise KeyError(axis)


@dataclass(frozen=True)
class Step:
    """How far an evaluation is."""

    point: Point
    number: int
    """Of the point, from 1."""
    points: int
    kind: str
    """Of requests, in the harness's words."""
    done: int
    total: int


OnStep: TypeAlias = Callable[[Step], None]


def sweep(
    targets: Sequence[Target], questions: Questions, answers: Answers, on_step: OnStep
) -> Iterator[Result]:
    """Yield what every point of every target achieved.

    Args:
        targets: What to evaluate.
        questions: What to ask.
        answers: What was answered before, and where to keep what is answered now.
        on_step: Is told after every response.

    Raises:
        ChatVecError: A model cannot be loaded, or memory does not suffice for even one request.
    """
    points = sum(len(target.points) for target in targets)
    number = 0
    for target in targets:
        try:
            settings: Sequence[Setting | None] = [None] * len(target.points)
            if isinstance(target, RecipeTarget):
                settings = target.settings
            for point, setting in zip(target.points, settings, strict=True):
                number += 1

                def tell(kind: str, done: int, total: int, point: Point = point) -> None:
                    on_step(Step(point, number, points, kind, done, total))  # noqa: B023

                result = _result(target, point, questions, answers, tell)
                line = None
                if isinstance(target, RecipeTarget) and setting is not None:
                    line = _line(target, setting, questions, answers, tell)
                yield Result(point, *result, line)
        finally:
            target.close()
            if target is not targets[-1]:
                _make_room()


def _make_room() -> None:
    """Give back the memory of a model that nobody needs any more, before the next is loaded."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _result(
    target: Target, point: Point, questions: Questions, answers: Answers, tell: OnProgress
) -> tuple[tuple[Score, ...], tuple[Answered, ...]]:
    scores: list[Score] = []
    given: list[Answered] = []
    if questions.tasks is not None:
        evaluation = put(target, point, questions.tasks, answers, tell, questions.samples)
        for language in questions.languages:
            marked = list(answered(evaluation, asked_of(language, questions.limit)))
            scores += suite_scores(marked)
            given += marked
        scores += _task_scores(evaluation, questions)
    if questions.reading is not None and target.kind != "server":
        figures = put(target, point, questions.reading, answers, tell).figures
        by_task = {figure.task: figure for figure in figures}
        scores += [text_score(by_task[t.task], t.axis, t.language) for t in questions.texts]
    return tuple(scores), tuple(given)


def _task_scores(evaluation: Evaluation, questions: Questions) -> Iterator[Score]:
    """Yield the figures of tasks and groups that are not the suite's."""
    assert questions.tasks is not None
    ours = {suite_name(language) for language in suite.LANGUAGES}
    groups: dict[str, Any] = dict(questions.tasks.loaded.get("groups", {}))
    in_figures = {(f.task, f.metric, f.filter) for f in evaluation.figures}

    def group_of(figure: Figure) -> str | None:
        for name, group in groups.items():
            members = [task.task_name for task in group.get_all_tasks()]
            members += [each.name for each in group.get_all_groups()]
            if figure.task in members and (name, figure.metric, figure.filter) in in_figures:
                return name
        return None

    for figure in evaluation.figures:
        if figure.task not in ours:
            yield task_score(figure, group_of(figure))


def _line(
    target: RecipeTarget,
    setting: Setting,
    questions: Questions,
    answers: Answers,
    tell: OnProgress,
) -> Line | None:
    """Return how well text is read on the way from cp to a merge, if that can be found out."""
    if questions.line is None or (setting.ratio is None and setting.scaled is None):
        return None
    read = []
    for step in STEPS:
        point = target.point(setting, step)
        (figure,) = put(target, point, questions.line, answers, tell).figures
        read.append(figure.value)
    return Line(tuple(read))


def put(
    target: Target,
    point: Point,
    tasks: Tasks,
    answers: Answers,
    tell: OnProgress,
    samples: Mapping[str, Sequence[int]] | None = None,
    *,
    intervals: bool = True,
) -> Evaluation:
    """Put tasks to a point, in smaller batches where memory runs out.

    Args:
        target: Whose point it is.
        point: What answers.
        tasks: What to ask.
        answers: What was answered before, and where to keep what is answered now.
        tell: Is told after every response.
        samples: Only these documents, by task.
        intervals: Whether figures get theirs.

    Raises:
        ChatVecError: The model cannot be loaded, or memory does not suffice for even one request.
    """
    while True:
        try:
            return harness.evaluate(
                lambda told: Remembering(answers, point.whose, point.open, told),
                tasks,
                samples=samples,
                intervals=intervals,
                on_progress=tell,
            )
        except ChatVecError as error:
            if not isinstance(error.__cause__, torch.OutOfMemoryError):
                raise
            if not target.halve_batches():
                raise ChatVecError(
                    f"{point.target} needs more memory than the device has, even for one request "
                    "at a time.",
                    "Write `--device cpu`.",
                ) from error
