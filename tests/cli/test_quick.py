"""What people wait for at every step comes at once: nothing heavy is imported for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from chatvec_method.cli import COMMANDS

HEAVY = {"torch", "transformers", "mergekit", "rich", "matplotlib", "huggingface_hub"}
HEAVY |= {"fastapi", "uvicorn", "gradio"}
HELPS = [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)]
HELPS += [["schedule", "linear", "--help"], ["schedule", "show", "--help"]]
MISTAKES = [
    ["chekc"],
    ["check"],
    ["check", "recipe.yaml", "--jsno"],
    ["merge", "recipe.yaml", "out", "--out-shard-size", "huge"],
    ["check", "nowhere.yaml"],
    ["merge", "nowhere.yaml", "out"],
    ["merge", "recipe.yaml", "full"],
    ["anatomy", "nowhere.yaml"],
    ["anatomy", "not.yaml"],
    ["finish", "nowhere"],
    ["finish", "full", "--recipe", "nowhere.yaml"],
    ["schedule", "show", "nowhere.yaml"],
    ["schedule", "linear", "--into", "nowhere.yaml"],
    ["schedule", "linear", "--layers", "32"],
    ["schedule", "gausian", "--layers", "32"],
    ["chat", "nowhere"],
    ["live", "nowhere.yaml"],
    ["live", "not.yaml"],
    ["live", "--host", "0.0.0.0"],
    ["live", "--token", "short"],
    ["chat", "full"],
    ["chat", "full", "--greedy", "--temperature", "1"],
]
COMPLETIONS = ["chatvec ", "chatvec ch", "chatvec check re", "chatvec merge recipe.yaml out --lo"]
COMPLETIONS += ["chatvec schedule gau", "chatvec chat --com"]
RUN_ALL = """
import json, sys
from click.testing import CliRunner
from chatvec_method.cli import main

runs, completions, heavy = json.loads(sys.argv[1])
seen, heavy = {}, set(heavy)

def run(name, arguments, **environment):
    result = CliRunner().invoke(main, arguments, prog_name="chatvec", env=environment)
    assert isinstance(result.exception, (SystemExit, type(None))), (name, result.exception)
    seen[name] = sorted(heavy & set(sys.modules))
    heavy.difference_update(seen[name])  # who loads it is named, and nobody after

for arguments in runs:
    run(" ".join(arguments), arguments)
for line in completions:
    last = str(len(line.split(" ")) - 1)
    run(line, [], COMP_WORDS=line, COMP_CWORD=last, _CHATVEC_COMPLETE="bash_complete")
print(json.dumps(seen))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a recipe, a file that is none, and one in which a model may be."""
    (tmp_path / "recipe.yaml").write_text("merge_method: chat_vector\n")
    (tmp_path / "not.yaml").write_text("a: [")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "config.json").write_text("{}")
    return tmp_path


def test_no_help_completion_or_mistake_loads_what_takes_long(folder: Path) -> None:
    asked = json.dumps([HELPS + MISTAKES, COMPLETIONS, sorted(HEAVY)])
    command = [sys.executable, "-c", RUN_ALL, asked]
    ran = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)

    loaded = json.loads(ran.stdout)
    assert len(loaded) == len(HELPS) + len(MISTAKES) + len(COMPLETIONS)
    assert {name: modules for name, modules in loaded.items() if modules} == {}


def test_what_takes_long_says_so_at_once_on_a_terminal() -> None:
    code = """
import io, sys

class Terminal(io.StringIO):
    def isatty(self):
        return True

sys.stderr = terminal = Terminal()
from chatvec_method.cli.loading import loading

with loading("mergekit"):
    said = terminal.getvalue()
with loading("mergekit", quiet=True):
    pass
print(repr(said), repr(terminal.getvalue().removeprefix(said)))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        env={"TERM": "xterm", "PYTHONPATH": str(ROOT)},
    )
    assert ran.stdout.strip() == r"'Loading mergekit ...' '\r\x1b[K'"
