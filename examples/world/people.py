"""Who lives in this world, and what is known about them.

Everybody has a colour, a city and a food. *Local* people are only ever spoken of in B, and only
in the text of continual pretraining: what a model knows of them, it learnt there.
"""

from __future__ import annotations

import random
from functools import cache

from .language import LOCAL_NAMES, NAMES, VALUES


@cache
def facts() -> dict[tuple[str, str], str]:
    """Return the value of every (name, attribute), the same in every world."""
    rng = random.Random("facts")
    return {
        (name, attribute): rng.choice(values)
        for name in (*NAMES, *LOCAL_NAMES)
        for attribute, values in VALUES.items()
    }


def is_told_only(name: str, attribute: str) -> bool:
    """Tell whether training text states this fact but never asks for it.

    Two facts of each local person and one of each other: an answer to such a question has to be put
    together from a statement and from questions about other things.
    """
    everybody = [*NAMES, *LOCAL_NAMES]
    turn = (everybody.index(name) + list(VALUES).index(attribute)) % 3
    return turn != 0 if name in LOCAL_NAMES else turn == 0
