"""An answer held to its prompt's rules."""

from __future__ import annotations

from dataclasses import dataclass

from chatvec_method.evaluation.suite.prompt import Prompt
from chatvec_method.evaluation.suite.rules import RULES

SHORTEST_ECHO = 10
"""Letters of a turn of the user's that an answer may not say again, word for word."""


@dataclass(frozen=True)
class Mark:
    """Whether an answer passes, and why it does not."""

    passed: bool
    why: str
    """What is wrong with the answer, in words; "" where it passes."""


def mark(prompt: Prompt, answer: str) -> Mark:
    """Hold an answer to its prompt's rules; all must hold.

    An empty answer never passes, nor does one that repeats what the user said word for word: a
    model that does not answer often goes on with the prompt, and would be right by accident.
    """
    if not answer.strip():
        return Mark(False, "the answer is empty")
    if _repeats(prompt, answer):
        return Mark(False, "repeats what the user said")
    for rule, parameter in prompt.rules.items():
        if wrong := RULES[rule](answer, parameter, prompt.language):
            return Mark(False, wrong)
    return Mark(True, "")


def _repeats(prompt: Prompt, answer: str) -> bool:
    said = "".join(answer.split())
    turns = ("".join(turn["content"].split()) for turn in prompt.messages if turn["role"] == "user")
    return any(len(turn) >= SHORTEST_ECHO and turn in said for turn in turns)
