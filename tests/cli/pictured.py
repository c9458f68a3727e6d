"""The commands as people see them in terminals, kept in `screens/`: `python tests/cli/pictured.py`.

A file for each command, with what each kind of terminal shows, one below the other. Look at what
has changed in them before you commit it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import hub
from terminal import Server, Session, Terminal, serving

ROOT = Path(__file__).resolve().parent.parent.parent
SCREENS = Path(__file__).parent / "screens"
TERMINALS = {
    "60 columns": Terminal(60),
    "80 columns": Terminal(80),
    "120 columns": Terminal(120),
    "80 columns, cp949": Terminal(80, "cp949"),
    "80 columns, cp932": Terminal(80, "cp932"),
    "80 columns, dumb": Terminal(80, term="dumb"),
    "80 columns, no colour": Terminal(80, settings=(("NO_COLOR", "1"),)),
}
MESSAGE = "건옴 고시문 몬론멀 브즘 ."
COMMANDS = {
    "check": "check recipes/world.yaml",
    "merge": "merge from_hub.yaml out",
    "anatomy": "anatomy recipes/world.yaml",
    "schedule": "schedule show recipes/per_layer.yaml --layers 4",
    "demo": "demo",
    "chat": "chat merged",
}
ASKED = {"chat": f"chat merged --ask '{MESSAGE}'"}
"""In code pages: what is typed would come as the locale has it, which not all machines have."""
ONLY = {
    "80 columns, cp932": ("check", "chat", "demo"),
    "80 columns, dumb": ("check", "merge"),
    "80 columns, no colour": ("check", "merge"),
}
"""Terminals for some commands."""
OWNER = "made-up-languages"
HUB_BYTES_PER_SECOND = 5_000_000
"""Slow enough for bars to be drawn again and again."""
VARYING = (
    (r"(?m)^(\w+ing +)[━╸╺-]{3,}", r"\1━━━"),
    (r" +\d+(\.\d)? [kMG]?(B/s|bytes/s) +\d:\d\d:\d\d", " (speed, time)"),
    (r"Loading weights: .*", "Loading weights: (bar)"),
    (r"All in all \d+ seconds", "All in all N seconds"),
)
"""What is another every time."""


@dataclass(frozen=True)
class Studio:
    """Where commands run that are looked at."""

    server: Server
    folder: Path
    """Has what the commands need of a clone, and a recipe with models of a hub."""
    hub: str
    taken: dict[tuple[str, str], Session] = field(default_factory=dict)
    """What has run already, by command and kind of terminal."""

    def session(self, command: str, kind: str) -> Session:
        """Return how one of COMMANDS runs in one of TERMINALS."""
        if (command, kind) not in self.taken:
            self.taken[command, kind] = self._run(command, kind)
        return self.taken[command, kind]

    def _run(self, command: str, kind: str) -> Session:
        terminal = TERMINALS[kind]
        words = ASKED.get(command) if terminal.encoding != "utf-8" else None
        for made in ("out", "cache", "chatvec-demo"):
            shutil.rmtree(self.folder / made, ignore_errors=True)
        return self.server.run(
            terminal,
            self.folder,
            *shlex.split(words or COMMANDS[command]),
            typed=f"{MESSAGE}\n/quit\n" if command == "chat" and not words else "",
            hub=self.hub,
            merged="merged",
        )


@contextmanager
def studio(folder: Path) -> Iterator[Studio]:
    """Have a studio in an empty folder until the end of the block."""
    for part in ("examples/world/models", "recipes"):
        shutil.copytree(ROOT / part, folder / part)
    models = "examples/world/models/"
    for name in ("base", "chat", "cp"):
        shutil.copytree(folder / models / name, folder / "hub" / OWNER / f"World-{name}")
    recipe = (folder / "recipes/world.yaml").read_text(encoding="utf-8")
    recipe = recipe.replace(models, f"{OWNER}/World-")
    (folder / "from_hub.yaml").write_text(recipe, encoding="utf-8")
    settings = {"bytes_per_second": HUB_BYTES_PER_SECOND}
    with hub.serving(folder / "hub", **settings) as served, serving() as server:
        server.run(Terminal(), folder, "merge", "recipes/world.yaml", "merged")
        yield Studio(server, folder, served.address)


def kinds_of(command: str) -> list[str]:
    """Return the kinds of terminals in which a command is looked at."""
    return [kind for kind in TERMINALS if command in ONLY.get(kind, COMMANDS)]


def without_what_varies(screen: str) -> str:
    """Return what a terminal shows, as it is every time."""
    for pattern, text in VARYING:
        screen = re.sub(pattern, text, screen)
    return screen


def page(command: str, screens: dict[str, str]) -> str:
    """Return a file of `screens/`."""
    parts = [f"$ chatvec {COMMANDS[command]}\n"]
    parts += [f"==== {name} ====\n{screen}" for name, screen in screens.items()]
    return "\n".join(parts)


def kept(command: str) -> dict[str, str]:
    """Return what is in a file of `screens/`, by kind of terminal."""
    text = (SCREENS / f"{command}.txt").read_text(encoding="utf-8")
    parts = re.split(r"\n==== (.*) ====\n", text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def main() -> None:
    """Write all of them anew, or those that are named."""
    with tempfile.TemporaryDirectory() as temporary, studio(Path(temporary)) as taken:
        for command in sys.argv[1:] or COMMANDS:
            screens = {
                kind: without_what_varies(taken.session(command, kind).screen)
                for kind in kinds_of(command)
            }
            file = SCREENS / f"{command}.txt"
            file.write_text(page(command, screens), encoding="utf-8")


if __name__ == "__main__":
    main()
