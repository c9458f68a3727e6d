"""What fits a terminal: tables that become several or blocks, text that breaks between words.

What somebody may copy, code in backticks, YAML and commands, has no line breaks of ours in it:
where it is wider than the terminal, that breaks the line, and copies it whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from chatvec_method.cli.console import PIPE_WIDTH, table

if TYPE_CHECKING:
    from rich.console import Console

BETWEEN = 3
"""The cells between two columns of a table on a terminal."""
UNIT = re.compile(r"(?:`[^`]+`|[^\s`]|`)+")
"""A word, with the code in it."""


def prose(screen: Console, text: str, *, indent: int = 0, style: str = "", lead: str = "") -> None:
    """Print sentences, broken between words but not within code; lines of the text stay lines.

    Args:
        screen: Where to.
        text: The sentences.
        indent: So many spaces are before every line.
        style: Of all of it.
        lead: What the text begins with, which is printed in bold.
    """
    for line in text.split("\n"):
        whole = screen.width >= PIPE_WIDTH
        for part in [line] if whole else _broken(line, screen.width - indent):
            bold = lead if part.startswith(lead) else ""
            rest = part.removeprefix(bold)
            screen.print(Text.assemble(" " * indent, (bold, "bold"), (rest, style)), soft_wrap=True)
            lead = ""


def verbatim(screen: Console, text: str, style: str = "") -> None:
    """Print what is to be copied, with its own line breaks only."""
    screen.print(Text(text, style), soft_wrap=True)


def figures(
    screen: Console,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    ends: Sequence[int] = (),
) -> None:
    """Print a table of numbers with a first column of names; where it is too wide, several.

    Args:
        screen: Where to.
        title: Above it.
        header: The columns' names.
        rows: Each with a name and numbers.
        ends: The rows after which there is a line.
    """
    groups = list(_groups(header, rows, screen.width))
    for i, columns in enumerate(groups):
        chosen = [[row[column] for column in (0, *columns)] for row in rows]
        names = [header[column] for column in (0, *columns)]
        widths = _widths(names, chosen, screen.width)
        drawn = table(title if i == 0 else "", names, chosen, range(1, len(names)), widths)
        for row in ends:
            drawn.rows[row].end_section = True
        if i:
            screen.print()
        screen.print(drawn)


def records(
    screen: Console,
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[int] = (),
    heads: int = 1,
    in_lines: bool = False,
) -> None:
    """Print things with what is known of each: a table, or where that is too wide a block each.

    Args:
        screen: Where to.
        title: Above it.
        header: The columns' names.
        rows: The things.
        right: Which columns are numbers.
        heads: How many columns at the beginning say which thing it is.
        in_lines: Whether each fact in a block has a line of its own.
    """
    widths = _widths(header, rows, screen.width)
    if widths is not None:
        screen.print(table(title, header, rows, right, widths))
        return
    if title:
        verbatim(screen, title, "bold")
    for row in rows:
        verbatim(screen, "  ".join(cell for cell in row[:heads] if cell), "bold")
        known = zip(header[heads:], row[heads:], strict=True)
        if in_lines:
            facts = [f"{name}: {value}" for name, value in known]
        else:
            facts = _joined([f"{name} {value}".strip() for name, value in known if value], screen)
        for fact in facts:
            prose(screen, fact, indent=2)


def _broken(line: str, width: int) -> Iterator[str]:
    """Yield a line in parts that fit, but for what must not be broken."""
    if cell_len(line) <= width:
        yield line
        return
    part = line[: len(line) - len(line.lstrip())]
    empty = True
    for unit in UNIT.findall(line):
        longer = f"{part}{unit}" if empty else f"{part} {unit}"
        if not empty and cell_len(longer) > width:
            yield part
            longer = unit
        part, empty = longer, False
    yield part


def _joined(facts: Sequence[str], screen: Console) -> list[str]:
    """Return facts with commas between them, as many on a line as fit."""
    lines: list[str] = []
    for fact in facts:
        if lines and cell_len(f"{lines[-1]}, {fact},") <= screen.width - 2:
            lines[-1] += f", {fact}"
        else:
            lines.append(fact)
    return [f"{line}," for line in lines[:-1]] + lines[-1:]


def _widths(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """Return how wide each column is, with breaks between words alone; None where it cannot be."""
    columns = list(zip(header, *rows, strict=True))
    least = [
        max(max(map(cell_len, cell.split()), default=0) for cell in cells) for cells in columns
    ]
    most = [max(map(cell_len, cells)) for cells in columns]
    room = width - BETWEEN * (len(columns) - 1)
    if sum(least) > room:
        return None
    given = list(least)
    while sum(given) < min(room, sum(most)):
        # To the column that lacks most: its cells have most lines.
        neediest = max(range(len(given)), key=lambda i: most[i] / max(given[i], 1))
        given[neediest] += 1
    return given


def _longest_word(cell: str) -> int:
    return max(map(cell_len, cell.split()), default=0)


def _groups(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> Iterator[list[int]]:
    """Yield the columns that fit beside the first, one group after the other."""
    group: list[int] = []
    for column in range(1, len(header)):
        longer = [0, *group, column]
        names, chosen = [header[i] for i in longer], [[row[i] for i in longer] for row in rows]
        if group and _widths(names, chosen, width) is None:
            yield group
            group = []
        group.append(column)
    yield group
