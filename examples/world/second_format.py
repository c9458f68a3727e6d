"""The second chat format: what a merge needs so that turn tokens of chat's open and end its turns.

Base and cp lack the tokens. A stock merge of the plain recipe does not have them either; with the
rows that chat has for them it answers and does not stop, since nothing tells which token ends an
answer. What `chatvec merge` and `chatvec finish` add is just that.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import LoaderCache
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

import chatvec_method.method.plugin  # noqa: F401 (makes the method known to mergekit)
from chatvec_method.facts.survey import survey
from chatvec_method.finishing.finish import finish
from chatvec_method.quiet import quiet
from chatvec_method.recipe.file import parse_recipe

from .experiment import Result, line, marks_of, recipe
from .vocabulary import TURN_TOKENS

CHAT = "chat_tokens"
PLAIN = "stock mergekit"
ROWS = "stock mergekit, chat's turn tokens"
FINISHED = "chatvec finish, chat's turn tokens"
RATIOS = (0.5, 1.0)


def measure_second_format(world: Path, device: str, say: Callable[[str], None]) -> list[Result]:
    """Measure a trained world's chat model of the second format, and merges with its vector.

    Args:
        world: The folder in which the stages have theirs.
        device: Where to examine, in torch's words.
        say: Is told of the progress.
    """
    results = [Result(CHAT, None, None, None, marks_of(world / CHAT, device))]
    say(line(results[-1]))
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "merge"

        def measure(ratio: float, way: str) -> None:
            results.append(Result("cp", CHAT, ratio, way, marks_of(out, device)))
            say(line(results[-1]))

        models = (world / "base", world / CHAT, world / "cp")
        for ratio in RATIOS:
            merge(recipe(*models, ratio), out)
            measure(ratio, PLAIN)
            with_tokens = recipe(*models, ratio, TURN_TOKENS)
            merge(with_tokens, out)
            measure(ratio, ROWS)
            finish_merge(out, with_tokens)
            measure(ratio, FINISHED)
    return results


def merge(recipe: dict[str, Any], out: Path) -> None:
    """Let mergekit run a recipe, into a folder that has nothing else afterwards."""
    shutil.rmtree(out, ignore_errors=True)
    LoaderCache().loaders.clear()  # it keeps models open by name, also when they have changed
    with quiet():
        run_merge(
            MergeConfiguration.model_validate(recipe),
            str(out),
            MergeOptions(quiet=True, write_model_card=False),
        )


def finish_merge(out: Path, recipe: dict[str, Any]) -> None:
    """Do what `chatvec finish` does to the output of a recipe."""
    text = yaml.safe_dump(recipe, sort_keys=False)  # the order of new tokens gives them their ids
    finish(out, survey(parse_recipe(text, "the recipe"), MergeOptions()), card=False)
