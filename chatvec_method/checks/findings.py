"""What a check has to say: findings as data, which tables, JSON and tests read alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from chatvec_method.checks.kinds import NATURES, Nature
from chatvec_method.plain_text import cut, plain
from chatvec_method.recipe.edits import Edit
from chatvec_method.recipe.file import KeyPath


class Severity(str, Enum):
    """How bad a finding is."""

    ERROR = "error"
    """The merge cannot be right; `chatvec merge` refuses it."""
    WARNING = "warning"
    """It may be meant, and is probably not."""
    ADVICE = "advice"
    """Good to know; `chatvec merge` gets it right."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or worth knowing."""

    code: str
    """The kind of finding, for `--json` and for looking it up."""
    severity: Severity
    place: str
    """The key of the recipe, the model, the file or the tensor that it is about."""
    message: str
    fix: str
    """What to write or do instead."""
    edits: tuple[Edit, ...] = ()
    """The same as changes to the recipe, where the recipe can mend it."""
    certain: bool = False
    """Not a judgement this time, although findings of its kind mostly are."""

    def __str__(self) -> str:
        return f"{self.severity.value} {self.code}  {self.place}: {self.message} {self.fix}"

    @property
    def acceptable(self) -> bool:
        """Whether a recipe may say that it is meant, or known."""
        return NATURES.get(self.code) is Nature.JUDGEMENT and not self.certain


def error(
    code: str,
    place: object,
    message: str,
    fix: str,
    edits: tuple[Edit, ...] = (),
    *,
    certain: bool = False,
) -> Finding:
    """Return a finding that makes the merge wrong; `certain` if nobody can know better."""
    return _finding(code, Severity.ERROR, place, message, fix, edits, certain)


def warning(
    code: str, place: object, message: str, fix: str, edits: tuple[Edit, ...] = ()
) -> Finding:
    """Return a finding that may be meant."""
    return _finding(code, Severity.WARNING, place, message, fix, edits)


def advice(
    code: str, place: object, message: str, fix: str, edits: tuple[Edit, ...] = ()
) -> Finding:
    """Return a finding that is good to know."""
    return _finding(code, Severity.ADVICE, place, message, fix, edits)


def _finding(
    code: str,
    severity: Severity,
    place: object,
    message: str,
    fix: str,
    edits: tuple[Edit, ...],
    certain: bool = False,
) -> Finding:
    """Return a finding whose words do nothing to a terminal, and come to an end."""
    where, what, how = (cut(plain(text)) for text in (str(place), message, fix))
    return Finding(code, severity, where, what, how, edits, certain)


def compatible_edits(findings: Iterable[Finding]) -> tuple[Edit, ...]:
    """Return the edits of those findings that do not get in each other's way, first come first.

    What one edit inserts, removes or renames would lead another's path astray, and two may say
    different things of one key. What is left out comes up again when the recipe is checked again.
    """
    edits: list[Edit] = []
    touched: list[KeyPath] = []
    for finding in findings:
        paths = [path for edit in finding.edits for path in _touched(edit)]
        if not any(_overlap(path, other) for path in paths for other in touched):
            edits += finding.edits
            touched += paths
    return tuple(edits)


def _touched(edit: Edit) -> list[KeyPath]:
    above, last = edit.path[:-1], edit.path[-1]
    if isinstance(last, int):  # the entries of a list may move, and are known by their places
        return [above]
    return [edit.path] if edit.rename is None else [edit.path, (*above, edit.rename)]


def _overlap(one: KeyPath, other: KeyPath) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]
