"""Every command ends in the same way: exit codes, errors as JSON, what was meant instead."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from conftest import ROOT

from chatvec_method.cli import Commands, main
from chatvec_method.cli.exits import EXIT_CODES
from chatvec_method.errors import ChatVecWarning

TAKING_JSON = [
    ["check", "nowhere.yaml"],
    ["merge", "nowhere.yaml", "out"],
    ["finish", "nowhere"],
    ["anatomy", "nowhere.yaml"],
    ["schedule", "show", "nowhere.yaml"],
]


def chatvec(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("arguments", TAKING_JSON)
def test_a_missing_file_is_one_and_json_too(arguments: list[str]) -> None:
    result = chatvec(*arguments, "--json")

    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error.keys() == {"code", "problem", "fix"}
    assert f"{error['problem']} {error['fix']}" in result.stderr
    assert "nowhere" in error["problem"]


def test_a_command_line_that_cannot_be_read_is_two_and_json_too() -> None:
    result = chatvec("check", "--json", "--sctrict", "r.yaml")

    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "usage"
    assert "--strict" in error["problem"]


@pytest.mark.parametrize(
    ("written", "meant"), [("chek", "check"), ("Merge", "merge"), ("anatmoy", "anatomy")]
)
def test_a_command_that_there_is_not_is_answered_with_the_nearest(written: str, meant: str) -> None:
    result = chatvec(written, "r.yaml")

    assert result.exit_code == 2
    assert f"Did you mean '{meant}'?" in result.stderr


def test_a_command_that_is_like_none_is_just_refused() -> None:
    result = chatvec("xyzzy")

    assert result.exit_code == 2
    assert "No such command 'xyzzy'." in result.stderr
    assert "Did you mean" not in result.stderr


@click.group(cls=Commands)
def group() -> None:
    """Stand in for the command, with commands of the tests' own."""


def ending(raise_it: BaseException | None) -> Result:
    """Return how a command ends that raises something, or only warns."""

    def work() -> None:
        warnings.warn("a little thing", ChatVecWarning, stacklevel=1)
        if raise_it is not None:
            raise raise_it

    stand_in = click.Command("check", callback=work)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group, "get_command", lambda *_: stand_in)
        return CliRunner().invoke(group, ["check"])


def test_ctrl_c_is_130() -> None:
    result = ending(KeyboardInterrupt())

    assert result.exit_code == 130
    assert result.stderr.endswith("Stopped.\n")


def test_a_warning_is_a_line_and_no_error() -> None:
    result = ending(None)

    assert result.exit_code == 0
    assert result.stderr == "Warning: a little thing\n"


def test_the_page_of_commands_has_the_table_of_exit_codes() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")

    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in page
