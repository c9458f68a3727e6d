"""What answers are worth: marks by the suite's rules, and shares of them with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from chatvec_method.evaluation import suite
from chatvec_method.evaluation.asked import suite_name
from chatvec_method.evaluation.intervals import interval, resampled

if TYPE_CHECKING:
    from chatvec_method.evaluation.harness import Evaluation, Figure

Source = Literal["rules", "task", "judge"]
Unit = Literal["share", "perplexity", "characters", "mark", "number"]

PASSED = ("follows", "knows", "recalls", "refuses", "does_not_over_refuse")
"""The axes that are shares of answers which pass their prompts' rules."""


@dataclass(frozen=True)
class Answered:
    """A prompt of the suite with a model's answer."""

    prompt: suite.Prompt
    answer: str
    stopped: bool
    """Whether the model stopped by itself."""
    mark: suite.Mark
    language: suite.AnswerLanguage
    """In which the answer is, seen from the prompt's."""

    @property
    def ends(self) -> bool:
        """Tell whether the answer came to a good end."""
        return suite.ends(self.answer, self.stopped)


@dataclass(frozen=True)
class Score:
    """One figure of one thing that answers."""

    axis: str
    language: str | None
    """Of the suite; None for a task of the harness."""
    value: float
    interval: tuple[float, float] | None
    """Of 95 %, by the bootstrap over prompts."""
    prompts: int
    unit: Unit
    higher_is_better: bool | None
    source: Source
    part_of: str | None = None
    """The group that has it in a figure of its own."""


def answered(evaluation: Evaluation, prompts: Sequence[suite.Prompt]) -> Iterator[Answered]:
    """Yield the answers to prompts of one language, with their marks."""
    for sample in evaluation.samples:
        if sample.task == suite_name(prompts[0].language):
            prompt = prompts[sample.document]
            yield Answered(
                prompt,
                sample.answer,
                sample.ended,
                suite.mark(prompt, sample.answer),
                suite.answer_language(sample.answer, prompt.language),
            )


def suite_scores(answers: Sequence[Answered]) -> Iterator[Score]:
    """Yield what answers to the suite's prompts of one language are worth, axis by axis."""
    language = answers[0].prompt.language

    def score(axis: str, values: Sequence[float], better: bool | None, unit: Unit) -> Score:
        between = interval(resampled(values, of=axis))
        value = float(np.mean(values))
        return Score(axis, language, value, between, len(values), unit, better, "rules")

    for axis in PASSED:
        marks = [float(each.mark.passed) for each in answers if each.prompt.axis == axis]
        if marks:
            yield score(axis, marks, True, "share")
    told = [a.language for a in answers if a.prompt.in_language and a.language != "none"]
    if told:
        shares = {"language": "target"} | ({"english": "english"} if language != "en" else {})
        for axis, wanted in {**shares, "mixed": "mixed", "other language": "other"}.items():
            values = [float(each == wanted) for each in told]
            yield score(axis, values, axis == "language", "share")
    yield score("ends", [float(each.ends) for each in answers], True, "share")
    yield score("loops", [float(suite.loops(each.answer)) for each in answers], False, "share")
    yield score("length", [len(each.answer) for each in answers], None, "characters")


def text_score(figure: Figure, axis: str, language: str | None) -> Score:
    """Return how well a text was read: its perplexity a byte."""
    return Score(
        axis,
        language,
        figure.value,
        figure.interval,
        figure.documents,
        "perplexity",
        False,
        "rules",
    )


def task_score(figure: Figure, part_of: str | None) -> Score:
    """Return a figure of a task or a group of the harness."""
    name = f"{figure.task} {figure.metric}"
    if figure.filter != "none":
        name += f" ({figure.filter})"
    share = 0 <= figure.value <= 1 and "perplexity" not in figure.metric
    unit: Unit = "share" if share else "number"
    return Score(
        name,
        None,
        figure.value,
        figure.interval,
        figure.documents,
        "perplexity" if "perplexity" in figure.metric else unit,
        figure.higher_is_better,
        "task",
        part_of,
    )
