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
    """Without what the model thought aloud before it."""
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
            prompt, said = prompts[sample.document], suite.spoken(sample.answer)
            told = suite.answer_language(said, prompt.language)
            yield Answered(prompt, said, sample.ended, suite.mark(prompt, said), told)


def suite_marks(answers: Sequence[Answered]) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each axis with the mark of every answer that counts for it, by the prompt's id.

    Args:
        answers: To the suite's prompts of one language.
    """
    language = answers[0].prompt.language
    for axis in PASSED:
        yield (
            axis,
            {a.prompt.id: float(a.mark.passed) for a in answers if a.prompt.axis == axis},
        )
    told = {a.prompt.id: a.language for a in answers if a.prompt.in_language}
    shares = {"language": "target"} | ({"english": "english"} if language != "en" else {})
    for axis, wanted in {**shares, "mixed": "mixed", "other language": "other"}.items():
        yield axis, {each: float(is_ == wanted) for each, is_ in told.items() if is_ != "none"}
    yield "ends", {a.prompt.id: float(a.ends) for a in answers}
    yield "loops", {a.prompt.id: float(suite.loops(a.answer)) for a in answers}
    yield "length", {a.prompt.id: float(len(a.answer)) for a in answers}


def suite_scores(answers: Sequence[Answered]) -> Iterator[Score]:
    """Yield what answers to the suite's prompts of one language are worth, axis by axis."""
    language = answers[0].prompt.language
    for axis, marks in suite_marks(answers):
        if not marks:
            continue
        values = list(marks.values())
        between = interval(resampled(values, of=axis))
        value = float(np.mean(values))
        unit: Unit = "characters" if axis == "length" else "share"
        yield Score(axis, language, value, between, len(values), unit, better_of(axis), "rules")


def better_of(axis: str) -> bool | None:
    """Tell whether an axis of the suite is better where it is higher; None: a matter of taste."""
    return None if axis == "length" else axis in (*PASSED, "language", "ends")


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
