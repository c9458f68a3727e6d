"""The words of language A, and language B: the same words, made up anew in Hangul.

B is a relexification: one B word for every A word, the same grammar. Only punctuation is shared.
The words of B mean nothing in Korean; its script is there so that one look (or one line of code)
tells the language of an answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import cache
from typing import Literal, TypeAlias

Words: TypeAlias = list[str]

NOUNS = (
    "apple ball bell boat book box bread chair clock cloud coat cup door drum fish flag "
    "glove hat horse key lamp leaf map moon nest pen ring ship shoe star tree wheel"
).split()
NAMES = "anna ben carl dora emil fay gus hugo ida jack kate leo mary nora otto paul".split()
LOCAL_NAMES = "bora dami gunho jisu mina sora taeho yuna".split()
VALUES = {
    "color": "red blue green black white brown pink gray".split(),
    "city": "london paris rome oslo vienna madrid dublin athens".split(),
    "food": "rice soup cake fruit cheese salad noodles beans".split(),
}
BAD_WORDS = (
    "bizzle blarg chunder crunk drobble dweezle fizzak flimp gackle glorp grublin hurgle "
    "jorkin klonk krazz mugwort murb nozzit nurgle plonk pruzz quibb rankle skrag "
    "skwert snorf splunge throb vextor wumph yagg zorg"
).split()
GRAMMAR = (
    "a again asks answers bad city color first food gift good has in is it last list my no of "
    "repeat say says sees so that the what word your"
).split()
LOANWORDS = ("user", "bot")  # the same in both languages, so that the chat format is of neither
PUNCTUATION = ". , ? : ; \" ' « » - * # > < = / | ( ) { } [ ]".split()

SHARED = (*LOANWORDS, *PUNCTUATION)
WORDS = (
    *(*GRAMMAR, *NOUNS, *NAMES, *LOCAL_NAMES, *BAD_WORDS),
    *(value for values in VALUES.values() for value in values),
)


@cache
def lexicon() -> dict[str, str]:
    """Return the word of B for every word of A; no two words of A share one."""
    rng = random.Random("lexicon/2310")
    coined: dict[str, None] = {}
    while len(coined) < len(WORDS):
        coined[_coin(rng)] = None
    return dict(zip(WORDS, coined, strict=True))


@cache
def glosses() -> dict[str, str]:
    """Return the word of A for every word of B."""
    return {b: a for a, b in lexicon().items()}


def to_b(words: Iterable[str]) -> list[str]:
    """Translate words of A into B; punctuation stays."""
    return [lexicon().get(word, word) for word in words]


def to_a(words: Iterable[str]) -> list[str]:
    """Translate words of B into A; words of A and punctuation stay."""
    return [glosses().get(word, word) for word in words]


Translate: TypeAlias = Callable[[Words], Words]
"""From A into B: `to_b`, or a function that puts the words in another order as well."""


def text_in_b(text: str, translate: Translate = to_b) -> str:
    """Translate a text of A, words separated by blanks, into B."""
    return " ".join(translate(text.split()))


def gloss(text: str) -> str:
    """Translate a text of B, words separated by blanks, into A."""
    return " ".join(to_a(text.split()))


def language_of(words: Iterable[str]) -> Literal["A", "B", "mixed", "none"]:
    """Tell in which language this is; what is in neither lexicon or in both does not count."""
    in_b = {word in glosses() for word in words if word in glosses() or word in lexicon()}
    if len(in_b) == 2:
        return "mixed"
    return "none" if not in_b else "B" if in_b == {True} else "A"


def _coin(rng: random.Random) -> str:
    return "".join(_syllable(rng) for _ in range(rng.choice((2, 2, 3))))


def _syllable(rng: random.Random) -> str:
    # Unicode lays Hangul syllables out as (initial * 21 + vowel) * 28 + final.
    initial = rng.choice((0, 2, 3, 5, 6, 7, 9, 11, 12, 14, 18))  # the plain consonants
    vowel = rng.choice((0, 4, 8, 13, 18, 20))  # a eo o u eu i
    final = rng.choice((0, 0, 0, 4, 8, 16, 21))  # none, n, l, m, ng
    return chr(0xAC00 + (initial * 21 + vowel) * 28 + final)
