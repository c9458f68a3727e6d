"""A merge's output made ready to chat: template, special tokens, stop tokens, config and card.

What mergekit writes has the config and the tokenizer of `base_model`, which seldom know how the
chat model chats. Here the output gets what the survey says. What is written is a function of the
recipe, its models and the headers of the output's weights, so that it does not matter whether
`chatvec merge` or stock `mergekit-yaml` made them, nor how often this runs. No weights are read.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

from transformers.utils import (
    CONFIG_NAME,
    GENERATION_CONFIG_NAME,
)

from chatvec_method.errors import ChatVecError, ChatVecWarning, first_line
from chatvec_method.facts.chat_format import (
    chat_format,
)
from chatvec_method.facts.models import Model
from chatvec_method.facts.plan import MergePlan
from chatvec_method.facts.survey import ReadySurvey, Survey
from chatvec_method.finishing.card import date_of, model_card
from chatvec_method.finishing.configs import config_text, generation_config_text
from chatvec_method.finishing.donors import companions
from chatvec_method.finishing.files import Content, FileChange, content_of, write_content
from chatvec_method.finishing.hashes_file import CARD_FILE, HASHES_FILE, read_hashes
from chatvec_method.finishing.output import RECIPE_FILE, look_at, usable_tokens
from chatvec_method.finishing.recorded import with_commits_in
from chatvec_method.finishing.tokenizer_files import tokenizer_files
from chatvec_method.pictures.ratios import ratio_picture, ratios_vary

PICTURE_FILE = "ratio.png"


def finish(
    out: Path,
    survey: Survey | ReadySurvey,
    *,
    name: str | None = None,
    card: bool = True,
    dry_run: bool = False,
) -> tuple[FileChange, ...]:
    """Make a merge's output ready to chat, in place.

    Each file is replaced in one step. A second run finds nothing to change. A card or picture that
    cannot be made is left out, with a `ChatVecWarning`: the model is right without.

    Args:
        out: The folder, as any command of mergekit's left it.
        survey: Of the recipe that it was made from.
        name: What the card calls the model; by default the folder's name.
        card: Whether to write `README.md` and the picture in it.
        dry_run: Whether to change nothing and only tell what would change.

    Returns:
        The changed files, by name.

    Raises:
        ChatVecError: The folder is not that recipe's output, or cannot be written to.
    """
    ready = survey.ready()
    output = look_at(out, ready)
    ready = with_commits_in(out, ready)
    files: dict[str, Content] = {RECIPE_FILE: ready.recipe.text}
    files |= files_to_load(out, output, ready)
    if card:
        files |= _card_files(out, _with_usable_tokens(output, ready), name or out.resolve().name)

    changes = _changes(out, files)
    if changes and (hashes := read_hashes(out)) is not None:
        changes = _changes(out, files | {HASHES_FILE: hashes.with_changes(changes).text()})
    if not dry_run:
        for change in changes:
            write_content(out / change.name, change.after)
    return changes


def _changes(out: Path, files: Mapping[str, Content]) -> tuple[FileChange, ...]:
    return tuple(
        FileChange(file, before, after)
        for file, after in sorted(files.items())
        if (before := content_of(out / file)) != after
    )


def files_to_load(out: Path, output: Model, survey: ReadySurvey) -> dict[str, Content]:
    """Return the files besides the weights that loading a finished output takes, by name.

    Args:
        out: The folder that gets them: what it must not keep is there as None.
        output: What is known of the output: its tensors and, if it has one already, its tokenizer.
        survey: Of the recipe.
    """
    ready = _with_usable_tokens(output, survey)
    files = companions(ready)
    files |= tokenizer_files(out, ready, ready.format)
    files[GENERATION_CONFIG_NAME] = generation_config_text(ready, ready.format)
    files[CONFIG_NAME] = config_text(output, ready, ready.format)
    return files


def _with_usable_tokens(output: Model, survey: ReadySurvey) -> ReadySurvey:
    """Return a survey without the tokens for which the output has no row."""
    tokens = usable_tokens(output, survey.plan, survey.tokens)
    if tokens == survey.tokens:
        return survey
    chat = chat_format(survey.recipe.config, survey.plan.roles, survey.models, tokens)
    return replace(survey, tokens=tokens, format=chat)


def _card_files(out: Path, survey: ReadySurvey, name: str) -> dict[str, Content]:
    picture = _picture(survey.plan)
    try:
        card = _card(out, survey, name, picture=picture is not None)
    except Exception as error:  # of any library that takes part
        _warn("the model card could not be written", error)
        return {}
    return {CARD_FILE: card} | ({PICTURE_FILE: picture} if picture is not None else {})


def _card(out: Path, survey: ReadySurvey, name: str, *, picture: bool) -> str:
    held = content_of(out / CARD_FILE)
    written = date_of(held) if isinstance(held, str) else None
    if written is not None:
        before = model_card(survey, name, written, picture=picture)
        if before == held:
            return before  # nothing but the day has changed
    return model_card(survey, name, date.today().isoformat(), picture=picture)


def _picture(plan: MergePlan) -> bytes | None:
    if not ratios_vary(plan):
        return None
    try:
        return ratio_picture(plan)
    except Exception as error:  # of fonts, of matplotlib's settings, ...
        _warn("the model card has no picture of the ratios", error)
        return None


def _warn(what: str, error: Exception) -> None:
    why = str(error) if isinstance(error, ChatVecError) else f"{first_line(error)}."
    warnings.warn(f"{what}: {why}", ChatVecWarning, stacklevel=2)
