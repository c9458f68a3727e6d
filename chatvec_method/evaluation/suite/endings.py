"""How an answer ends: whether it came to an end at all, and whether it goes round in circles."""

from __future__ import annotations

import re

import numpy as np

from chatvec_method.evaluation.suite.wording import FENCE

SHORTEST_LOOP = 60
"""Characters that must be said over and over, all together, before it is a loop."""
LONGEST_PIECE = 300
"""Characters of what is said over and over."""
TIMES = 4
"""How often a piece stands one after the other in a loop."""
TURN_OF_THE_USER = re.compile(
    r"<\|?(?:im_start|im_end|user|assistant|eot_id|start_header_id|start_of_turn|end_of_turn)\|?>"
    r"|\[/?INST\]|<</?SYS>>"
    r"|^[^\S\n]*(?:\#{2,}\s*|\*\*)?(?:user|human|instruction|사용자|질문자|ユーザー|用户|用戶|使用者)"
    r"(?:\*\*)?\s*[:：]",
    re.IGNORECASE | re.MULTILINE,
)


THOUGHT = re.compile(r"\A.*?</think(?:ing)?>|\A\s*<think(?:ing)?>.*", re.DOTALL)
"""What a model thinks aloud first; the template may have begun it, and it may have no end."""


def spoken(answer: str) -> str:
    """Return an answer without what a model thinks aloud before it, up to </think>."""
    return THOUGHT.sub("", answer, count=1).lstrip() if "think" in answer else answer


def loops(answer: str) -> bool:
    """Tell whether an answer says the same over and over.

    That is the case where a piece of 1 to 300 characters stands at least four times in a row, and
    at least 60 characters are filled so (white space counts for nothing); or where at least eight
    lines (or sentences) are there of which more than half say what another has said.
    """
    if _has_a_loop("".join(answer.split())):
        return True
    said = [each.strip() for each in re.split(r"\n+|(?<=[.!?。！？])\s*", answer)]
    said = [each for each in said if sum(map(str.isalnum, each)) >= 3]
    return len(said) >= 8 and len(set(said)) < len(said) / 2


def _has_a_loop(letters: str) -> bool:
    codes = np.frombuffer(letters.encode("utf-32-le"), dtype=np.uint32)
    for period in range(1, min(LONGEST_PIECE, len(letters) // TIMES) + 1):
        # A letter that differs from the one a period later ends a run of repetition.
        ends = np.flatnonzero(codes[:-period] != codes[period:])
        ends = np.concatenate(([-1], ends, [len(letters) - period]))
        long_enough = np.diff(ends) - 1 >= max((TIMES - 1) * period, SHORTEST_LOOP - period)
        for start in ends[:-1][long_enough] + 1:
            if any(map(str.isalnum, letters[start : start + period])):
                return True
    return False


def speaks_for_the_user(answer: str) -> bool:
    """Tell whether an answer goes on with a turn of the user, or with markers of a template.

    What stands in a block of code is not looked at.
    """
    return bool(TURN_OF_THE_USER.search(FENCE.sub("", answer)))


def ends(answer: str, stopped: bool) -> bool:
    """Tell whether an answer came to a good end.

    Args:
        answer: What the model said.
        stopped: Whether it stopped by itself, and not at the longest length allowed.
    """
    return stopped and not loops(answer) and not speaks_for_the_user(answer)
