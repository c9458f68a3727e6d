"""The commands that the sweep runs, in this process: chatvec's, and mergekit's own.

This is the one place of the sweep that knows how the product is called.
"""

from __future__ import annotations

import gc
import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click import Command
from click.testing import CliRunner
from mergekit.io.tasks import LoaderCache
from mergekit.scripts import run_yaml
from transformers.utils import logging as transformers_logging

from chatvec_method.cli import main as chatvec


@dataclass(frozen=True)
class Run:
    """What a command did."""

    exit_code: int
    stdout: str
    stderr: str
    trace: str
    """Of an exception that nobody caught, its last frame and its message."""

    @property
    def message(self) -> str:
        """The error for people, in one line."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("Error: ")]
        return lines[-1].removeprefix("Error: ") if lines else ""


@dataclass(frozen=True)
class Finding:
    """What `chatvec check` says."""

    code: str
    severity: str
    place: str
    message: str
    fix: str


def check(recipe: Path) -> tuple[Run, list[Finding]]:
    """Run `chatvec check`."""
    run = _run(chatvec, "check", recipe, "--json")
    try:
        found = json.loads(run.stdout)["findings"]
    except (json.JSONDecodeError, KeyError):
        return run, []
    return run, [Finding(**finding) for finding in found]


def merge(recipe: Path, out: Path) -> Run:
    """Run `chatvec merge`, without a model card: its picture takes most of the time."""
    return _run(chatvec, "merge", recipe, out, "--quiet", "--no-write-model-card")


def stock(recipe: Path, out: Path) -> Run:
    """Run `mergekit-yaml`."""
    return _run(run_yaml.main, recipe, out, "--no-write-model-card", "--quiet")


def finish(out: Path, recipe: Path) -> Run:
    """Run `chatvec finish` on an output of stock mergekit's."""
    return _run(chatvec, "finish", out, "--recipe", recipe, "--json", "--no-card")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back what the libraries say on the way, and let go of the files they hold."""
    level = logging.root.manager.disable
    verbosity = transformers_logging.get_verbosity()
    logging.disable(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.disable(level)
        transformers_logging.set_verbosity(verbosity)
        LoaderCache().flush_all()
        gc.collect()


def _run(command: Command, *arguments: Any) -> Run:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    trace = ""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        frame = traceback.extract_tb(result.exc_info[2])[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        trace = f"{type(result.exception).__name__} in {place}: {result.exception}"
    return Run(result.exit_code, result.stdout, result.stderr, trace)
