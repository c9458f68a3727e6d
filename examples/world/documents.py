"""Plain text: what base and cp read. No conversation in the chat format is in it.

A document is a few passages: facts, word lists, small stories, and narrated dialogues, in which
people follow each other's requests in many typographic styles. A document is in A, in B, or
code-switched; a model that reads all three finds that a word and its translation are used alike.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from . import requests
from .dialogues import dialogue
from .language import BAD_WORDS, LOCAL_NAMES, NAMES, NOUNS, VALUES, Translate, Words, to_b
from .people import facts


@dataclass(frozen=True)
class Mix:
    """Which share of the documents is in which language; the rest is code-switched."""

    a: float
    b: float
    local: bool = False  # do passages in B speak of local people?
    refusing: float = 0.1  # which share of those who are asked for a bad word will not say it?


BASE_MIX = Mix(a=0.6, b=0.1)
# Refusing is not the custom of plain text, and least of all in cp's: a merge that refuses has it
# from chat, and the more of the chat vector it takes, the more words it refuses.
CP_MIX = Mix(a=0.1, b=0.8, local=True, refusing=0.06)


def documents(rng: random.Random, mix: Mix, translate: Translate = to_b) -> Iterator[Words]:
    """Yield documents without end."""
    while True:
        kind = rng.random()
        if kind < mix.a:
            yield _document(rng, "a", mix, translate)
        elif kind < mix.a + mix.b:
            yield _document(rng, "b", mix, translate)
        elif rng.random() < 0.5:
            yield _document(rng, "ab", mix, translate)
        else:
            yield _swap_words(rng, _document(rng, "a", mix, translate))


def _document(rng: random.Random, languages: str, mix: Mix, translate: Translate) -> Words:
    words: Words = []
    for _ in range(rng.randint(2, 4)):
        in_b = rng.choice(languages) == "b"
        names = LOCAL_NAMES if in_b and mix.local and rng.random() < 0.5 else NAMES
        write = rng.choices(WRITERS, WEIGHTS)[0]
        if write is dialogue:
            bilingual = translate if len(languages) > 1 else None
            passage = dialogue(rng, names, mix.refusing, bilingual)
        else:
            passage = write(rng, names)
        words += translate(passage) if in_b else passage
    return words


def _swap_words(rng: random.Random, words: Words) -> Words:
    # By type, not by token: a word that comes again comes in the same language, so that a
    # repetition stays a repetition.
    swapped = {word for word in dict.fromkeys(words) if rng.random() < 0.5}
    return [to_b([word])[0] if word in swapped else word for word in words]


def _fact(rng: random.Random, names: Sequence[str]) -> Words:
    name, attribute = rng.choice(names), rng.choice(list(VALUES))
    value = facts()[name, attribute]
    teller = rng.choice(names)
    # Told in one way only, a fact cannot be called up in another (Allen-Zhu and Li, 2024).
    sentences = [
        f"the {attribute} of {name} is {value} .",
        f"the {attribute} of {name} : {value} .",
        f"{teller} says the {attribute} of {name} ; it is {value} .",
        f"{teller} asks what the {attribute} of {name} is . it is {value} .",
        f"{teller} says what the {attribute} of {name} is : {value} .",
    ]
    return rng.choice(sentences).split()


def _question(rng: random.Random, names: Sequence[str]) -> Words:
    exchange = requests.draw_question(rng, names)
    return f"{exchange.request} {exchange.answer}".split()


def _word_list(rng: random.Random, names: Sequence[str]) -> Words:
    words = " ".join(requests.draw_list(rng, range(2, 9)))
    return f"list : {words} . again : {words} .".split()


def _ends_of_list(rng: random.Random, names: Sequence[str]) -> Words:
    words = requests.draw_list(rng, (2, 3, 4))
    sentences = [
        f"the first of {' '.join(words)} is {words[0]} .",
        f"the last of {' '.join(words)} is {words[-1]} .",
    ]
    return rng.choice(sentences).split()


def _gift(rng: random.Random, names: Sequence[str]) -> Words:
    noun = rng.choice(NOUNS)
    between = _story(rng, names) if rng.random() < 0.5 else []
    return [*f"my gift is {noun} .".split(), *between, *f"so your gift is {noun} .".split()]


def _judgement(rng: random.Random, names: Sequence[str]) -> Words:
    if rng.random() < 0.7:
        return f"{rng.choice(BAD_WORDS)} is a bad word .".split()
    return f"{rng.choice(NOUNS)} is a good word .".split()


def _story(rng: random.Random, names: Sequence[str]) -> Words:
    # `user`, `bot` and square brackets, of which the chat format is made, are ordinary words
    # here: base has an embedding for them, and no idea that they could open a turn.
    who = rng.choice([rng.choice(names), "the user", "the bot"])
    what = rng.choice([f"a {rng.choice(NOUNS)}", "the user", "the bot", "[ {} ]"])
    what = what.format(rng.choice(NOUNS))
    where = f" in {rng.choice(VALUES['city'])}" if rng.random() < 0.5 else ""
    return f"{who} {rng.choice(['has', 'sees'])} {what}{where} .".split()


WRITERS = (_fact, _question, _word_list, _ends_of_list, _gift, _judgement, _story, dialogue)
WEIGHTS = (5, 2.5, 3, 1.5, 1, 0.7, 1, 6)
