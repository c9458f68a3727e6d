"""The quick measure: ten prompts of each axis of the suite, asked of the merge as the sliders are.

It says which way things go, not how good a model is: ten prompts have wide intervals, which are
drawn. The demonstration's made-up language is none of the suite's; it has questions of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from chatvec_method import demo
from chatvec_method.evaluation import suite
from chatvec_method.evaluation.asked import LONGEST_ANSWER, asked_of
from chatvec_method.evaluation.intervals import interval, resampled
from chatvec_method.evaluation.scores import PASSED, Answered, suite_scores
from chatvec_method.talk.speaker import Message

PROMPTS = 10
"""Of each axis."""
AXES = (*PASSED, "language", "ends")
"""What is drawn, in this order."""


@dataclass(frozen=True)
class Share:
    """How many of some answers were right."""

    value: float
    low: float
    high: float
    """The interval of 95 %, by the bootstrap."""
    prompts: int


@dataclass(frozen=True)
class Exam:
    """What is asked, and how the answers are marked."""

    questions: tuple[tuple[Message, ...], ...]
    longest: int
    """Tokens of an answer."""
    shares: Callable[[Sequence[tuple[str, bool]]], Mapping[str, Share]]
    """From the answers, each with whether the model stopped by itself, to the share of each axis.
    Fewer answers than questions are marked as far as they go."""


@dataclass(frozen=True)
class Measurement:
    """What the merge achieved at a setting."""

    label: str
    ratio: float
    """Of the first chat vector: the place on the axis."""
    line: str
    """All else of the setting: points with the same are joined."""
    language: str
    shares: Mapping[str, Share]


def suite_exam(language: str) -> Exam:
    """Return the suite's quick exam in a language."""
    prompts = asked_of(language, PROMPTS)

    def shares(answers: Sequence[tuple[str, bool]]) -> Mapping[str, Share]:
        marked = [
            Answered(
                prompt,
                answer,
                stopped,
                suite.mark(prompt, answer),
                suite.answer_language(answer, language),
            )
            for prompt, (answer, stopped) in zip(prompts, answers, strict=False)
        ]
        return {
            score.axis: Share(score.value, *score.interval, score.prompts)
            for score in suite_scores(marked)
            if score.axis in AXES and score.interval is not None
        }

    questions = tuple(_messages(prompt) for prompt in prompts)
    return Exam(questions, LONGEST_ANSWER, shares)


def world_exam() -> Exam:
    """Return the demonstration's quick exam: ten questions of four axes, in its second language.

    An answer is right to the word, and the model has to stop after it.
    """
    questions = demo.questions()

    def shares(answers: Sequence[tuple[str, bool]]) -> Mapping[str, Share]:
        marks: dict[str, list[float]] = {}
        for question, (answer, stopped) in zip(questions, answers, strict=False):
            right = stopped and question.is_answered(answer)
            marks.setdefault(question.axis, []).append(float(right))
        return {axis: _share(axis, each) for axis, each in marks.items()}

    return Exam(tuple(_by_turns(each.turns) for each in questions), demo.LONGEST_ANSWER, shares)


def _share(axis: str, marks: Sequence[float]) -> Share:
    low, high = interval(resampled(marks, of=axis))
    return Share(sum(marks) / len(marks), low, high, len(marks))


def _by_turns(texts: Sequence[str]) -> tuple[Message, ...]:
    roles = ("user", "assistant")
    return tuple({"role": roles[i % 2], "content": text} for i, text in enumerate(texts))


def _messages(prompt: suite.Prompt) -> tuple[Message, ...]:
    return tuple({"role": each["role"], "content": each["content"]} for each in prompt.messages)
