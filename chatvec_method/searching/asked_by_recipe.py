"""What a recipe says of its own search, in its block for the catalogue.

    chatvec:
      search:
        tasks: [examples/world/tasks]
        objectives: [quality=world_following exact+world_refuse refuses, ...]

It counts where the command line says nothing. Tasks are programs, so that those of a recipe from
the hub have to be named by whoever runs them.
"""

from __future__ import annotations

from dataclasses import dataclass

from chatvec_method.errors import ChatVecError
from chatvec_method.evaluation import suite
from chatvec_method.recipe.file import Recipe

KEY = "search"
TASKS, OBJECTIVES = "tasks", "objectives"


@dataclass(frozen=True)
class OwnSearch:
    """What a recipe asks for."""

    languages: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()


def own_search(recipe: Recipe, *, from_hub: bool) -> OwnSearch:
    """Return what a recipe asks for, its language where it names no tasks.

    Args:
        recipe: The recipe.
        from_hub: Whether it was written by a stranger.

    Raises:
        ChatVecError: It cannot be read, or a stranger's names tasks.
    """
    block = recipe.metadata.get(KEY) or {}
    if not isinstance(block, dict) or not block.keys() <= {TASKS, OBJECTIVES}:
        raise ChatVecError(
            f"{recipe.name}: `chatvec: search:` has something else than tasks and objectives.",
            "Write `tasks: [FOLDER]` and `objectives: [...]` below it, or leave it out.",
        )
    tasks, wanted = (_texts(recipe, block, key) for key in (TASKS, OBJECTIVES))
    if tasks and from_hub:
        raise ChatVecError(
            f"{recipe.name} asks for the tasks {', '.join(tasks)}, which are programs that would "
            "run here.",
            "Look at them, and name them yourself: `--tasks`, with `--objective`.",
        )
    language = recipe.metadata.get("language")
    languages = (language,) if language in suite.LANGUAGES and not tasks else ()
    return OwnSearch(languages, tasks, wanted)


def _texts(recipe: Recipe, block: dict[str, object], key: str) -> tuple[str, ...]:
    value = block.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ChatVecError(
            f"{recipe.name}: `chatvec: search: {key}:` is no list of texts.",
            f"Write `{key}: [...]`.",
        )
    return tuple(value)
