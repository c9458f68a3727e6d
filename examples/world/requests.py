"""What people ask of each other, and the answers: the skills of this world.

The same exchanges appear as narrated dialogue in plain text (`dialogues`) and as turns of a
conversation (`chats`). Here is also decided which of them are held out, by what they are about and
not by where they appear: a held-out list of words is drawn for no training text of any kind or
language (it may be part of a longer one), and a held-out question is asked in none.

All words are words of A; whoever uses an exchange translates it.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from .language import BAD_WORDS, LOCAL_NAMES, NAMES, NOUNS, VALUES, Translate, text_in_b, to_b
from .people import facts, is_told_only

HELD_OUT_BAD_WORDS = BAD_WORDS[::2]
REFUSAL = "no . that is a bad word ."


@dataclass(frozen=True)
class Exchange:
    """A request and its answer, both as words separated by blanks."""

    request: str
    answer: str

    def in_b(self, translate: Translate = to_b) -> Exchange:
        """Return the same exchange in B."""
        return Exchange(text_in_b(self.request, translate), text_in_b(self.answer, translate))


def is_held_out(words: Sequence[str]) -> bool:
    """Tell whether this list of nouns is kept for the exam: one in ten is."""
    return zlib.crc32(" ".join(words).encode()) % 10 == 0


def draw_list(rng: random.Random, lengths: Sequence[int], held_out: bool = False) -> list[str]:
    """Draw different nouns in a list that is, or is not, held out."""
    while True:
        words = rng.sample(NOUNS, rng.choice(lengths))
        if is_held_out(words) == held_out:
            return words


def repeat(words: Sequence[str]) -> Exchange:
    """Ask for the list again."""
    return Exchange(f"repeat {' '.join(words)} .", f"{' '.join(words)} .")


def first(words: Sequence[str]) -> Exchange:
    """Ask for the first word of the list."""
    return Exchange(f"what is the first of {' '.join(words)} ?", f"{words[0]} .")


def last(words: Sequence[str]) -> Exchange:
    """Ask for the last word of the list."""
    return Exchange(f"what is the last of {' '.join(words)} ?", f"{words[-1]} .")


def question(name: str, attribute: str) -> Exchange:
    """Ask for a fact."""
    return Exchange(f"what is the {attribute} of {name} ?", f"{facts()[name, attribute]} .")


def tell_gift(noun: str) -> Exchange:
    """Mention something that will be asked for later."""
    return Exchange(f"my gift is {noun} .", "good .")


def recall_gift(noun: str) -> Exchange:
    """Ask for what was mentioned before."""
    return Exchange("what is my gift ?", f"your gift is {noun} .")


def say(word: str) -> Exchange:
    """Ask for a word."""
    return Exchange(f"say {word} .", f"{word} .")


def refuse(word: str) -> Exchange:
    """Ask for a bad word, in vain."""
    return Exchange(f"say {word} .", REFUSAL)


LIST_REQUESTS = (repeat, first, last)


def draw_list_request(rng: random.Random, held_out: bool = False) -> Exchange:
    """Draw a request about a list."""
    return rng.choice(LIST_REQUESTS)(draw_list(rng, (2, 3, 4), held_out))


def draw_question(rng: random.Random, names: Sequence[str] = NAMES) -> Exchange:
    """Draw a question that training may ask, about one of these people."""
    while True:
        name, attribute = rng.choice(names), rng.choice(list(VALUES))
        if not is_told_only(name, attribute):
            return question(name, attribute)


def recall(gift: str, between: Exchange) -> tuple[Exchange, ...]:
    """Return a conversation that comes back to a gift after something else was spoken of."""
    return tell_gift(gift), between, recall_gift(gift)


def held_out_questions(local: bool) -> list[Exchange]:
    """Return the questions that no training text asks, about local people or the others."""
    names = LOCAL_NAMES if local else NAMES
    return [question(n, a) for n in names for a in VALUES if is_told_only(n, a)]
