"""An architecture through check, merge, and stock mergekit with finish, against the oracle."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from . import product
from .miniatures import build
from .oracle import Oracle, Verdict
from .product import Finding, Run
from .table import Architecture

ERROR = "error"


class State(str, Enum):
    """What became of one way to merge."""

    PASSED = "passed"
    """By the check: no error."""
    EXACT = "exact"
    """Every element, and all that was asked of the output."""
    REFUSED = "refused"
    """Nothing came out, with a message that check gives too, or before anything was written."""
    TOLD = "told"
    """The output of stock mergekit is wrong, and check or finish said so."""
    WRONG = "wrong"
    """A wrong output, and exit code 0."""
    LATE = "late"
    """Check found no error, and then it failed."""
    TRACEBACK = "traceback"
    """An exception that no person is meant to read."""

    @property
    def is_a_fault(self) -> bool:
        return self in (State.WRONG, State.LATE, State.TRACEBACK)


@dataclass
class Outcome:
    """One way to merge: what became of it, and what is wrong."""

    state: State
    reasons: list[str] = field(default_factory=list)
    elements: int = 0
    off: int = 0
    missing: int = 0
    stops_at: tuple[str, ...] = ()


@dataclass
class Row:
    """A row of the table that the command prints."""

    name: str
    check: Outcome
    merge: Outcome
    stock: Outcome
    way_out: str
    """What check's first error, or else the message of the merge, says to do."""
    seconds: float

    @property
    def faults(self) -> list[str]:
        """The columns in which something is silent, late or a traceback."""
        columns = {"check": self.check, "merge": self.merge, "stock": self.stock}
        return [column for column, outcome in columns.items() if outcome.state.is_a_fault]


def sweep(entries: Iterable[Architecture], folder: Path) -> Iterator[Row]:
    """Yield a row for each architecture; its models are gone when the next one's are made."""
    with product.quiet():
        for entry in entries:
            with TemporaryDirectory(dir=folder) as models:
                yield try_out(entry, Path(models))


def try_out(entry: Architecture, folder: Path) -> Row:
    """Return what the product makes of one architecture, in an empty folder."""
    start = time.perf_counter()
    folder = folder.resolve()
    trio = build(entry, folder)
    oracle = Oracle(trio)
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(trio.recipe, sort_keys=False, allow_unicode=True))
    checked, findings = product.check(recipe)
    errors = [f for f in findings if f.severity == ERROR]
    check = _check_outcome(checked, errors)
    merged = product.merge(recipe, folder / "out")
    merge = _merge_outcome(merged, check, oracle, folder / "out")
    by_stock = _stock_outcome(recipe, folder / "stock", oracle, findings)
    for outcome in (check, merge, by_stock):
        outcome.reasons = [_without(folder, reason) for reason in outcome.reasons]
    way_out = ""
    if merge.state is not State.EXACT:
        way_out = f"{errors[0].message} {errors[0].fix}" if errors else merged.message
    seconds = time.perf_counter() - start
    return Row(entry.name, check, merge, by_stock, _without(folder, way_out), seconds)


def _without(folder: Path, text: str) -> str:
    """Return a text in which the models are called base, chat and cp."""
    return text.replace(f"{folder}/", "")


def _check_outcome(run: Run, errors: list[Finding]) -> Outcome:
    if run.trace:
        return Outcome(State.TRACEBACK, [run.trace])
    if run.exit_code and not errors:
        return Outcome(State.REFUSED, [run.message])
    if errors:
        return Outcome(State.REFUSED, [f"{f.code}: {f.message}" for f in errors])
    return Outcome(State.PASSED)


def _merge_outcome(run: Run, check: Outcome, oracle: Oracle, out: Path) -> Outcome:
    if run.trace:
        return Outcome(State.TRACEBACK, [run.trace])
    if run.exit_code:
        if out.exists():
            return Outcome(State.LATE, ["failed and left a folder", run.message])
        if check.state is State.REFUSED:
            return Outcome(State.REFUSED)
        return Outcome(State.LATE, [run.message or run.stderr])
    if check.state is not State.PASSED:
        return Outcome(State.WRONG, ["check refuses it, and the merge went on"])
    verdict = oracle.judge(out)
    return _judged(verdict, State.WRONG)


def _stock_outcome(recipe: Path, out: Path, oracle: Oracle, findings: list[Finding]) -> Outcome:
    run = product.stock(recipe, out)
    if run.trace or run.exit_code:
        said = run.message or run.trace or run.stderr[-300:]
        told = any(f.severity == ERROR for f in findings)
        return Outcome(State.REFUSED, [f"mergekit: {said}", "" if told else "check has no error"])
    finished = product.finish(out, recipe)
    if finished.trace:
        return Outcome(State.TRACEBACK, [f"finish: {finished.trace}"])
    if finished.exit_code:
        return Outcome(State.REFUSED, [f"finish: {finished.message}"])
    verdict = oracle.judge(out)
    told = any(_tells(finding, verdict) for finding in findings)
    return _judged(verdict, State.TOLD if told else State.WRONG)


def _tells(finding: Finding, verdict: Verdict) -> bool:
    """Whether a finding warns of what is wrong with stock mergekit's output.

    Of weights it may warn; finish mends the rest, so there is nothing to warn of.
    """
    if finding.severity == ERROR:
        return True
    if verdict.in_files or not finding.code.startswith("stock-"):
        return False
    count = re.search(rf"\b{verdict.missing} tensors", finding.message)
    return bool(count) or any(name in finding.message for name in verdict.tensors)


def _judged(verdict: Verdict, otherwise: State) -> Outcome:
    return Outcome(
        otherwise if verdict.problems else State.EXACT,
        verdict.problems,
        verdict.elements,
        verdict.off,
        verdict.missing,
        verdict.stops_at,
    )


def third(entries: Iterable[Architecture], number: int) -> list[Architecture]:
    """Return every third architecture, beginning with the first, second or third."""
    return list(entries)[number - 1 :: 3]
