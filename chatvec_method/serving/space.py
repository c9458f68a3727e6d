"""A Hugging Face Space of a recipe: the page and the API for everybody, on the hub's machines.

Its folder is written here, and a Space runs it as it is: `app.py` calls `cli/space.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

import chatvec_method
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.finishing.card import common_licence
from chatvec_method.finishing.markdown import prose
from chatvec_method.sharing import TAGS, warnings_of

RECIPE_FILE = "recipe.yaml"
APP = '''\
"""A merge that can be talked to at any ratio; `chatvec live --space` wrote this folder."""

from chatvec_method.cli.space import serve_space

serve_space({recipe})
'''
README = """\
---
{metadata}---

# {title}

Turn the ratio of a chat vector while you talk to the model. {models}

This Space is written and run by [chatvec-method](https://arxiv.org/abs/2310.04799) {version}:

    chatvec live --space DIR {recipe}

Programs reach it as OpenAI's API, at `/v1` of the Space's own address.
"""
WORLD = "The models are those of a miniature world, which come with the package."


@dataclass(frozen=True)
class Space:
    """What was written."""

    folder: Path
    files: tuple[str, ...]
    warnings: tuple[str, ...]
    """What others cannot do, or may not be allowed to."""


def write_space(folder: Path, survey: ReadySurvey | None) -> Space:
    """Write the folder of a Space.

    Args:
        folder: Which is not there yet, or empty.
        survey: Of the recipe; None for the demonstration's world.

    Raises:
        ChatVecError: The folder has something in it, or a model is not on the hub.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ChatVecError(f"{folder} exists and is not empty.", "Write another folder.")
    files = {
        "app.py": APP.format(recipe="" if survey is None else f'"{RECIPE_FILE}"'),
        "requirements.txt": f"chatvec-method[live]=={chatvec_method.__version__}\n",
        "README.md": _readme(survey),
    }
    warnings: tuple[str, ...] = ()
    if survey is not None:
        _check_on_hub(survey)
        files[RECIPE_FILE] = survey.recipe.text
        warnings = tuple(warnings_of(list(survey.models.values())))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise ChatVecError(
            f"{folder} cannot be written to: {error.strerror}.", "Write another folder."
        ) from error
    return Space(folder, tuple(files), warnings)


def _check_on_hub(survey: ReadySurvey) -> None:
    for model in survey.models.values():
        if model.folder is not None and model.commit is None:
            raise ChatVecError(
                f"{model} is a folder here, where a Space cannot read it.",
                "Put it on the hub with `chatvec share`, and write its name there.",
            )


def _readme(survey: ReadySurvey | None) -> str:
    title, models = "Chat vector, live", WORLD
    metadata: dict[str, Any] = {
        "title": title,
        "emoji": "🎚️",
        "colorFrom": "blue",
        "colorTo": "indigo",
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "app_file": "app.py",
        "tags": [*TAGS],
    }
    licence: Mapping[str, Any] = {"license": "apache-2.0"}
    if survey is not None:
        licence = common_licence(survey)
        names = [str(model.reference.model.path) for model in survey.models.values()]
        models = f"It is made of {', '.join(map(prose, names))}."
        stated = survey.recipe.metadata.get("title")
        title = stated if isinstance(stated, str) else title
        metadata |= {"title": title, "models": names}
    text = yaml.safe_dump({**metadata, **licence}, sort_keys=False, allow_unicode=True)
    recipe = "" if survey is None else RECIPE_FILE
    return README.format(
        metadata=text,
        title=prose(title),
        models=models,
        version=chatvec_method.__version__,
        recipe=recipe,
    ).replace("DIR \n", "DIR\n")
