"""What every answer is asked for: whether it came to an end, and in which language it is."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from typing import Literal

END = "␄"
"""Stands at the end of a response that the model ended by itself."""

Language = Literal["target", "source", "mixed", "neither"]


def read_response(response: str) -> tuple[str, bool]:
    """Return the text of a model's response, and whether the model came to its end by itself."""
    return response.removesuffix(END), response.endswith(END)


def language_of(text: str, target: Collection[str], source: Collection[str]) -> Language:
    """Tell the language of a text by the scripts of its letters.

    Args:
        text: Digits, punctuation and the letters of other scripts count for nothing.
        target: The scripts of the target language, as the names of their letters begin in Unicode:
            "HANGUL"; "HIRAGANA", "KATAKANA" and "CJK" for Japanese.
        source: Those of the source language.
    """
    scripts = {unicodedata.name(letter, "").split()[0] for letter in text if letter.isalpha()}
    in_target, in_source = not scripts.isdisjoint(target), not scripts.isdisjoint(source)
    if in_target and in_source:
        return "mixed"
    return "target" if in_target else "source" if in_source else "neither"
