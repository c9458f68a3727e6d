"""An answer held to its prompt's rules."""

from __future__ import annotations

from dataclasses import dataclass

from chatvec_method.evaluation.suite.prompt import Prompt
from chatvec_method.evaluation.suite.rules import RULES


@dataclass(frozen=True)
class Mark:
    """Whether an answer passes, and why it does not."""

    passed: bool
    why: str
    """What is wrong with the answer, in words; "" where it passes."""


def mark(prompt: Prompt, answer: str) -> Mark:
    """Hold an answer to its prompt's rules; all must hold, and an empty answer never passes."""
    if not answer.strip():
        return Mark(False, "the answer is empty")
    for rule, parameter in prompt.rules.items():
        if wrong := RULES[rule](answer, parameter, prompt.language):
            return Mark(False, wrong)
    return Mark(True, "")
