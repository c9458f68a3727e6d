"""`chatvec verify`: what scripts read of it: exit codes, JSON, and one line of what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import hub
import pytest
import yaml
from click.testing import CliRunner, Result
from conftest import CHAT, Recipe, plain_recipe
from surveying import surveyed

from chatvec_method.cli import main
from chatvec_method.finishing.hashes_file import HASHES_FILE
from chatvec_method.merging.merge import merge

NORM = "model.norm.weight"


def chatvec_verify(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, arguments)])


@pytest.fixture(scope="module")
def good(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("good") / "out"
    merge(surveyed(plain_recipe(family)), out)
    return out


@pytest.fixture
def out(good: Path, tmp_path: Path) -> Path:
    """Return a copy of it to spoil."""
    return Path(shutil.copytree(good, tmp_path / "out"))


def spoil(out: Path) -> None:
    """Change the last element of the last tensor by one step."""
    file = out / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.unlink()
    file.write_bytes(content)


def test_what_is_right_exits_with_0(good: Path) -> None:
    result = chatvec_verify(good, "--deep")
    assert result.exit_code == 0, result.output
    assert "every byte of weights and files is what was written" in result.output
    assert "No hash tells of README.md." in result.output
    assert "All 19,248 elements, computed again, are the same." in result.output
    told = json.loads(chatvec_verify(good, "--json").stdout)
    assert told["right"] is True
    assert (told["tensors"], told["hashed"], told["elements"]) == (30, True, 0)


def test_what_differs_exits_with_4(out: Path) -> None:
    spoil(out)
    result = chatvec_verify(out)
    assert result.exit_code == 4
    assert f"{NORM} in {out} is not what was written" in result.output
    deep = chatvec_verify(out, "--deep")
    assert deep.exit_code == 4
    assert f"{NORM}, element [15]: the output has" in deep.output
    assert "1 rounding step away" in deep.output
    told = json.loads(chatvec_verify(out, "--json").stdout)
    assert told["right"] is False
    assert NORM in told["error"]["problem"]


def test_what_cannot_be_told_exits_with_1(out: Path, tmp_path: Path) -> None:
    nowhere = chatvec_verify(tmp_path / "nowhere")
    assert nowhere.exit_code == 1
    assert "there is no folder" in nowhere.output
    (out / HASHES_FILE).unlink()
    (out / "mergekit_config.yml").unlink()
    result = chatvec_verify(out)
    assert result.exit_code == 1
    assert "--recipe" in result.output


def test_a_recipe_is_given_where_the_output_has_none(
    out: Path, family: Path, tmp_path: Path
) -> None:
    (out / "mergekit_config.yml").unlink()
    (out / HASHES_FILE).unlink()
    recipe: Recipe = plain_recipe(family)
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe), "utf-8")
    right = chatvec_verify(out, "--recipe", file, "--deep")
    assert right.exit_code == 0, right.output
    assert "It has no hashes" in right.output

    recipe["models"][CHAT]["parameters"]["ratio"] = 0.9
    file.write_text(yaml.safe_dump(recipe), "utf-8")
    wrong = chatvec_verify(out, "--recipe", file, "--deep")
    assert wrong.exit_code == 4
    assert "the recipe says" in wrong.output


def test_damaged_files_are_one_line(out: Path) -> None:
    (out / HASHES_FILE).write_text("[[", "utf-8")
    result = chatvec_verify(out)
    assert result.exit_code == 4
    assert len(result.output.splitlines()) == 1
    (out / HASHES_FILE).unlink()
    (out / "model.safetensors").write_bytes(b"\xff" * 20)
    result = chatvec_verify(out)
    assert result.exit_code == 4
    assert len(result.output.splitlines()) == 1


def test_a_model_of_the_hub_is_verified(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(good, tmp_path / "hub" / "somebody" / "merged")
    monkeypatch.chdir(tmp_path)
    with hub.serving(tmp_path / "hub") as served:
        hub.ask(served, monkeypatch, tmp_path / "cache")
        right = chatvec_verify("somebody/merged", "--deep")
        assert right.exit_code == 0, right.output

        spoil(served.folder / "somebody" / "merged")
        hub.ask(served, monkeypatch, tmp_path / "another cache")
        wrong = chatvec_verify("somebody/merged")
        assert wrong.exit_code == 4
        assert f"{NORM} in " in wrong.output

        missing = chatvec_verify("somebody/nothing")
        assert missing.exit_code == 1
        assert "neither here nor on the hub" in missing.output
