"""A conversation with a recipe: the merge is a live model, whose ratio can be set between messages.

Several sides may be one model at several ratios: each sets its own before it answers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chatvec_method.errors import ChatVecError, ChatVecWarning
from chatvec_method.schedules.spec import FORMS, name_and_numbers
from chatvec_method.talk.conversation import COMMANDS as OTHERS

if TYPE_CHECKING:
    from chatvec_method.live_merge.model import LiveMerge
    from chatvec_method.recipe.file import Recipe
    from chatvec_method.talk.conversation import Conversation
    from chatvec_method.talk.speaker import Answer, Prompt, Sampling, Speaker

SUFFIXES = (".yaml", ".yml")
COMMANDS = """\
/ratio        show the ratio
/ratio R      set it, as in /ratio 0.7
/ratio X R    set it for some tensors, as in /ratio mlp 0.5: X is attention, mlp, norms, embeddings,
              head, or any part of a name; or it is a chat model of the recipe
/schedule S   set a ratio for every layer, as in /schedule linear:1:0.3
/save OUT     write the merge at this ratio to disk, as `chatvec merge` does"""


@dataclass
class Side:
    """A live model at one ratio, which talks like a speaker."""

    name: str
    live: LiveMerge
    recipe: Recipe
    """With the ratio."""

    @property
    def speaker(self) -> Speaker:
        """The model, at whatever ratio it is now."""
        return self.live.speaker

    def prompt(
        self, conversation: Conversation, request: str, max_new_tokens: int | None = None
    ) -> Prompt:
        """Write a request in the model's format; see `Speaker.prompt`."""
        return self.speaker.prompt(conversation, request, max_new_tokens)

    def answer(self, prompt: Prompt, sampling: Sampling) -> Answer:
        """Return the answer to a prompt, at this side's ratio."""
        self.live.set(self.recipe)
        return self.speaker.answer(prompt, sampling)

    def obey(self, line: str) -> str | None:
        """Do what a line that begins with / says; return what to tell, None for another command.

        Raises:
            ChatVecError: It cannot be done. The ratio is as before.
        """
        command, *words = line.split()
        match command, words:
            case "/help", _:
                return f"{OTHERS}\n{COMMANDS}"
            case "/ratio", []:
                return _ratios(self.recipe)
            case "/ratio", [ratio]:
                self._set(ratio)
            case "/ratio", [part, ratio]:
                self._set(ratio, part)
            case "/schedule", [shape]:
                self._set(shape)
            case "/save", [out]:
                return self._save(Path(out))
            case (("/ratio" | "/schedule" | "/save"), _):
                raise ChatVecError(f"`{line.strip()}` is not understood.", "/help shows how.")
            case _:
                return None
        return f"Set. {_ratios(self.recipe)}"

    def _set(self, ratio: str, part: str | None = None) -> None:
        live = self.live
        live.set(self.recipe)
        if part is None:
            live.set(ratio)
        elif part in map(str, live.plan.roles.chats):
            live.set({part: ratio})
        else:
            live.set_part(part, ratio)
        self.recipe = live.recipe

    def _save(self, out: Path) -> str:
        from chatvec_method.progress import bars

        self.live.set(self.recipe)
        with bars(quiet=False, transient=True) as show:
            result = self.live.save(out, on_progress=show)
        return f"Written to {result.out}."


def is_recipe(name: str) -> bool:
    """Tell whether what is to be talked to is the file of a recipe, and not a model."""
    return name.endswith(SUFFIXES) or Path(name).is_file()


def is_ratio(text: str) -> bool:
    """Tell whether what is to be compared with is a ratio, and not a model."""
    return name_and_numbers(text)[0] in FORMS and not Path(text).is_dir()


def live_side(
    recipe: str,
    device: str,
    trust_remote_code: bool,
    lora_merge_cache: str | None,
    note: Callable[[str], None],
) -> Side:
    """Return a recipe's merge as one that talks.

    Args:
        recipe: Its file.
        device: As torch names it, or "auto".
        trust_remote_code: Whether Python code that comes with the models may run.
        lora_merge_cache: Where models with their adapters are kept.
        note: Is told what the recipe's check warns of.

    Raises:
        ChatVecError: As `chatvec_method.live`.
    """
    from chatvec_method.api import live
    from chatvec_method.options import options_of_models

    with warnings.catch_warnings(record=True, action="always", category=ChatVecWarning) as caught:
        merge = live(
            recipe,
            device=device,
            **options_of_models(trust_remote_code, lora_merge_cache),
        )
    for warning in caught:
        note(str(warning.message))
    return Side(recipe, merge, merge.recipe)


def at_ratio(side: Side, ratio: str) -> Side:
    """Return another side of the same live model.

    Raises:
        ChatVecError: It is no ratio.
    """
    side.live.set(ratio)
    other = Side(f"ratio {ratio}", side.live, side.live.recipe)
    side.live.set(side.recipe)
    return other


def _ratios(recipe: Recipe) -> str:
    """Return the ratios of a recipe in one line, as they stand in it."""
    from chatvec_method.recipe.ratios import chat_parameters

    held = [(chat, parameters.get("ratio")) for chat, _, parameters in chat_parameters(recipe.raw)]
    above = (recipe.raw.get("parameters") or {}).get("ratio")
    return "; ".join(f"{chat}: ratio {above if own is None else own}" for chat, own in held) + "."
