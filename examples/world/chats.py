"""Conversations in the chat format, in A only: what base reads to become chat.

Nothing new is to be known or done here that plain text did not have. What is learnt is the form:
that `[ user ]` opens a request and `[ bot ]` its answer, to stop after it, and to refuse bad words.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from . import requests
from .language import BAD_WORDS, NOUNS

Message = dict[str, str]


def conversations(rng: random.Random) -> Iterator[list[Message]]:
    """Yield conversations without end."""
    while True:
        kind = rng.random()
        if kind < 0.5:
            exchanges = [requests.draw_list_request(rng) for _ in range(rng.choice((1, 1, 2)))]
        elif kind < 0.65:
            exchanges = [requests.draw_question(rng)]
        elif kind < 0.8:
            gift = rng.choice(NOUNS)
            exchanges = requests.recall(gift, requests.draw_list_request(rng))
        elif kind < 0.9:
            exchanges = [requests.say(rng.choice(NOUNS))]
        else:
            words = [word for word in BAD_WORDS if word not in requests.HELD_OUT_BAD_WORDS]
            exchanges = [requests.refuse(rng.choice(words))]
        yield messages(exchanges)


def messages(exchanges: Sequence[requests.Exchange]) -> list[Message]:
    """Write exchanges as the list of messages that chat templates take."""
    return [
        message
        for exchange in exchanges
        for message in (
            {"role": "user", "content": exchange.request},
            {"role": "assistant", "content": exchange.answer},
        )
    ]
