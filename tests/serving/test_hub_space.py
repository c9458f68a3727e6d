"""`chatvec live --space`: the folder of a Space, which runs as it is."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from conftest import ROOT
from live_server import ASKED, MESSAGES

import chatvec_method
from chatvec_method import ChatVecError, cli
from chatvec_method.recipe.file import parse_recipe
from chatvec_method.serving.space import write_space


def metadata(folder: Path) -> dict[str, Any]:
    text = (folder / "README.md").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text.split("---\n")[1]))


def test_the_worlds_space_runs_as_it_is_and_answers(tmp_path: Path) -> None:
    folder = tmp_path / "space"
    run = CliRunner().invoke(cli.main, ["live", "--space", str(folder)])
    assert run.exit_code == 0, run.output
    assert sorted(each.name for each in folder.iterdir()) == [
        "README.md",
        "app.py",
        "requirements.txt",
    ]
    wanted = f"chatvec-method[live]=={chatvec_method.__version__}"
    assert (folder / "requirements.txt").read_text().strip() == wanted
    told = metadata(folder)
    assert (told["sdk"], told["app_file"], told["license"]) == ("gradio", "app.py", "apache-2.0")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    space = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=folder,
        env={**os.environ, **env},
        stderr=subprocess.PIPE,
    )
    try:
        page = _got(space, f"http://127.0.0.1:{port}/")
        assert (
            "frame-ancestors 'self' https://huggingface.co"
            in page.headers["content-security-policy"]
        )
        body = {"model": "merge", "messages": MESSAGES, "temperature": 0}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Host": "owner-name.hf.space"},
        )
        with urllib.request.urlopen(request) as answer:
            said = json.load(answer)["choices"][0]["message"]["content"]
        assert said == ASKED.answer
    finally:
        space.kill()
        space.communicate()


def _got(space: subprocess.Popen[bytes], address: str) -> Any:
    for _ in range(300):
        assert space.poll() is None, space.communicate()[1].decode()
        try:
            return urllib.request.urlopen(address)
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the Space does not answer")


def test_a_recipe_of_folders_is_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    survey = chatvec_method.survey("recipes/world.yaml").ready()
    with pytest.raises(ChatVecError, match="is a folder here, where a Space cannot read it"):
        write_space(tmp_path / "space", survey)
    assert not (tmp_path / "space").exists()


def test_a_recipe_brings_no_markdown_into_the_card_of_its_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    survey = chatvec_method.survey("recipes/world.yaml").ready()
    title = "Mine\n\n# Heading <script>x</script> [link](https://x) \x1b[8m"
    raw = {**survey.recipe.raw, "chatvec": {"title": title}}
    text = yaml.safe_dump(raw, allow_unicode=True)
    models = {r: replace(m, commit="0" * 40) for r, m in survey.models.items()}
    hostile = replace(survey, recipe=parse_recipe(text, "x"), models=models)
    write_space(tmp_path / "space", hostile)
    card = (tmp_path / "space" / "README.md").read_text(encoding="utf-8")
    _, front, body = card.split("---\n", 2)
    assert "\x1b" not in card
    assert "<script>" not in body
    assert "\n# Heading" not in body
    assert "[link](" not in body
    assert "Heading" in yaml.safe_load(front)["title"]


def test_a_folder_that_has_something_in_it_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ChatVecError, match="exists and is not empty"):
        write_space(tmp_path, None)
    assert [each.name for each in tmp_path.iterdir()] == ["mine"]
