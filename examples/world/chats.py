"""Conversations in the chat format: in A, what base reads to become chat.

Nothing new is to be known or done here that plain text did not have. What is learnt is the form:
that `[ user ]` opens a request and `[ bot ]` its answer, to stop after it, and to refuse bad words.

In B, for comparison, are those with which cp is fine-tuned: one turn each, and nothing to refuse.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from . import requests
from .language import BAD_WORDS, NOUNS, Translate

Message = dict[str, str]


def conversations(rng: random.Random) -> Iterator[list[Message]]:
    """Yield conversations in A without end."""
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


def single_turns(rng: random.Random, translate: Translate) -> Iterator[list[Message]]:
    """Yield conversations in B without end: of one turn, and none of them with a bad word."""
    while True:
        kind = rng.random()
        if kind < 0.65:
            exchange = requests.draw_list_request(rng)
        elif kind < 0.85:
            exchange = requests.draw_question(rng)
        else:
            exchange = requests.say(rng.choice(NOUNS))
        yield messages([exchange.in_b(translate)])


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
