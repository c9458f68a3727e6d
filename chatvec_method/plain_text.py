"""Text of strangers as it may stand on a terminal: nothing in it acts, and it has an end.

A model's name, licence, token or answer can hold sequences by which a terminal hides the rest of a
line, changes its title or clears the screen, and signs that turn the direction of writing, so that
a line reads otherwise than it is.
"""

from __future__ import annotations

import re

ACTS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters but tab and line feed, separators of lines, overrides of the direction of
writing, and halves of characters, which cannot be written at all."""
LONGEST = 2000


def plain(text: str) -> str:
    r"""Return a text with what would act on a terminal spelt out, as `\x1b` or `\u202e`."""
    return ACTS.sub(lambda found: _spelt(found[0]), text.replace("\r\n", "\n"))


def plain_json(text: str) -> str:
    """Return JSON that says the same, in which nothing acts on a terminal.

    Args:
        text: JSON, in which such characters can only stand within strings.
    """
    return ACTS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def cut(text: str, most: int = LONGEST) -> str:
    """Return a text without its middle, where it is longer than anybody would read."""
    if len(text) <= most:
        return text
    return f"{text[: most * 3 // 4]} [...] {text[len(text) - most // 4 :]}"


def _spelt(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
