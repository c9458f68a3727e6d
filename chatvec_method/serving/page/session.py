"""What one visitor has said, heard and tried; it lives in memory, and goes with the page.

Every tab has a session of its own. All visitors share the model, which is why every request says
with which setting it is to be answered.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from chatvec_method.serving.page.knobs import Knobs

if TYPE_CHECKING:
    from chatvec_method.serving.page.measure import Measurement
    from chatvec_method.serving.writing import Writing

SIDES = 3
MERGE, NOBODY, KEPT = "merge", "nobody", "setting:"
MOST_ENTRIES = 200
"""Of the history: a session that goes on for days forgets its beginning."""

Choice = Literal["left", "right", "tie"]


@dataclass(frozen=True)
class Turn:
    """A request, and its answer by one who was asked."""

    request: str
    answer: str = ""
    by: str = ""
    """Who answers: `cp`, `merge 0.625`."""
    key: str = ""
    """With what: the same for the same model at the same ratio."""


@dataclass
class Side:
    """One of those who answer, with the conversation as it went with them."""

    turns: list[Turn] = field(default_factory=list)
    due: bool = False
    """Whether the last request is still to be answered."""
    writing: Writing | None = None
    """The answer that is being written."""

    def stop(self) -> None:
        """Let the answer that is being written end here."""
        self.due = False
        if self.writing is not None:
            self.writing.cancel()
            self.writing = None

    def ask(self, request: str) -> None:
        """Put a request, which is then due to be answered."""
        self.stop()
        self.turns.append(Turn(request))
        self.due = True

    def ask_again(self) -> None:
        """Have the last request answered anew."""
        self.stop()
        if self.turns:
            self.turns[-1] = Turn(self.turns[-1].request)
            self.due = True


@dataclass(frozen=True)
class Entry:
    """What was asked at a setting, and said."""

    board: tuple[Knobs, ...]
    who: tuple[str, ...]
    conversations: tuple[tuple[Turn, ...], ...]


@dataclass(frozen=True)
class Verdict:
    """Which of two was found better."""

    left: str
    right: str
    choice: Choice


@dataclass
class Session:
    """All that a page has to remember."""

    sides: list[Side] = field(default_factory=lambda: [Side() for _ in range(SIDES)])
    settings: list[tuple[Knobs, ...]] = field(default_factory=list)
    """All that were asked, by number from 1."""
    entries: list[Entry] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    measured: list[Measurement] = field(default_factory=list)
    probes: list[Side] = field(default_factory=list)
    """Of measures that are being made."""
    swapped: bool = False
    """Whether the second of two who are hidden is on the left."""
    revealed: bool = True
    """Whether it has been said who is who; then the next request begins anew."""

    def who_at(self, who: Sequence[str], *, blind: bool) -> tuple[str, ...]:
        """Return who answers in each place."""
        if not blind:
            return tuple(who)
        first, second = who[:2]
        return (second, first, NOBODY) if self.swapped else (first, second, NOBODY)

    def shuffle(self) -> None:
        """Put the two who are hidden left and right at random, and let them begin anew."""
        self.forget()
        self.swapped = bool(secrets.randbits(1))
        self.revealed = False

    def number(self, board: tuple[Knobs, ...]) -> int:
        """Return the number of a setting, from 1; a new one is remembered."""
        if board not in self.settings:
            self.settings.append(board)
        return 1 + self.settings.index(board)

    def stop(self) -> None:
        """Let all answers end here."""
        for side in (*self.sides, *self.probes):
            side.stop()

    def forget(self) -> None:
        """Begin a new conversation."""
        for side in self.sides:
            side.stop()
            side.turns = []

    def note(self, board: tuple[Knobs, ...], who: tuple[str, ...]) -> None:
        """Write into the history what was said last, in place of its own beginning."""
        conversations = tuple(tuple(side.turns) for side in self.sides)
        entry = Entry(board, who, conversations)
        if self.entries and _same_question(self.entries[-1], entry):
            self.entries[-1] = entry
        else:
            self.entries.append(entry)
            del self.entries[:-MOST_ENTRIES]

    def go_back(self, place: int) -> Entry:
        """Return to what the history has in a place."""
        entry = self.entries[place]
        for side, turns in zip(self.sides, entry.conversations, strict=True):
            side.stop()
            side.turns = list(turns)
        return entry

    def vote(self, choice: Choice) -> Verdict | None:
        """Remember which was better, and say who they were; None if there is nothing to compare."""
        left, right = self.sides[:2]
        done = all(side.turns and side.turns[-1].answer for side in (left, right))
        if self.revealed or not done:
            return None
        self.stop()
        verdict = Verdict(left.turns[-1].by, right.turns[-1].by, choice)
        self.verdicts.append(verdict)
        self.revealed = True
        return verdict


def wins(verdicts: Sequence[Verdict]) -> dict[str, tuple[int, int, int]]:
    """Return how often each who was compared won, lost, and was even."""
    counts: dict[str, list[int]] = {}
    for verdict in verdicts:
        for name, won in ((verdict.left, "left"), (verdict.right, "right")):
            place = 2 if verdict.choice == "tie" else int(verdict.choice != won)
            counts.setdefault(name, [0, 0, 0])[place] += 1
    return {name: (won, lost, even) for name, (won, lost, even) in counts.items()}


def _same_question(before: Entry, now: Entry) -> bool:
    def asked(entry: Entry) -> object:
        return [
            [replace(turn, answer="", by="", key="") for turn in c] for c in entry.conversations
        ]

    return (before.board, before.who, asked(before)) == (now.board, now.who, asked(now))
