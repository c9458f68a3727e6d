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


@click.command()
@click.argument("out", type=FOLDER, default=Path("chatvec-demo"))
def demo(out: Path) -> None:
    """Make a chat model of three tiny ones in the folder OUT, and talk to it.

    The models know two made-up languages and are trained from nothing; they come with this package.
    Stock mergekit-yaml merges them, as it would merge large ones. Then the same requests go to cp
    and to the merge, in the language of cp, with a gloss. OUT is chatvec-demo by default.

    Example: chatvec demo
    """
    began = time.monotonic()
    with loading("mergekit"):
        from chatvec_method import demo as show

        quiet_libraries()
    screen = console()
    made = show.unpack(out)
    screen.print(f"{made.models}: base, chat and cp, half a million parameters each")
    screen.print(f"$ {shlex.join(made.command())}", style="bold")
    show.merge(made)
    screen.print(f"$ {shlex.join(['chatvec', 'finish', str(made.merged)])}", style="bold")
    show.make_ready(made)
    speakers = show.speakers(made)
    for scene in show.scenes():
        turns = {name: show.play(speaker, scene) for name, speaker in speakers.items()}
        screen.print(f"\n{scene.about}", style="bold")
        screen.print(_table(scene, turns))
    screen.print(
        "\n… is where a model did not stop by itself. chat was taught to follow requests in the\n"
        "other language, cp has read this one; nobody taught the merge."
    )
    screen.print(f"All in all {time.monotonic() - began:.0f} seconds. Talk to them yourself:")
    talk = ["chatvec", "chat", str(made.merged), "--compare", str(made.models / "cp")]
    screen.print(f"$ {shlex.join(talk)}", style="bold")


def _table(scene: Scene, turns: Mapping[str, Sequence[Turn]]) -> Table:
    """Return a conversation as all models had it, each line with its gloss."""
    from rich.table import Table
    from rich.text import Text

    from chatvec_method.demo import gloss

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for i, request in enumerate(scene.requests):
        table.add_row("  asked", Text(request, "bold"), Text(gloss(request), "dim"))
        for name, said in turns.items():
            text = said[i].answer + ("" if said[i].ended else " …")
            table.add_row(f"  {name}", Text(text, "cyan"), Text(gloss(text), "dim"))
    return table
