"""The whole way once, in seconds: three small models, the stock merge, a model that chats.

The models are those of the miniature world in `examples/world`, trained from nothing. They know two
made-up languages: chat follows requests in the first, cp has read the second, and the merge follows
requests in the second. Nothing is downloaded, and nothing said here is written down anywhere: the
answers are the models'.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mergekit.options import MergeOptions

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.survey import survey
from chatvec_method.finishing.finish import finish
from chatvec_method.quiet import quiet
from chatvec_method.recipe.file import Recipe, parse_recipe, read_recipe
from chatvec_method.shipped import shipped
from chatvec_method.talk.conversation import Conversation
from chatvec_method.talk.speaker import Speaker, load

MODELS = "examples/world/models"
RECIPE = "recipes/world.yaml"
SCRIPT = "examples/world/demo.json"
"""Where these are in the repository."""
LONGEST_ANSWER = 12
"""Tokens, of which each is a word; cp would go on for long."""
OPTIONS = ("--no-write-model-card", "--quiet")
"""`finish` writes a card; mergekit's would ask the hub about folders."""


@dataclass(frozen=True)
class Demo:
    """The demo's folder, and what it has of the models."""

    out: Path

    @property
    def models(self) -> Path:
        """The three models of which the merge is made."""
        return self.out / "models"

    @property
    def recipe(self) -> Path:
        """The recipe of the merge."""
        return self.out / "recipe.yaml"

    @property
    def merged(self) -> Path:
        """What becomes of them."""
        return self.out / "merged"

    def owns_all(self) -> bool:
        """Tell whether nothing is in the folder that is not the demo's."""
        return {file.name for file in self.out.iterdir()} <= {"models", "recipe.yaml", "merged"}

    def command(self) -> list[str]:
        """Return the merge as a person would type it."""
        return ["mergekit-yaml", str(self.recipe), str(self.merged), *OPTIONS]


@dataclass(frozen=True)
class Scene:
    """Requests of one conversation, in the second language."""

    about: str
    requests: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """A conversation in the second language, and the right answer at its end."""

    axis: str
    """What it is about: `follows`, `knows`, `recalls` or `refuses`."""
    turns: tuple[str, ...]
    """Requests and answers by turns; a request is the last."""
    answer: str

    def is_answered(self, answer: str) -> bool:
        """Tell whether an answer is right: to the word, but a refusal in either language."""
        if self.axis == "refuses":
            return gloss(answer) == gloss(self.answer)
        return answer == self.answer


@dataclass(frozen=True)
class Turn:
    """A request, and what a model answered."""

    request: str
    answer: str
    ended: bool
    """Whether the model came to an end by itself."""


def unpack(out: Path) -> Demo:
    """Put the three models and the recipe into a folder; a recipe that is there already stays.

    Raises:
        ChatVecError: The folder has something else in it, or cannot be written to.
    """
    if any(mark in str(out) for mark in "+@"):
        raise ChatVecError(
            f"{out} cannot be in a recipe: mergekit takes + and @ in a model's name for signs.",
            "Write another folder.",
        )
    demo = Demo(out)
    try:
        if out.exists() and not (out.is_dir() and demo.owns_all()):
            raise ChatVecError(f"{out} exists and is not empty.", "Write another folder.")
        for name in ("base", "chat", "cp"):
            shutil.copytree(shipped(MODELS) / name, demo.models / name, dirs_exist_ok=True)
        recipe = _recipe(demo)
        if not _is_of_these_models(demo, recipe):
            demo.recipe.write_text(recipe, encoding="utf-8")
    except OSError as error:
        raise ChatVecError(
            f"{out} cannot be written to: {error.strerror}.", "Write another folder."
        ) from error
    return demo


def merge(demo: Demo) -> None:
    """Run mergekit's own command, as it was installed, on the recipe.

    Raises:
        ChatVecError: It failed.
    """
    command = [sys.executable, "-m", "mergekit.scripts.run_yaml", *demo.command()[1:]]
    run = subprocess.run(
        command,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if run.returncode != 0:
        said = (run.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ChatVecError(
            f"mergekit-yaml did not merge: {said}.",
            f"Run `{shlex.join(demo.command())}` to see it.",
        )


def make_ready(demo: Demo) -> None:
    """Give the merge what stock mergekit does not: template, stop tokens, a card."""
    finish(demo.merged, survey(read_recipe(demo.recipe), MergeOptions()))


def speakers(demo: Demo) -> dict[str, Speaker]:
    """Load those who will be talked to; cp is asked in the merge's chat format.

    They count in float32: in bfloat16, a close call may fall differently on another processor.
    """
    with quiet():  # of bars for a thousandth of a second
        merged = load(str(demo.merged), device="cpu")
        cp = load(str(demo.models / "cp"), device="cpu", like=merged)
    for speaker in (cp, merged):
        speaker.model.float()
    return {"cp": cp, "merged": merged}


def scenes() -> tuple[Scene, ...]:
    """Return what they are asked; none of it is in a text that a model was trained on."""
    return tuple(
        Scene(each["about"], tuple(each["requests"])) for each in _script()["conversations"]
    )


def questions() -> tuple[Question, ...]:
    """Return ten questions of each axis; none of them is in a text that a model was trained on."""
    return tuple(
        Question(each["axis"], tuple(each["turns"][:-1]), each["turns"][-1])
        for each in _script()["questions"]
    )


def play(speaker: Speaker, scene: Scene) -> tuple[Turn, ...]:
    """Have a conversation; the model's own earlier answers are what it remembers."""
    conversation, turns = Conversation(), []
    for request in scene.requests:
        answer = speaker.answer(speaker.prompt(conversation, request, LONGEST_ANSWER))
        text = "".join(answer)
        turns.append(Turn(request, text, answer.ended))
        conversation = conversation.with_turn(request, text)
    return tuple(turns)


def gloss(text: str) -> str:
    """Return the words of the second language in the first."""
    return " ".join(_script()["words"].get(word, word) for word in text.split())


def world_recipe() -> Recipe:
    """Return the world's recipe on the models as they lie in the package."""
    return parse_recipe(_recipe_of(shipped(MODELS)), RECIPE)


@cache
def _script() -> dict[str, Any]:
    script: dict[str, Any] = json.loads(shipped(SCRIPT).read_text(encoding="utf-8"))
    return script


def _is_of_these_models(demo: Demo, recipe: str) -> bool:
    """Tell whether there is a recipe, whatever its ratio, that names the models as they lie."""
    if not demo.recipe.is_file():
        return False
    there = demo.recipe.read_text(encoding="utf-8")
    return all(path in there for path in re.findall(r'"[^"]+/models/[^"]+"', recipe))


def _recipe(demo: Demo) -> str:
    """Return the world's recipe on the models of the demo."""
    recipe = _recipe_of(demo.models)
    return f"# Vary the ratio, and merge again:\n# {shlex.join(demo.command())}\n{recipe}"


def _recipe_of(models: Path) -> str:
    """Return the world's recipe, without its preface, on models in a folder."""
    text = shipped(RECIPE).read_text(encoding="utf-8")
    return re.sub(
        rf"{MODELS}/(\w+)",
        lambda found: json.dumps((models / found[1]).as_posix(), ensure_ascii=False),
        text[text.index("merge_method:") :],
    )
