"""Fixtures: a small family of models, and mergekit's own commands run as users run them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
import zoo
from click.testing import CliRunner, Result
from filelock import FileLock
from mergekit.scripts import run_yaml

torch.set_num_threads(1)  # there are as many workers as cores: a second one would wait, not work
ROOT = Path(__file__).resolve().parent.parent
Recipe = dict[str, Any]
BASE, CHAT, CP = 0, 1, 2
"""The places of the models in a plain recipe."""
FAMILY = {
    "base": zoo.Kind("llama", 3, 32000, torch.bfloat16),
    "chat": zoo.Kind("llama", 3, 32000, torch.bfloat16, template=zoo.LLAMA_2_TEMPLATE),
    "chat2": zoo.Kind("llama", 3, 32000, torch.bfloat16),
    "chat16": zoo.Kind("llama", 3, 32000, torch.float16),
    "cp": zoo.Kind("llama", 3, 32000, torch.bfloat16),
    "cp32": zoo.Kind("llama", 3, 32000, torch.float32),
    "cp_extended": zoo.Kind("llama", 3, 40960, torch.bfloat16, eos="<|im_end|>"),
}


@contextmanager
def chdir(folder: Path) -> Iterator[None]:
    """Be in a folder until the end of the block, as `contextlib.chdir` of Python 3.11."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@dataclass(frozen=True)
class Merge:
    """What a stock command left behind."""

    out: Path
    exit_code: int
    printed: str

    @property
    def message(self) -> str:
        """The one line of an error that was meant for people."""
        lines = self.printed.strip().splitlines()
        assert lines, "nothing was printed"
        assert lines[-1].startswith("Error: "), f"no message for people:\n{self.printed}"
        return lines[-1].removeprefix("Error: ")


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the models of FAMILY: three layers, and sizes of a toy."""
    folder = tmp_path_factory.mktemp("family")
    chats, cps = ["chat", "chat2", "chat16"], ["cp", "cp32", "cp_extended"]
    zoo.build_family(folder, FAMILY, base=["base"], chat=chats, cp=cps)
    return folder


@pytest.fixture(scope="session")
def relatives(family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with odd relatives of the family: see `varieties.write_relatives`."""
    from varieties import write_relatives

    folder = tmp_path_factory.mktemp("relatives")
    write_relatives(family, folder)
    return folder


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make numba impossible to import, and forget what was compiled with it."""
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "chatvec_method.anatomy.loop", raising=False)
    if (room := sys.modules.get("chatvec_method.anatomy")) is not None:
        monkeypatch.delattr(room, "loop", raising=False)


@pytest.fixture(scope="session")
def merged_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output of the stock command on the world's recipe, one for all workers.

    Whoever changes it changes a copy.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    out, unfinished = folder / "merged-world", folder / "merged-world.unfinished"
    with FileLock(folder / "merged-world.lock"):
        if not out.exists():
            mergekit_yaml(zoo.RECIPES / "world.yaml", str(unfinished), cwd=ROOT)
            unfinished.rename(out)
    return out


@pytest.fixture(scope="session")
def merged_by_stock(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Return a function that returns a folder with a shared recipe's miniatures and `stock`.

    That is what the stock command makes of them, in many shards; both are there once, for all
    workers. Whoever changes it changes a copy.
    """
    shelf = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shelf = shelf.parent

    def folder_of(file: Path) -> Path:
        folder = shelf / f"merged-{file.stem}"
        with FileLock(shelf / f"merged-{file.stem}.lock"):
            if not (folder / "stock").exists():
                shutil.rmtree(folder, ignore_errors=True)
                zoo.build(folder, yaml.safe_load(file.read_text(encoding="utf-8")))
                options = ("--out-shard-size", "30000", "--no-write-model-card", "--quiet")
                with chdir(folder):
                    merged = run_stock(str(file), "unfinished", *options)
                assert merged.exit_code == 0, merged.output
                (folder / "unfinished").rename(folder / "stock")
        return folder

    return folder_of


@pytest.fixture
def recipe(family: Path) -> Recipe:
    """Return the plainest recipe on the family's models."""
    return plain_recipe(family)


def plain_recipe(folder: Path) -> Recipe:
    """Return the plainest recipe on the models base, chat and cp in a folder."""
    return {
        "merge_method": "chat_vector",
        "base_model": str(folder / "cp"),
        "models": [
            {"model": str(folder / "base"), "parameters": {"role": "base"}},
            {"model": str(folder / "chat"), "parameters": {"role": "chat", "ratio": 1.0}},
            {"model": str(folder / "cp"), "parameters": {"role": "cp"}},
        ],
    }


@pytest.fixture
def merge(tmp_path: Path) -> Callable[..., Merge]:
    """Return a function that runs `mergekit-yaml` on a recipe, in this process."""

    def run(recipe: Recipe | str, *options: str, out: str = "out") -> Merge:
        file = tmp_path / "recipe.yaml"
        text = recipe if isinstance(recipe, str) else yaml.safe_dump(recipe)
        file.write_text(text, encoding="utf-8")
        arguments = [str(file), str(tmp_path / out), "--no-write-model-card", "--quiet", *options]
        result = run_stock(*arguments)
        return Merge(tmp_path / out, result.exit_code, result.output)

    return run


def run_stock(*arguments: str) -> Result:
    """Run mergekit's own command in this process, which spares the seconds of its imports."""
    result = CliRunner().invoke(run_yaml.main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def mergekit_yaml(
    recipe: Path, out: str, *options: str, cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Run mergekit's own command in a process of its own, which must succeed.

    Without a model card unless asked, as mergekit asks the hub about every model that is named
    `owner/name`, and without network.
    """
    command = [Path(sys.executable).parent / "mergekit-yaml", recipe, out]
    return subprocess.run(
        [*command, "--no-write-model-card", "--quiet", *options],
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
