"""A terminal to look at: commands run on a real pseudo-terminal, and what a person then sees.

They run in processes forked from one that has imported everything: this file, run as a program.
"""

from __future__ import annotations

import fcntl
import importlib
import io
import json
import locale
import os
import pty
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyte

ROWS = 24
LONGEST = 2000
"""Lines that the terminal remembers."""
SECONDS = 120
IMPORTED = (
    "matplotlib.figure",
    "transformers.models.llama.modeling_llama",
    *(f"chatvec_method.cli.{name}" for name in "anatomy chat check demo merge schedule".split()),
    "chatvec_method.cli.ratio_tables",
    "chatvec_method.demo",
    "chatvec_method.talk.speaker",
)
"""What each of the commands would import anew."""
DISK, MEMORY = 100_000_000_000, 32_000_000_000
"""Free on the machine that is shown."""


@dataclass(frozen=True)
class Terminal:
    """A kind of terminal."""

    columns: int = 80
    encoding: str = "utf-8"
    term: str = "xterm-256color"
    settings: tuple[tuple[str, str], ...] = ()
    """Variables of the environment."""


@dataclass(frozen=True)
class Session:
    """A command that has run in a terminal."""

    screen: str
    """All that can be read on it, from the beginning, without what was drawn over."""
    sent: str
    """All that the terminal was sent."""
    exit_code: int


@dataclass(frozen=True)
class Server:
    """The process that has imported everything."""

    process: subprocess.Popen[str]

    def run(
        self, terminal: Terminal, folder: Path, *arguments: str, typed: str = "", **job: Any
    ) -> Session:
        """Run `chatvec` with some arguments, in a folder, and type something once it listens."""
        job |= {"terminal": vars(terminal), "folder": str(folder), "arguments": arguments}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps({**job, "typed": typed}), file=self.process.stdin, flush=True)
        return Session(**json.loads(self.process.stdout.readline()))


@contextmanager
def serving() -> Iterator[Server]:
    """Have a server until the end of the block."""
    here = Path(__file__)
    path = os.pathsep.join([str(here.parent), str(here.parent.parent)])
    with subprocess.Popen(
        [sys.executable, str(here)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    ) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


# --- in that process --------------------------------------------------------------------------


def _serve() -> None:
    for module in IMPORTED:
        importlib.import_module(module)
    for line in sys.stdin:
        job = json.loads(line)
        terminal = Terminal(**job.pop("terminal"))
        pid, end = pty.fork()
        if pid == 0:
            try:
                _command(terminal, **job)
            finally:
                os._exit(70)
        sent = _sent(end, job["typed"].encode(terminal.encoding, errors="replace"))
        exit_code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        text = sent.decode(terminal.encoding, errors="replace")
        session = Session(_seen(text, terminal.columns), text, exit_code)
        print(json.dumps(vars(session)), flush=True)


def _command(
    terminal: Terminal,
    folder: str,
    arguments: list[str],
    typed: str,
    hub: str = "",
    merged: str = "",
) -> None:
    """Be the command `chatvec`, as it would be in this terminal."""
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, terminal.columns, 0, 0))
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "CI"):
        os.environ.pop(name, None)
    os.environ.update(TERM=terminal.term, LC_ALL="ko_KR.UTF-8", **dict(terminal.settings))
    os.chdir(folder)
    locale.getpreferredencoding = lambda _=True: terminal.encoding  # as Python would find it
    for number, (name, mode) in enumerate([("stdin", "r"), ("stdout", "w"), ("stderr", "w")]):
        buffer: Any = open(number, f"{mode}b", closefd=False)  # noqa: SIM115
        errors = "backslashreplace" if name == "stderr" else "strict"
        stream = io.TextIOWrapper(buffer, terminal.encoding, errors, line_buffering=mode == "w")
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    _same_everywhere(hub, merged)
    from chatvec_method import cli

    try:
        cli.main([*arguments], prog_name="chatvec")
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))


def _same_everywhere(hub: str, merged: str) -> None:
    """Make what a command shows of this machine the same on all: free space, a hub, a merge."""
    from huggingface_hub import constants
    from transformers.utils.hub import hf_api

    from chatvec_method import demo
    from chatvec_method.facts import cost

    usage = shutil.disk_usage(".")._replace(free=DISK)
    cost.shutil.disk_usage = lambda _: usage  # type: ignore[assignment]
    memory = cost.psutil.virtual_memory()._replace(available=MEMORY)
    cost.psutil.virtual_memory = lambda: memory
    hf_api().endpoint = constants.ENDPOINT = hub or "http://127.0.0.1:9"
    template = "/{repo_id}/resolve/{revision}/{filename}"
    constants.HUGGINGFACE_CO_URL_TEMPLATE = constants.ENDPOINT + template
    constants.HF_HUB_CACHE = "cache"
    if merged:  # as the stock command, which takes a while, would make it
        demo.merge = lambda made: shutil.copytree(merged, made.merged) and None


def _sent(end: int, typed: bytes) -> bytes:
    """Return all that comes out of a terminal; what is typed goes in when a prompt is seen."""
    sent = b""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        ready, _, _ = select.select([end], [], [], 1)
        if not ready:
            continue
        try:
            part = os.read(end, 1 << 16)
        except OSError:  # Linux, where others return nothing
            break
        if not part:
            break
        sent += part
        if typed and sent.endswith(b"> "):
            line, _, typed = typed.partition(b"\n")
            os.write(end, line + b"\n")
    os.close(end)
    return sent


def _seen(text: str, columns: int) -> str:
    screen = pyte.HistoryScreen(columns, ROWS, history=LONGEST)
    pyte.Stream(screen).feed(text)
    above = ["".join(line[x].data for x in range(columns)) for line in screen.history.top]
    return "\n".join(line.rstrip() for line in [*above, *screen.display]).rstrip() + "\n"


if __name__ == "__main__":
    _serve()
