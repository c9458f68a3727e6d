"""Tokens as the text they stand for: `오늘` where a vocabulary of bytes has `ìĺ¤ëĬĺ`."""

from __future__ import annotations

from collections.abc import Container
from functools import cache

SPACE_OF_BYTES, SPACE_OF_WORDS = "Ġ", "▁"
"""A space in vocabularies of bytes, as GPT-2 began them, and in those of SentencePiece."""


def holds_bytes(tokens: Container[str]) -> bool:
    """Tell whether a vocabulary is one of bytes, in which a token may be part of a character."""
    return SPACE_OF_BYTES in tokens and SPACE_OF_WORDS not in tokens


def text_of(token: str) -> str:
    """Return the text that a token stands for; the token where it is none by itself."""
    try:
        return _bytes_of(token).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return token.replace(SPACE_OF_WORDS, " ")


def is_part_of_character(token: str) -> bool:
    """Tell whether a token of a vocabulary of bytes begins or ends within a character."""
    try:
        _bytes_of(token).decode("utf-8")
    except KeyError:  # not written in bytes: a special token, or one that was added
        return False
    except UnicodeDecodeError:
        return True
    return False


def _bytes_of(token: str) -> bytes:
    return bytes(_alphabet()[letter] for letter in token)


@cache
def _alphabet() -> dict[str, int]:
    """Return the letters for the 256 bytes: their own where they can be seen, else from U+0100 on.

    As in `bytes_to_unicode` of GPT-2's encoder.py (Radford et al., 2019).
    """
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = [byte for byte in range(256) if byte not in seen]
    letters = {chr(byte): byte for byte in seen}
    return letters | {chr(0x100 + i): byte for i, byte in enumerate(unseen)}
