"""An answer held to its prompt's rules."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from chatvec_method.evaluation.suite.prompt import Prompt
from chatvec_method.evaluation.suite.rules import RULES

SHORTEST_ECHO = 10
"""Letters of a turn that are more than chance if they are said again; wide ones count for two."""


@dataclass(frozen=True)
class Mark:
    """Whether an answer passes, and why it does not."""

    passed: bool
    why: str
    """What is wrong with the answer, in words; "" where it passes."""


def mark(prompt: Prompt, answer: str) -> Mark:
    """Hold an answer to its prompt's rules; all must hold.

    An empty answer never passes. What the user said does not count where it is said again, word for
    word: a model that does not answer often goes on with the prompt, and would be right by
    accident. Two turns said again, or one where instructions are to be followed, are no answer.
    """
    if not answer.strip():
        return Mark(False, "the answer is empty")
    own, echoes = answer, 0
    for turn in prompt.messages:
        echo = "".join(turn["content"].split())
        if _width(echo) >= SHORTEST_ECHO and echo in "".join(answer.split()):
            echoes += 1
            if turn["role"] == "user":
                own = re.sub(r"\s*".join(map(re.escape, echo)), " ", own)
    if echoes and (prompt.axis == "follows" or echoes > 1 or not any(map(str.isalnum, own))):
        return Mark(False, "repeats what was said")
    for rule, parameter in prompt.rules.items():
        if wrong := RULES[rule](own, parameter, prompt.language):
            return Mark(False, wrong)
    return Mark(True, "")


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)
