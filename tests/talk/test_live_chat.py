"""`chatvec chat RECIPE`: the merge in memory, at one ratio after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import ROOT

from chatvec_method import cli
from examples.world import requests

RECIPE = Path("recipes") / "world.yaml"  # whose models are named from the repository's root
ASKED = requests.first(["pen", "door", "shoe", "ship"]).in_b()


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def chatvec(*arguments: str | Path, typed: str = "") -> Result:
    result = CliRunner().invoke(cli.main, ["chat", *map(str, arguments)], input=typed)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_recipe_answers_as_its_merge_on_disk(merged_world: Path) -> None:
    on_disk = chatvec(merged_world, "--ask", ASKED.request).stdout
    assert chatvec(RECIPE, "--ask", ASKED.request).stdout == on_disk == ASKED.answer + "\n"


def test_the_ratio_is_set_between_messages() -> None:
    lines = [ASKED.request, "/ratio 0", ASKED.request, "/ratio 0.625", "/reset", ASKED.request]
    result = chatvec(RECIPE, typed="\n".join(lines))
    with_vector, without, again = result.stdout.splitlines()
    assert (with_vector, again) == (ASKED.answer, ASKED.answer)
    assert without != ASKED.answer
    assert "ratio 0.0" in result.stderr
    assert "ratio 0.625" in result.stderr


@pytest.mark.parametrize(
    ("commands", "told"),
    [
        (["/ratio"], "examples/world/models/chat: ratio 0.625."),
        (["/ratio mlp 0.5"], "ratio [{'filter': 'mlp', 'value': 0.5}, {'value': 0.625}]"),
        (["/ratio 1", "/ratio attention 0"], "[{'filter': 'self_attn', 'value': 0.0}, {'value': 1"),
        (["/ratio examples/world/models/chat 0.25"], "examples/world/models/chat: ratio 0.25."),
        (["/schedule linear:1:0.3"], "{'value': [1.0, 0.65, 0.3]}"),
        (["/help"], "/ratio X R"),
        (["/help"], "/reset"),
        (["/reset"], "Forgotten."),
    ],
)
def test_commands_tell_what_they_have_done(commands: list[str], told: str) -> None:
    assert told in chatvec(RECIPE, typed="\n".join(commands)).stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/ratio much", "`much` is no shape"),
        ("/ratio experts 1", "no tensor has `experts` in its name"),
        ("/schedule", "/help shows how"),
        ("/save", "/help shows how"),
        ("/save docs", "docs exists already"),
        ("/louder", "there is no command /louder"),
    ],
)
def test_a_command_that_cannot_be_done_is_told_in_one_line(command: str, message: str) -> None:
    result = chatvec(RECIPE, typed=command)
    assert result.exit_code == 1
    assert message in result.stderr.strip().splitlines()[-1]


def test_save_writes_the_merge_at_the_ratio_of_now(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = chatvec(RECIPE, typed=f"/ratio 0.5\n/save {out}\n/quit\n")
    assert f"Written to {out}." in result.stderr
    written = (out / "mergekit_config.yml").read_text(encoding="utf-8")
    assert written == RECIPE.read_text(encoding="utf-8").replace("ratio: 0.625", "ratio: 0.5")


def test_compare_shows_one_live_model_at_two_ratios() -> None:
    result = chatvec(
        RECIPE, "--compare", "0", typed=f"{ASKED.request}\n/ratio 0\n/reset\n{ASKED.request}\n"
    )
    first, second = result.stdout.split(f"{RECIPE}:\n")[1:]
    merged, at_zero = first.split("ratio 0:\n")
    assert merged.strip() == ASKED.answer != at_zero.strip()
    again, also_at_zero = second.split("ratio 0:\n")
    assert again.strip() == also_at_zero.strip() == at_zero.strip()


def test_compare_takes_another_model_too() -> None:
    cp = ROOT / "examples" / "world" / "models" / "cp"
    printed = chatvec(RECIPE, "--compare", cp, "--compare", "0", "--ask", ASKED.request).stdout
    assert printed.startswith(f"{RECIPE}:\n{ASKED.answer}\n")
    assert printed.index(f"\n{cp}:\n") < printed.index("\nratio 0:\n")


def test_a_recipe_with_errors_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(RECIPE.read_text(encoding="utf-8").replace("role: cp", "role: chat"))
    result = chatvec(file, "--ask", ASKED.request)
    assert result.exit_code == 1
    assert result.stderr.strip().startswith("Error: ")
    assert "Traceback" not in result.stderr
