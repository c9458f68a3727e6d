"""From what a person names to targets: models with a chat format, recipes with their ratios."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chatvec_method import anatomy
from chatvec_method.errors import ChatVecError
from chatvec_method.evaluation.answers import Answers, key_of
from chatvec_method.evaluation.recipes import recipe_identity, revisions, settings_of
from chatvec_method.evaluation.targets import (
    Live,
    RecipeTarget,
    ServerTarget,
    Target,
    folder_targets,
    is_server,
    like_address,
)
from chatvec_method.facts.survey import Survey


@dataclass(frozen=True)
class Sweep:
    """At which ratios recipes are evaluated."""

    ratios: Sequence[float] = ()
    """For all chat models and layers."""
    schedules: Sequence[str] = ()
    """Shapes of the ratio over the layers."""
    own: bool = False
    """Whether a recipe's own ratio is among them anyway."""


def targets_of(
    named: Sequence[str | Survey],
    sweep: Sweep,
    answers: Answers,
    *,
    open_live: Callable[[Survey], Live],
    against: str | None,
    device: str,
    trust_remote_code: bool,
) -> list[Target]:
    """Return targets in the order in which they are named.

    Args:
        named: Models, servers, and recipes that are surveyed.
        sweep: At which ratios recipes are evaluated.
        answers: Where what takes long to find out of a recipe is noted.
        open_live: Opens a recipe's merge.
        against: With whose answers others are compared; "cp" adds ratio 0 to the recipes, and
            "chat" their chat models to the targets.
        device: As torch names it, or "auto".
        trust_remote_code: Whether Python code that comes with the models may run.

    Raises:
        ChatVecError: There is no target, no such model, or a ratio for something else than a
            recipe.
    """
    if not named or "" in named:
        raise ChatVecError("there is nothing to evaluate.", "Name a folder, a recipe or a server.")
    for each in named:
        if isinstance(each, str) and not is_server(each) and like_address(each):
            raise ChatVecError(
                f"{each} is no folder, and no whole address of a server.",
                "Write one as in `http://localhost:8000/v1`.",
            )
    surveys = [each for each in named if isinstance(each, Survey)]
    if not surveys and (sweep.ratios or sweep.schedules):
        raise ChatVecError(
            "a ratio or a schedule is for a recipe, and no target is one.",
            "Name a recipe's YAML file, or leave the ratio out.",
        )
    roles = [each.ready().plan.roles for each in surveys]
    chats = [str(chat) for each in roles for chat in each.chats if chat not in each.vectors]
    models = [each for each in named if isinstance(each, str) and not is_server(each)]
    folders = folder_targets(
        models + [chat for chat in chats if against == "chat" and chat not in models],
        chats,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    targets: list[Target] = []
    for each in named:
        if isinstance(each, Survey):
            targets.append(_recipe_target(each, sweep, answers, open_live, against, device))
        elif is_server(each):
            targets.append(ServerTarget(each))
        elif each in folders:  # named twice, it is evaluated once
            targets.append(folders.pop(each))
    return [*targets, *folders.values()]


def _recipe_target(
    survey: Survey,
    sweep: Sweep,
    answers: Answers,
    open_live: Callable[[Survey], Live],
    against: str | None,
    device: str,
) -> RecipeTarget:
    models = list(survey.models)
    ratios = list(sweep.ratios)
    if against == "cp" and 0 not in ratios:
        ratios.insert(0, 0.0)
    own = sweep.own or not (sweep.ratios or sweep.schedules)
    whose = recipe_identity(survey.recipe, models)
    return RecipeTarget(
        survey.recipe.name,
        whose,
        settings_of(survey.recipe, ratios, sweep.schedules, own=own),
        lambda: open_live(survey),
        device,
        moved=lambda: _moved(survey, answers, key_of("moved", whose)),
        revisions=revisions(models),
        chats=[str(chat) for chat in survey.ready().plan.roles.chats],
    )


def _moved(survey: Survey, answers: Answers, key: str) -> dict[str, float]:
    """Return for each chat model ‖cp − base‖ / ‖chat − base‖; all weights are read once for it.

    Where a chat vector is a file there is no base, and nothing to say.
    """
    if survey.ready().plan.roles.vectors:
        return {}
    noted = answers.note(key)
    if not isinstance(noted, dict) or not all(isinstance(v, float) for v in noted.values()):
        examined = anatomy.examine(survey)
        sums = {c: examined.whole((c, examined.roles.cp)) for c in examined.roles.chats}
        noted = {str(chat): each.other_norm / each.vector_norm for chat, each in sums.items()}
        answers.write_note(key, noted)
    return dict(noted)
