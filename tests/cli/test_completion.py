"""What a shell offers while a command is written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from chatvec_method.cli import COMMANDS, main
from chatvec_method.cli.completion import SHELLS, VARIABLE


@pytest.fixture(autouse=True)
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder like a clone, with a recipe of one's own beside the catalogue."""
    (tmp_path / "recipes").mkdir()
    for name in ("eeve_chat.yaml", "world.yaml", "README.md"):
        (tmp_path / "recipes" / name).touch()
    (tmp_path / "mine.yml").touch()
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def offered(line: str) -> list[str]:
    """Return what is offered for the last word of a line, which may be empty."""
    *words, last = line.split(" ")
    complete = BashComplete(main, {}, "chatvec", VARIABLE)
    return [
        f"<{o.type}>" if o.type != "plain" else o.value
        for o in complete.get_completions(words, last)
    ]


def test_commands_are_offered_with_what_they_are_for() -> None:
    assert offered("") == list(COMMANDS)
    assert offered("ch") == ["check", "chat"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("check mi", ["mine.yml"]),
        ("check eeve", ["recipes/eeve_chat.yaml"]),
        ("merge recipes/w", ["recipes/world.yaml"]),
        ("anatomy recip", ["recipes/eeve_chat.yaml", "recipes/world.yaml"]),
        ("schedule show m", ["mine.yml", "models/"]),
        ("schedule linear --into w", ["recipes/world.yaml"]),
        ("finish out --recipe eeve", ["recipes/eeve_chat.yaml"]),
        (
            "check ",
            ["mine.yml", "models/", "recipes/", "recipes/eeve_chat.yaml", "recipes/world.yaml"],
        ),
    ],
)
def test_recipes_here_and_in_the_catalogue_are_offered(line: str, expected: list[str]) -> None:
    assert offered(line) == expected


@pytest.mark.parametrize("line", ["merge mine.yml o", "finish ", "chat ", "chat out --compare "])
def test_folders_are_left_to_the_shell(line: str) -> None:
    assert offered(line) == ["<dir>"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("check mine.yml --st", ["--strict"]),
        ("merge mine.yml out --lora", ["--lora-merge-cache", "--lora-merge-dtype"]),
        ("anatomy mine.yml --write", []),
        ("schedule gau", ["gaussian"]),
        ("schedule gaussian --lo", ["--low"]),
        ("completion ", list(SHELLS)),
    ],
)
def test_options_and_shapes_are_offered(line: str, expected: list[str]) -> None:
    assert offered(line) == expected


@pytest.mark.parametrize("shell", SHELLS)
def test_the_printed_script_asks_this_command(shell: str) -> None:
    printed = CliRunner().invoke(main, ["completion", shell]).stdout

    assert f"{VARIABLE}={shell}_complete" in printed
    assert "chatvec" in printed


@pytest.mark.skipif(shutil.which("bash") is None, reason="is about bash")
def test_bash_completes_with_it(clone: Path) -> None:
    script = CliRunner().invoke(main, ["completion", "bash"]).stdout
    asking = "COMP_WORDS=(chatvec check eeve); COMP_CWORD=2; _chatvec_completion chatvec"
    # An interactive shell has `compopt`; the command is run as this Python's.
    command = f'chatvec() {{ "{sys.executable}" -m chatvec_method "$@"; }}; export -f chatvec'
    text = script.replace("$1)", f"bash -c '\"{sys.executable}\" -m chatvec_method')")
    ran = subprocess.run(
        ["bash", "-c", f"{command}\n{text}\n{asking}\necho ${{COMPREPLY[@]}}"],
        cwd=clone,
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "recipes/eeve_chat.yaml\n"
