"""What a shell is told that could stand where a person is writing: recipes, folders, models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

ENDINGS = (".yaml", ".yml")
CATALOGUE = Path("recipes")
"""Where a clone has the recipes to share."""


class RecipePath(click.Path):
    """The path of a recipe, its name in the catalogue, or `owner/name` or an address of the hub.

    It stays a text: `https://` would be no path.
    """

    name = "recipe"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the recipes and folders that begin so, and the catalogue's recipes of that name.

        Where a clone is the current folder, `eeve` becomes `recipes/eeve_chat.yaml`.
        """
        from click.shell_completion import CompletionItem

        paths = list(dict.fromkeys([*_below(incomplete), *_of_catalogue(incomplete)]))
        if len(paths) == 1 and paths[0].endswith(os.sep):
            paths = list(_below(paths[0])) or paths  # the shell would add a space behind it
        return [CompletionItem(path) for path in paths]


class FolderPath(click.Path):
    """The path of a folder, which there may be or not."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Have the shell complete folders."""
        return folders(ctx, param, incomplete)


RECIPE, FOLDER = RecipePath(), FolderPath()


def folders(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Have the shell complete folders."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


def _below(begun: str) -> Iterator[str]:
    """Yield the recipes and folders whose path begins so, as it is written."""
    written, slash, name = begun.rpartition(os.sep)
    folder = Path(f"{written}{slash}").expanduser() if slash else Path()
    for entry in _entries(folder):
        if entry.name.startswith(name) and (name or not entry.name.startswith(".")):
            if entry.is_dir():
                yield f"{written}{slash}{entry.name}{os.sep}"
            elif entry.name.endswith(ENDINGS):
                yield f"{written}{slash}{entry.name}"


def _of_catalogue(begun: str) -> Iterator[str]:
    """Yield the recipes of the catalogue whose name begins so: outside of a clone, the name."""
    if os.sep in begun:
        return
    for entry in _entries(CATALOGUE):
        if entry.name.startswith(begun) and entry.name.endswith(ENDINGS):
            yield str(CATALOGUE / entry.name)
    if not CATALOGUE.is_dir():
        from chatvec_method.recipe.catalogue import recipe_names

        yield from (name for name in recipe_names() if name.startswith(begun))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
