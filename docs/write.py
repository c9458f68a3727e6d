"""Writes what can be written of these pages: `python docs/write.py`, from anywhere.

docs/cli.md gets the exit codes and the `--help` of every command, and docs/python.md below each of
its examples what that prints. A test holds both against what this would write.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from chatvec_method.cli import main
from chatvec_method.cli.exits import EXIT_CODES

ROOT = Path(__file__).resolve().parent.parent
CLI_PAGE, PYTHON_PAGE = ROOT / "docs" / "cli.md", ROOT / "docs" / "python.md"
WIDTH = 100
HEADING = """\
# The commands

What `--help` prints; `python docs/write.py` puts it here. `chatvec completion` makes a shell
complete all of it.

## Exit codes

| code | what it says |
| --- | --- |
{codes}

Errors go to stderr, as `Error: ` and a sentence or two. Under `--json`, stdout then has an object
`error` as well: its `code` (`usage` for the command line), the `problem`, and the `fix`. A merge
that its check refuses has the check's report there instead, with `"result": null`.
"""
EXAMPLE = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<printed>.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)


def cli_page() -> str:
    """Return docs/cli.md."""
    context = click.Context(main, info_name="chatvec", **main.context_settings)
    codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items())
    return "\n".join([HEADING.format(codes=codes), *_sections(main, context)])


def _sections(command: click.Command, context: click.Context) -> Iterator[str]:
    context.terminal_width = WIDTH
    help_text = command.get_help(context).rstrip()
    yield f"## {context.command_path}\n\n```text\n{help_text}\n```\n"
    for name in command.list_commands(context) if isinstance(command, click.Group) else ():
        below = command.get_command(context, name)
        assert below is not None
        yield from _sections(below, click.Context(below, info_name=name, parent=context))


def python_page() -> str:
    """Return docs/python.md, with what its examples print now."""
    names: dict[str, object] = {}
    text = PYTHON_PAGE.read_text(encoding="utf-8")

    def run(example: re.Match[str]) -> str:
        # Padded, so that a traceback has the page's line.
        padding = "\n" * text.count("\n", 0, example.start("code"))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(padding + example["code"], PYTHON_PAGE, "exec"), names)
        below = f"\n```text\n{printed.getvalue()}```\n" if printed.getvalue() else ""
        return f"```python\n{example['code']}```\n{below}"

    with _clone():
        return EXAMPLE.sub(run, text)


@contextlib.contextmanager
def _clone() -> Iterator[None]:
    """Work in a folder that has what the examples need of a clone."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        for part in ("examples/world/models", "recipes"):
            shutil.copytree(ROOT / part, Path(folder) / part)
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


if __name__ == "__main__":
    CLI_PAGE.write_text(cli_page(), encoding="utf-8")
    PYTHON_PAGE.write_text(python_page(), encoding="utf-8")
