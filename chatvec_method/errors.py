"""The one error that a person is meant to read, and the warning."""

from __future__ import annotations

import click

from chatvec_method.plain_text import cut, plain

LONGEST_REASON = 400
DIFFERS = "output-differs"
"""The code of an error that says that an output is not what it should be."""


class ChatVecError(click.ClickException):
    """One mistake in a recipe, a model or an option: what is wrong, and what to write instead.

    mergekit's commands are built on click, so raising this inside one of them prints
    `Error: <problem> <fix>` and exits with 1, without a traceback.

    Args:
        problem: A sentence that names the model, tensor or file and says what is wrong with it.
        fix: A sentence that says what to write or do instead.
        code: The kind of mistake, for those that `chatvec check` also finds by itself.
    """

    def __init__(self, problem: str, fix: str, code: str = "recipe-refused") -> None:
        # What it quotes may be from anybody.
        self.problem = cut(plain(problem))
        self.fix = cut(plain(fix))
        super().__init__(f"{self.problem} {self.fix}")
        self.code = code

    def __reduce__(self) -> tuple[type[ChatVecError], tuple[str, str, str]]:
        # An exception is pickled with what it gave its parent, which here is one text, not three.
        return type(self), (self.problem, self.fix, self.code)


class ChatVecWarning(UserWarning):
    """What a check says of a recipe that a Python program merges all the same."""


def first_line(error: BaseException) -> str:
    """Return what an exception says, in one line without a full stop."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    first = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]  # which says nothing yet
    return cut(first.rstrip("."), LONGEST_REASON)
