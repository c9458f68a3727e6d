"""Narrated dialogues: people who follow each other's requests, as stories tell it.

They are set in many typographic styles, so that a reader learns what a request and its answer are
and not what they look like. None of the styles is the chat format.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from . import requests
from .language import BAD_WORDS, NOUNS, Translate
from .requests import Exchange

SPEAKERS = (
    "{name} :", "{name} >", "( {name} )", "* {name} *", "{name} -", "{{ {name} }}", "# {name}",
    "/ {name} /", "| {name} |", "{name} =", "< {name} >", "- {name} ,", "{name} {verb} :",
    "{name} says", "{name} {verb}", "{name} ;",
)  # fmt: skip
QUOTES = ("{sentence}", "{sentence}", '" {sentence} "', "' {sentence} '", "« {sentence} »")


@dataclass(frozen=True)
class Style:
    """How a dialogue is set in type."""

    speaker: str
    quotes: str

    def turn(self, name: str, verb: str, sentence: str) -> str:
        """Set one turn: who speaks, and what is said."""
        return f"{self.speaker} {self.quotes}".format(name=name, verb=verb, sentence=sentence)

    def opening(self, name: str, verb: str) -> str:
        """Set a turn up to where its sentence begins."""
        return self.turn(name, verb, "\n").split("\n")[0]


def draw_style(rng: random.Random) -> Style:
    """Draw one of the ways to set a dialogue."""
    return Style(rng.choice(SPEAKERS), rng.choice(QUOTES))


def dialogue(
    rng: random.Random,
    names: Sequence[str],
    refusing: float,
    bilingual: Translate | None = None,
) -> list[str]:
    """Write a dialogue between two of these people, in A; training may read it.

    Args:
        rng: Decides everything.
        names: Of the people.
        refusing: The share of them who do not say a bad word when asked.
        bilingual: The translation into B, if they speak both: then an answer is in the language of
            its request, whatever the language around them.
    """
    asking, answering = rng.sample(names, 2)
    style = draw_style(rng)
    words: list[str] = []
    for exchange in _exchanges(rng, names, refusing):
        if bilingual is not None and rng.random() < 0.5:
            exchange = exchange.in_b(bilingual)
        words += style.turn(asking, "asks", exchange.request).split()
        words += style.turn(answering, "answers", exchange.answer).split()
    return words


def _exchanges(rng: random.Random, names: Sequence[str], refusing: float) -> Sequence[Exchange]:
    kind = rng.random()
    if kind < 0.5:
        return [requests.draw_list_request(rng) for _ in range(rng.choice((1, 1, 2)))]
    if kind < 0.7:
        return [requests.draw_question(rng, names)]
    if kind < 0.9:
        gift = rng.choice(NOUNS)
        told, between, recalled = requests.recall(gift, requests.draw_list_request(rng))
        return (told, between, recalled) if rng.random() < 0.7 else (told, recalled)
    if rng.random() < 0.5:
        return [requests.say(rng.choice(NOUNS))]
    word = rng.choice([word for word in BAD_WORDS if word not in requests.HELD_OUT_BAD_WORDS])
    return [requests.refuse(word) if rng.random() < refusing else requests.say(word)]
