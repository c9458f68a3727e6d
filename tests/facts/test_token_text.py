"""Tokens are shown as the text they stand for."""

from __future__ import annotations

import pytest
from transformers.convert_slow_tokenizer import bytes_to_unicode

from chatvec_method.facts.token_text import holds_bytes, is_part_of_character, text_of


def in_bytes(data: bytes) -> str:
    """Return a token as a vocabulary of bytes writes it."""
    return "".join(bytes_to_unicode()[byte] for byte in data)


@pytest.mark.parametrize("text", ["오늘", "今日は", " the", "\n", "한", "😀", "naïve"])
def test_a_token_of_bytes_is_its_text(text: str) -> None:
    token = in_bytes(text.encode("utf-8"))
    assert text_of(token) == text
    assert not is_part_of_character(token)


@pytest.mark.parametrize("data", ["오".encode()[:2], "오".encode()[1:], b" " + "오".encode()[:1]])
def test_a_part_of_a_character_is_none(data: bytes) -> None:
    assert is_part_of_character(in_bytes(data))
    assert text_of(in_bytes(data)) == in_bytes(data)


@pytest.mark.parametrize(
    ("token", "text"), [("▁오늘", " 오늘"), ("<|im_end|>", "<|im_end|>"), ("오늘", "오늘")]
)
def test_other_tokens_are_text_already(token: str, text: str) -> None:
    assert text_of(token) == text
    assert not is_part_of_character(token)


def test_a_vocabulary_of_bytes_is_known_by_its_spaces() -> None:
    assert holds_bytes({"Ġ", "a"})
    assert not holds_bytes({"▁", "Ġ", "a"})
    assert not holds_bytes({"a"})
