"""Found ratios as recipes: plain mergekit YAML, the comments of the first one kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.plan import MergePlan
from chatvec_method.finishing.files import write_content
from chatvec_method.recipe.edits import Edit, edited
from chatvec_method.recipe.file import METADATA, Recipe, parse_recipe
from chatvec_method.schedules.cases import Schedule
from chatvec_method.schedules.into_recipe import with_schedule

LOCK = ".writing"
"""A file that the worker has which writes into a search's folder."""


def with_ratios(recipe: Recipe, ratios: Mapping[str, Schedule], plan: MergePlan) -> Recipe:
    """Return a recipe with a schedule for every chat vector.

    Args:
        recipe: The recipe.
        ratios: By chat vector, as the recipe names it.
        plan: Of the recipe, at any ratio.

    Raises:
        ChatVecError: A schedule cannot be written into it.
    """
    for chat, schedule in ratios.items():
        text = with_schedule(
            recipe, schedule, lambda changed: plan.with_ratios(changed.config), chat
        )
        recipe = parse_recipe(text, recipe.name)
    return recipe


def with_figures(recipe: Recipe, told: str) -> str:
    """Return a recipe's text with what was measured of it; the recipe's own headline goes.

    Raises:
        ChatVecError: Its text cannot be changed.
    """
    return edited(recipe.text, [Edit((METADATA, "measured"), told)])


def write_files(folder: Path, files: Mapping[str, str | bytes], before: Sequence[str]) -> None:
    """Write files into a folder, each in one step, and remove what an earlier run wrote there.

    Args:
        folder: Which is made if it is missing.
        files: Their content by name.
        before: The names of those that the earlier run wrote.

    Raises:
        ChatVecError: The folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):  # other workers may be done in the same moment
            for name, content in files.items():
                write_content(folder / name, content)
            for name in set(before) - files.keys():
                (folder / Path(name).name).unlink(missing_ok=True)
    except OSError as error:
        raise ChatVecError(
            f"{folder} cannot be written to ({error.strerror}); all trials are kept.",
            "Write another folder, `--out DIR`, and run it again.",
        ) from error
