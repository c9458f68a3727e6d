"""What an answer is asked for, whatever the task: in which language it is."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from typing import Literal

Language = Literal["target", "source", "mixed", "neither"]


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
