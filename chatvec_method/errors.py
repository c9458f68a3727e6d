"""The one error that a person is meant to read."""

from __future__ import annotations

import click


class ChatVecError(click.ClickException):
    """A mistake in a recipe, a model or an option, told in one line with what to write instead.

    mergekit's commands are built on click, so raising this inside one of them prints
    `Error: <message>` and exits with 1, without a traceback.
    """
