"""Answers that models gave, kept in a small SQLite file, so that no model is asked twice.

A key is a hash of all that an answer depends on: who answers (weights, ratio, chat format), the
task, the prompt and how it is to be answered. Marks are not kept: they are given anew, by the rules
as they are now.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chatvec_method.errors import ChatVecError

FILE = "evaluate.sqlite"
SECONDS_TO_WAIT = 60
"""For another process that writes into the same file."""
AT_ONCE = 500
"""Keys in one query: old SQLites take 999."""
TABLES = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, response TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, note TEXT NOT NULL) WITHOUT ROWID;
"""


class Answers:
    """Responses by key, and notes on models that take long to find out."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def responses(self, keys: Iterable[str]) -> dict[str, Any]:
        """Return those responses of these keys that are kept."""
        wanted, kept = list(dict.fromkeys(keys)), {}
        for start in range(0, len(wanted), AT_ONCE):
            some = wanted[start : start + AT_ONCE]
            places = ",".join("?" * len(some))
            query = f"SELECT key, response FROM answers WHERE key IN ({places})"
            for key, response in self._connection.execute(query, some):
                kept[key] = _read(response)
        return kept

    def keep(self, responses: Mapping[str, Any]) -> None:
        """Keep responses, all of them or none: a batch that was cut short is not there."""
        rows = [(key, json.dumps(each, ensure_ascii=False)) for key, each in responses.items()]
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)

    def note(self, key: str) -> Any:
        """Return what was noted under a key, None if nothing was."""
        row = self._connection.execute("SELECT note FROM notes WHERE key = ?", [key]).fetchone()
        return None if row is None else _read(row[0])

    def write_note(self, key: str, note: Any) -> None:
        """Note something, as JSON has it."""
        with self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO notes VALUES (?, ?)", [key, json.dumps(note)]
            )


def _read(said: Any) -> Any:
    """Return what is kept, as JSON has it.

    Raises:
        sqlite3.DatabaseError: It is no JSON.
    """
    try:
        return json.loads(said)
    except (ValueError, TypeError, RecursionError) as error:
        raise sqlite3.DatabaseError("what is kept in the file there is no JSON") from error


def key_of(*parts: Any) -> str:
    """Return the key of what depends on these parts, which JSON can write."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def kept_in(folder: Path | None) -> Iterator[Answers]:
    """Open the answers kept in a folder, which is made if it is missing; None keeps none.

    Raises:
        ChatVecError: The folder cannot be written to, or the file is no such file.
    """
    where: Path | str = ":memory:"
    if folder is not None:
        where = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _refusal(folder, error) from error
        if where.is_symlink() or (where.exists() and not where.is_file()):
            raise _refusal(folder, f"{FILE} there is a link, or no file")
    try:
        with contextlib.closing(sqlite3.connect(where, timeout=SECONDS_TO_WAIT)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.executescript(TABLES)
            _check_plain(connection)
            yield Answers(connection)
    except sqlite3.Error as error:
        raise _refusal(folder, error) from error


def _check_plain(connection: sqlite3.Connection) -> None:
    """Check that the file has our tables and nothing that acts: views, triggers, computed columns.

    Raises:
        sqlite3.DatabaseError: It has more, or other ones.
    """
    has = connection.execute("SELECT type, sql FROM sqlite_master WHERE sql NOT NULL").fetchall()
    ours = {
        ("table", line.replace("IF NOT EXISTS ", "").rstrip(";"))
        for line in TABLES.split("\n")
        if line
    }
    if {*has} != ours:
        raise sqlite3.DatabaseError("the file there is none of ours")


def _refusal(folder: Path | None, error: object) -> ChatVecError:
    return ChatVecError(
        f"answers cannot be kept in {folder} ({error}).",
        "Write the name of a folder that can be written to: `--state FOLDER`; where its "
        f"{FILE} is damaged, remove that.",
    )
