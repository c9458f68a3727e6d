"""`chatvec demo`: from three small models to one that chats, with nothing but this package."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chatvec_method.cli.completing import FOLDER
from chatvec_method.cli.console import console, quiet_libraries
from chatvec_method.cli.loading import loading

if TYPE_CHECKING:
    from rich.table import Table

    from chatvec_method.demo import Scene, Turn

BETWEEN = 2
"""Cells between columns."""
BESIDE_WIDTH = 100
"""So wide a terminal must be for glosses beside what was said; else they are below."""


@click.command()
@click.argument("out", type=FOLDER, default=Path("chatvec-demo"))
def demo(out: Path) -> None:
    """Make a chat model of three tiny ones in the folder OUT, and talk to it.

    The models know two made-up languages and are trained from nothing; they come with this package.
    Stock mergekit-yaml merges them, as it would merge large ones. Then the same requests go to cp
    and to the merge, in the language of cp, with a gloss. OUT is chatvec-demo by default; if the
    demo was there before, its recipe is merged again, with what you changed in it.

    Example: chatvec demo
    """
    began = time.monotonic()
    with loading("mergekit"):
        from chatvec_method import demo as show
        from chatvec_method.cli.layout import prose, verbatim

        quiet_libraries()
    screen = console()
    made = show.unpack(out)
    screen.print(f"{made.models}: base, chat and cp, half a million parameters each")
    verbatim(screen, f"$ {shlex.join(made.command())}", "bold")
    show.merge(made)
    verbatim(screen, f"$ {shlex.join(['chatvec', 'finish', str(made.merged)])}", "bold")
    show.make_ready(made)
    speakers = show.speakers(made)
    for scene in show.scenes():
        turns = {name: show.play(speaker, scene) for name, speaker in speakers.items()}
        screen.print(f"\n{scene.about}", style="bold")
        screen.print(_table(scene, turns, screen.width))
    prose(
        screen,
        "\n… is where a model did not stop by itself. chat was taught to follow requests in the "
        "other language, cp has read this one; nobody taught the merge.",
    )
    took = time.monotonic() - began
    prose(screen, f"All in all {took:.0f} seconds. Talk to them yourself:")
    talk = ["chatvec", "chat", str(made.merged), "--compare", str(made.models / "cp")]
    verbatim(screen, f"$ {shlex.join(talk)}", "bold")


def _table(scene: Scene, turns: Mapping[str, Sequence[Turn]], width: int) -> Table:
    """Return a conversation as all models had it, each line with its gloss beside or below it."""
    from rich.table import Table
    from rich.text import Text

    from chatvec_method.demo import gloss

    rows = []
    for i, request in enumerate(scene.requests):
        rows.append(("  asked", Text(request, "bold")))
        for name, said in turns.items():
            text = said[i].answer + ("" if said[i].ended else " …")
            rows.append((f"  {name}", Text(text, "cyan")))
    glosses = [Text(gloss(text.plain), "dim") for _, text in rows]
    beside = width >= BESIDE_WIDTH
    table = Table(box=None, show_header=False, padding=(0, BETWEEN, 0, 0))
    for _ in range(3 if beside else 2):
        table.add_column(overflow="fold")  # and not cut
    for (name, said_text), meaning in zip(rows, glosses, strict=True):
        below = Text("\n").join([said_text, meaning])
        cells = (said_text, meaning) if beside else (below,)
        table.add_row(name, *cells)
    return table
