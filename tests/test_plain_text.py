"""Text of strangers: nothing in it acts on a terminal, and it has an end."""

from __future__ import annotations

import json

import pytest

from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.plain_text import cut, plain, plain_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mit\x1b[8m, hidden", "mit\\x1b[8m, hidden"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("a\rb", "a\\x0db"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("two\r\nlines\tand 한국어, é, 👩‍👩‍👧", "two\nlines\tand 한국어, é, 👩‍👩‍👧"),
    ],
)
def test_what_acts_on_a_terminal_is_spelt_out(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert plain(shown) == shown


def test_json_says_the_same_after_it() -> None:
    said = {"licence": "mit\x1b[8m\x9b\u202e한"}
    text = plain_json(json.dumps(said, ensure_ascii=False))
    assert json.loads(text) == said
    assert plain(text) == text


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    text = cut("a" * 9000 + "z")
    assert len(text) < 2100
    assert text.startswith("aaa")
    assert text.endswith("z")
    assert cut("short") == "short"


def test_errors_are_short_and_plain() -> None:
    error = ChatVecError(f"model \x1b[8m{'x' * 10**6} is wrong.", "Write another.")
    assert len(str(error)) < 5000
    assert "\x1b" not in str(error)
    assert len(first_line(ValueError("x" * 10**6))) < 500
