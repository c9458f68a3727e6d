"""Words of strangers in Markdown, where they are words and nothing else.

A licence, a language or a token can hold headings, tables, links, and tags that a browser obeys.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from chatvec_method.plain_text import cut, plain

ACTS = re.compile(r"[\\`*_{}\[\]<>()#+!|~&-]")
LONGEST = 200


def prose(text: str) -> str:
    r"""Return a text on one line in which no sign means anything to Markdown: `\<b\>`."""
    return ACTS.sub(lambda found: f"\\{found[0]}" if _acts(found) else found[0], _line(text))


def code(text: str) -> str:
    """Return a text on one line as code, whatever backticks it has itself."""
    line = _line(text) or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in line) + " |"
        for line in lines
    )


def _acts(found: re.Match[str]) -> bool:
    """Tell whether a sign could mean something where it stands: `-` and `_` in a name do not."""
    sign, text, place = found[0], found.string, found.start()
    if sign in "-+#!().":
        return sign == "!" or place == 0 or (sign in "()" and text[place - 1] == "]")
    if sign == "_":
        around = text[max(place - 1, 0) : place + 2].replace("_", "")
        return len(around) < 2 or not around.isalnum()
    return True


def _line(text: str) -> str:
    return cut(" ".join(plain(text).split()), LONGEST)
