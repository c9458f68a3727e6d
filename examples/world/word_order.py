"""A harder B: the same words, in an order of their own.

By default B is A word by word. Here its verb comes last, its prepositions become postpositions, and
what belongs to something follows it, much as in Korean or Japanese: `what is the color of anna ?`
becomes `what anna of the color is ?`, before its words are translated. Reported speech still
follows its verb (`anna says ...`), so that a story can be told up to where an answer begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from transformers import PretrainedConfig

from .language import PUNCTUATION, Translate, Words, to_b

AS_A = "as-a"
VERBS = {"is", "has", "sees", "repeat", "say"}
BOUNDARIES = {*PUNCTUATION, "says", "asks", "answers", "so", "list", "again"}


def to_b_verb_last(words: Sequence[str]) -> Words:
    """Translate words of A into B, each clause in the order of a language whose verb is last."""
    clauses = groupby(words, key=BOUNDARIES.__contains__)
    ordered = (list(part) if boundary else verb_last(list(part)) for boundary, part in clauses)
    return to_b(word for part in ordered for word in part)


def verb_last(clause: Words) -> Words:
    """Put the words of one clause of A, without punctuation, in the other order."""
    words = _place_first(_owner_first(clause))
    verbs = [word for word in words if word in VERBS]
    return [word for word in words if word not in VERBS] + verbs


def _owner_first(words: Words) -> Words:
    """Turn `the color of anna` into `anna of the color`."""
    if "of" not in words:
        return words
    at = words.index("of")
    start = words.index("the")
    end = next((i for i in range(at, len(words)) if words[i] in VERBS | {"in"}), len(words))
    return [*words[:start], *words[at + 1 : end], "of", *words[start:at], *words[end:]]


def _place_first(words: Words) -> Words:
    """Turn `in oslo` into `oslo in`."""
    if "in" not in words:
        return words
    at = words.index("in")
    return [*words[:at], *words[at + 1 : at + 2], "in", *words[at + 2 :]]


ORDERS: dict[str, Translate] = {AS_A: to_b, "verb-last": to_b_verb_last}


def translation_of(config: PretrainedConfig) -> Translate:
    """Return the translation into the B in which a model of this config has grown up."""
    return ORDERS[getattr(config, "world_order", AS_A)]
