"""One recipe, or one family of models, put through what `chatvec` does with it."""

from __future__ import annotations

import io
import json
import resource
import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil
import yaml
from mergekit.common import ModelReference
from mergekit.options import MergeOptions
from rich.console import Console

from chatvec_method.anatomy import examine
from chatvec_method.checks.algebra import read_as_chat_vector
from chatvec_method.checks.report import Report, Severity, check_survey
from chatvec_method.cli.check_report import as_data, print_report
from chatvec_method.cli.console import quiet_libraries
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.survey import survey
from chatvec_method.finishing.finish import finish
from chatvec_method.merging.merge import merge
from chatvec_method.merging.verify import verify
from chatvec_method.plain_text import ACTS
from chatvec_method.recipe.edits import edited
from chatvec_method.recipe.file import Recipe, parse_recipe
from chatvec_method.vectors.description import read_description
from chatvec_method.vectors.expand import expand
from tests.fuzz import folders, recipes
from tests.fuzz.outputs import merged, output
from tests.fuzz.vectors import folders_of_vectors, recipe_of_vectors, written

MOST_SECONDS, MOST_BYTES = 5.0, 10**9
LONGEST_LINE = 5000


@dataclass(frozen=True)
class Outcome:
    """What became of a trial."""

    name: str
    ended: str
    """In a word: refused, errors, passed, merged."""
    seconds: float
    """Processor time, of this process and of those that it started."""
    bytes: int
    """The most memory that the process had so far."""
    problem: str = ""
    """What is wrong with it; empty if nothing is."""


def trial(kind: str, number: int, seed: int) -> Outcome:
    """Run one trial.

    Args:
        kind: One of TRIALS.
        number: Which of them.
        seed: Of all of them.
    """
    name, random = f"{kind} {number}", Random(f"{seed} {kind} {number}")
    quiet_libraries()
    if kind.startswith("vector"):
        written()  # takes seconds, and once
    if kind == "output":
        merged()
    begun, before = _processor_seconds(), _most_bytes()
    problem = ""
    try:
        with warnings.catch_warnings(action="ignore"):
            ended = TRIALS[kind](random)
    except _Wrong as wrong:
        ended, problem = "wrong", str(wrong)
    except Exception:
        ended, problem = "stopped", traceback.format_exc(limit=-12)
    seconds = _processor_seconds() - begun
    most = _most_bytes()
    if seconds > MOST_SECONDS:
        problem += f" {seconds:.1f} seconds"
    if most > MOST_BYTES and most > before:
        problem += f" {most / 1e9:.1f} GB"
    return Outcome(name, ended, seconds, most, problem)


class _Wrong(Exception):  # noqa: N818
    """What should not be."""


def _processor_seconds() -> float:
    """Return what this process and its children took, those that are over too."""
    own = psutil.Process()
    times = [own.cpu_times(), *(child.cpu_times() for child in own.children())]
    return float(
        sum(t.user + t.system for t in times) + times[0].children_user + times[0].children_system
    )


def _most_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _recipe(random: Random) -> str:
    return _read_and_checked(recipes.recipe(random))


def _vector_recipe(random: Random) -> str:
    return _read_and_checked(recipe_of_vectors(random))


def _read_and_checked(text: str) -> str:
    try:
        read, _ = read_as_chat_vector(text, "fuzzed.yaml", False)
        report = _checked(read)
        if report.edits:
            _checked(parse_recipe(edited(read.text, report.edits), read.name))
    except ChatVecError as refusal:
        _look_at(str(refusal.format_message()))
        return "refused"
    return "errors" if report.of(Severity.ERROR) else "passed"


def _checked(recipe: Recipe) -> Report:
    """Check a recipe, and print what comes out as the command does."""
    report = check_survey(survey(recipe, MergeOptions()))
    shown = io.StringIO()
    print_report(Console(file=shown, width=1000), report)
    json.dumps(as_data(report), ensure_ascii=False).encode("utf-8")
    for finding in report.findings:
        if len(str(finding)) > LONGEST_LINE:
            raise _Wrong(f"a finding of {len(str(finding))} characters: {str(finding)[:200]}")
    return report


def _look_at(message: str) -> None:
    if len(message) > LONGEST_LINE:
        raise _Wrong(f"a message of {len(message)} characters: {message[:200]}")
    if found := ACTS.search(message):
        raise _Wrong(f"{found[0]!r} in a message: {message[:200]}")


def _folder(random: Random) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        told = folders.folders(place, random)
        recipe = folders.recipe(place, random)
        try:
            return _merged(parse_recipe(yaml.safe_dump(recipe), "fuzzed.yaml"), place / "out")
        except _Wrong as wrong:
            raise _Wrong(f"{wrong} [{told}]") from wrong
        except Exception as error:
            error.add_note(told)
            raise


def _vector_folder(random: Random) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        recipe, told = folders_of_vectors(place, random)
        vector = place / "vector"
        try:
            for look in (read_description, lambda each: _expanded(each, place / "expanded")):
                try:
                    look(vector)
                except ChatVecError as refusal:
                    _look_at(str(refusal.format_message()))
            read = parse_recipe(yaml.safe_dump(recipe), "fuzzed.yaml")
            return _merged(read, place / "out", lora_merge_cache=str(place / "merged"))
        except _Wrong as wrong:
            raise _Wrong(f"{wrong} [{told}]") from wrong
        except Exception as error:
            error.add_note(told)
            raise


def _output(random: Random) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        out, is_another, told = output(Path(scratch), random)
        try:
            try:
                verification = verify(out, None, MergeOptions(), deep=random.random() < 0.3)
            except ChatVecError as refusal:
                _look_at(str(refusal.format_message()))
                return "refused"
            if is_another:
                raise _Wrong(f"it is another than was written, and is verified: {verification}")
        except _Wrong as wrong:
            raise _Wrong(f"{wrong} [{told}]") from wrong
        except Exception as error:
            error.add_note(told)
            raise
        return "verified"


def _expanded(vector: Path, out: Path) -> None:
    expand(ModelReference.model_validate(str(vector)), out, MergeOptions())


def _merged(recipe: Recipe, out: Path, **options: str) -> str:
    surveyed = survey(recipe, MergeOptions(**options))
    report = check_survey(surveyed)
    shown = io.StringIO()
    print_report(Console(file=shown, width=1000), report)
    json.dumps(as_data(report), ensure_ascii=False).encode("utf-8")
    try:
        examine(surveyed)
    except ChatVecError as refusal:
        _look_at(str(refusal.format_message()))
    if report.of(Severity.ERROR):
        return "errors"
    try:
        merge(surveyed, out)
    except ChatVecError as refusal:
        _look_at(str(refusal.format_message()))
        # Numbers are only read where they are asked for.
        if check_survey(surveyed, deep=True).of(Severity.ERROR):
            return "errors, by --deep"
        raise _Wrong(f"check passes it, and merge does not: {refusal}") from refusal
    if [file for file in out.parent.iterdir() if file.name.startswith(".")]:
        raise _Wrong("a hidden folder is left behind")
    verification = verify(out, surveyed, surveyed.options, deep=True)
    if not verification.hashed or verification.unfinished or verification.unheld:
        raise _Wrong(f"the output is not verified: {verification}")
    if again := finish(out, surveyed):
        raise _Wrong(f"finishing once more changes {again[0].name}")
    return "merged"


TRIALS: dict[str, Callable[[Random], str]] = {
    "recipe": _recipe,
    "folder": _folder,
    "vector-recipe": _vector_recipe,
    "vector-folder": _vector_folder,
    "output": _output,
}
"""What can be tried, by its kind; each returns in a word how it ended."""
