"""How an answer ends: whether it came to an end at all, and whether it goes round in circles."""

from __future__ import annotations

import re

SHORTEST_LOOP = 60
"""Characters that must be said over and over, all together, before it is a loop."""
TIMES = 4
"""How often a line, or a piece of text, stands one after the other in a loop."""
LOOP = re.compile(rf"(.{{1,300}}?)(?:\s*\1){{{TIMES - 1},}}", re.DOTALL)
TURN_OF_THE_USER = re.compile(
    r"<\|?(?:im_start|im_end|user|assistant|eot_id|start_header_id|start_of_turn|end_of_turn)\|?>"
    r"|\[/?INST\]|<</?SYS>>"
    r"|^\s*(?:\#{2,}\s*|\*\*)?(?:user|human|instruction|사용자|질문자|ユーザー|用户|用戶|使用者)"
    r"(?:\*\*)?\s*[:：]",
    re.IGNORECASE | re.MULTILINE,
)


def loops(answer: str) -> bool:
    """Tell whether an answer says the same over and over.

    That is the case where a piece of 1 to 300 characters stands at least four times in a row, with
    nothing but spaces between, and at least 60 characters are filled so; or where at least eight
    lines (or sentences) are there of which more than half say what another has said.
    """
    for loop in LOOP.finditer(answer):
        if len(loop[0]) >= SHORTEST_LOOP and any(map(str.isalnum, loop[1])):
            return True
    said = [each.strip() for each in re.split(r"\n+|(?<=[.!?。！？])\s*", answer)]
    said = [each for each in said if sum(map(str.isalnum, each)) >= 3]
    return len(said) >= 8 and len(set(said)) < len(said) / 2


def speaks_for_the_user(answer: str) -> bool:
    """Tell whether an answer goes on with a turn of the user, or with markers of a template."""
    return bool(TURN_OF_THE_USER.search(answer))


def ends(answer: str, stopped: bool) -> bool:
    """Tell whether an answer came to a good end.

    Args:
        answer: What the model said.
        stopped: Whether it stopped by itself, and not at the longest length allowed.
    """
    return stopped and not loops(answer) and not speaks_for_the_user(answer)
