"""What an answer is made with: the merge at a ratio, cp, or a chat model; each has a name.

`merge` is the recipe's merge, `merge@0.7` and `merge@linear:1:0.3` are the same at other ratios,
`cp` is it at ratio 0, and `chat` the chat model itself; a recipe with several has `chat`, `chat2`
and so on, in its order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from typing import Any

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.plan import MergePlan
from chatvec_method.recipe.file import Recipe
from chatvec_method.recipe.ratios import Reworded, chat_parameters
from chatvec_method.schedules.any_ratio import with_ratio
from chatvec_method.schedules.spec import names_a_file

MERGE, CP, CHAT = "merge", "cp", "chat"
AT = "@"
LONGEST_RATIO = 50_000
"""Characters of JSON; the largest models have schedules of some thousand."""
REMEMBERED = 64
"""So many ratios; a schedule takes a while to be put into a recipe."""
NO_SUCH_MODEL = "model-not-found"
"""The code of the error that a name is no model's."""
BAD_SETTING = "bad-ratio"
"""The code of the error that something is no ratio, or that it cannot be one here."""


@dataclass(frozen=True)
class Setting:
    """What an answer is made with."""

    name: str
    """As a request names it: `merge@0.7`."""
    merge: Reworded | None = None
    """The recipe with the ratio; None for a chat model."""
    chat: str | None = None
    """The chat model, as the recipe names it; None for the merge."""

    @property
    def recipe(self) -> Recipe | None:
        """The recipe with the ratio, to be saved or merged; None for a chat model."""
        return None if self.merge is None else self.merge.recipe

    @property
    def ratio(self) -> Any:
        """What stands behind `ratio:`: a number, a list, or these by chat model; None for chat."""
        return None if self.merge is None else _ratio(self.merge.raw)

    @property
    def key(self) -> str:
        """The same for settings that are the same model: cp is the merge at 0."""
        return json.dumps([self.chat, self.ratio], sort_keys=True)


class Settings:
    """The settings that a recipe's merge can have, by name."""

    def __init__(self, recipe: Recipe, plan: MergePlan) -> None:
        """Know a merge's settings.

        Args:
            recipe: As it is written.
            plan: Of the recipe, at any ratio.
        """
        self._recipe = recipe
        self._plan = plan
        models = [each for each in plan.roles.chats if each not in plan.roles.vectors]
        self.chats: Mapping[str, str] = {
            CHAT if number == 1 else f"{CHAT}{number}": str(model)
            for number, model in enumerate(models, 1)
        }
        """The chat models by their names here; chat vectors as files are none."""
        self._at = lru_cache(REMEMBERED)(self._reworded)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that need no ratio."""
        return (MERGE, CP, *self.chats)

    def named(self, name: str = MERGE, *, ratio: Any = None, schedule: Any = None) -> Setting:
        """Return a setting.

        Args:
            name: `merge`, `merge@RATIO`, `cp` or `chat`.
            ratio: A number, or a dict with one for each of some chat models; only for `merge`.
            schedule: A shape (`linear:1:0.3`), or what a recipe has behind `ratio:`; only for
                `merge`, and only without a ratio.

        Raises:
            ChatVecError: There is no such model (`NO_SUCH_MODEL`), or this is no ratio for it
                (`BAD_SETTING`).
        """
        kind, at, written = name.partition(AT)
        given = [each for each in (written if at else None, ratio, schedule) if each is not None]
        if kind != MERGE and name not in self.names:
            raise ChatVecError(
                f"there is no model {name!r} here.",
                f"Write {', '.join(self.names)}, or {MERGE}{AT} and a ratio, as in {MERGE}@0.7.",
                NO_SUCH_MODEL,
            )
        if kind != MERGE and given:
            raise ChatVecError(
                f"{name} has no ratio of its own.", f"Write it for {MERGE}.", BAD_SETTING
            )
        if len(given) > 1:
            raise ChatVecError(
                "the ratio is said more than once.",
                f"Write one of `ratio`, `schedule` and {MERGE}@RATIO.",
                BAD_SETTING,
            )
        if ratio is not None and not _is_number_or_several(ratio):
            raise ChatVecError(
                f"ratio {json.dumps(ratio)} is no number.",
                "Write a number as `ratio`, and anything else as `schedule`.",
                BAD_SETTING,
            )
        if kind in self.chats:
            return Setting(name, chat=self.chats[kind])
        if kind == CP:
            return Setting(name, self._at("0.0"))
        if not given:
            return Setting(name, Reworded(self._recipe))
        short = isinstance(given[0], (str, Real))
        return Setting(f"{MERGE}{AT}{given[0]}" if short else MERGE, self._at(json.dumps(given[0])))

    def _reworded(self, ratio: str) -> Reworded:
        """Return the recipe with a ratio, which is given as JSON."""
        if len(ratio) > LONGEST_RATIO:
            raise ChatVecError(
                f"the schedule has {len(ratio):,} characters.",
                f"Write one of {LONGEST_RATIO:,} at most.",
                BAD_SETTING,
            )
        given = json.loads(ratio)
        for each in given.values() if isinstance(given, dict) else [given]:
            if isinstance(each, str) and names_a_file(each):
                raise ChatVecError(
                    "no files are read here.",
                    "Write the numbers: `per-layer:1,0.8,0.6,…`, one a layer.",
                    BAD_SETTING,
                )
        try:
            reworded = with_ratio(self._recipe, given, self._plan)
            self._plan.with_ratios(reworded.config)
        except ChatVecError as error:
            raise ChatVecError(error.problem, error.fix, BAD_SETTING) from error
        return reworded


def _is_number_or_several(ratio: Any) -> bool:
    each = ratio.values() if isinstance(ratio, Mapping) else [ratio]
    return all(isinstance(one, Real) and not isinstance(one, bool) for one in each)


def _ratio(raw: Mapping[str, Any]) -> Any:
    """Return the ratio of a recipe, as it stands there; by chat model, where there are several."""
    above = (raw.get("parameters") or {}).get("ratio", 1.0)
    by_chat: dict[str, list[Any]] = {}
    for chat, _, parameters in chat_parameters(raw):
        ratio = parameters.get("ratio", above)
        if ratio not in by_chat.setdefault(chat, []):
            by_chat[chat].append(ratio)
    ratios = {chat: each[0] if len(each) == 1 else each for chat, each in by_chat.items()}
    return next(iter(ratios.values())) if len(ratios) == 1 else ratios
