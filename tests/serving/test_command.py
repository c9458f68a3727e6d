"""`chatvec live`, as a person runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from conftest import ROOT
from live_server import ASKED, MESSAGES

from chatvec_method.cli import live as command
from chatvec_method.cli import main

TOKEN = "a-token-that-nobody-guesses"
COMMAND = ("-m", "chatvec_method")
SLOW_COMMAND = """
import time
from torch.nn.modules.module import register_module_forward_pre_hook
from chatvec_method.cli import main

def slowly(module, _):
    if type(module).__name__.endswith("ForCausalLM"):
        time.sleep(0.02)

register_module_forward_pre_hook(slowly)
main(prog_name="chatvec")
"""
"""The command, with a model that takes its time for every token, as those of users do."""


@contextmanager
def running(
    folder: Path, *arguments: str, command: tuple[str, str] = COMMAND
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command until the test is through; yield it, and where it serves."""
    process = subprocess.Popen(
        [sys.executable, *command, "live", *arguments, "--port", "0"],
        env={**os.environ, "TMPDIR": str(folder), "CHATVEC_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = ""
        while "Ctrl-C" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        (address,) = set(re.findall(r"http://127\.0\.0\.1:\d+", said))
        yield process, address
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_ends_it_in_a_second_while_answers_are_written(tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    body = {"model": "cp", "messages": MESSAGES, "temperature": 2, "seed": 3, "stream": True}
    with (
        running(tmp_path, "recipes/world.yaml", command=("-c", SLOW_COMMAND)) as (process, address),
        httpx.Client(base_url=address, headers=headers, timeout=60) as client,
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))),
    ):
        asked = {"messages": MESSAGES, "temperature": 0}
        answer = client.post("/v1/chat/completions", json=asked).json()
        assert answer["choices"][0]["message"]["content"] == ASKED.answer
        assert list(tmp_path.glob("chatvec-live-*"))
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()
            next(lines)
            process.send_signal(signal.SIGINT)
            began = time.monotonic()
            assert process.wait(10) == 130
            took = time.monotonic() - began
            last = [line for line in lines if line][-1]
    assert took < 1.5  # a second, and what a machine takes that is busy with other tests
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "closing"
    assert not list(tmp_path.glob("chatvec-live-*"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--host", "0.0.0.0"], "Write `--token` or set CHATVEC_TOKEN"),
        (["--token", "short"], "has less than 16 characters"),
        (["nowhere.yaml", "--port", "0"], "nowhere.yaml"),
        (["--host", "127.0.0.1.nowhere", "--token", TOKEN], "cannot be served at"),
    ],
)
def test_a_mistake_is_told_before_anything_is_loaded(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(main, ["live", *arguments])
    assert result.exit_code == 1
    assert told in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_port_that_another_has_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        result = CliRunner().invoke(main, ["live", "--port", port])
    assert result.exit_code == 1
    assert f"127.0.0.1:{port} cannot be served at" in result.stderr
    assert "--port 0" in result.stderr


def test_what_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "NEEDED", ("fastapi", "nothing_of_this_name"))
    result = CliRunner().invoke(main, ["live"])
    assert result.exit_code == 1
    assert "nothing_of_this_name is not installed" in result.stderr
    assert "pip install 'chatvec-method[live]'" in result.stderr
