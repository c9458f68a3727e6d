"""Which commit of each model a recipe means today."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mergekit.common import ModelPath, ModelReference

from chatvec_method.facts.on_hub import ask_hub, problems_as_errors
from chatvec_method.recipe.pins import COMMIT, model_names, name_and_revision


def commits_today(raw: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Return the newest commits of a recipe's models and adapters, and those that have none.

    Args:
        raw: What the recipe's YAML says.

    Returns:
        The commits by name, as `recipe.pins.pinned` takes them, of branches and tags too; and the
        names of folders here, for which there is no commit.

    Raises:
        ChatVecError: A model is not on the hub, is gated, or the hub cannot be reached.
    """
    names = dict.fromkeys(part for _, name in model_names(raw) for part in name.split("+"))
    commits, folders = {}, []
    for written in names:
        name, revision = name_and_revision(written)
        if Path(name).is_dir():
            folders.append(name)
        elif revision is None or COMMIT.fullmatch(revision) is None:
            path = ModelPath(path=name, revision=revision)
            with problems_as_errors(ModelReference(model=path)):
                commits[written] = str(ask_hub(path).sha)
    return commits, folders
