"""A finished, verified model or a recipe, put on the hub so that others can make it again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.licences import Strictness, licence_of, strictness
from chatvec_method.facts.models import Model, without_commits
from chatvec_method.facts.survey import ReadySurvey, Survey
from chatvec_method.finishing.card import date_of, model_card
from chatvec_method.finishing.files import content_of
from chatvec_method.finishing.finish import PICTURE_FILE, finish
from chatvec_method.finishing.hashes_file import CARD_FILE, read_hashes
from chatvec_method.finishing.markdown import prose
from chatvec_method.finishing.output import RECIPE_FILE
from chatvec_method.finishing.recorded import with_commits_in, with_commits_of
from chatvec_method.hub.named import RECIPE_FILES
from chatvec_method.hub.upload import Uploaded, check_name, upload
from chatvec_method.merging.verify import verify
from chatvec_method.progress import Progress
from chatvec_method.recipe.file import Recipe

WEIGHTS = re.compile(r".*\.(safetensors|bin)")
CHUNK = 1 << 22
TAGS = ("mergekit", "merge", "chat-vector")
RECIPE_CARD = """\
---
{metadata}
---

# {title}

A recipe for [chatvec-method](https://arxiv.org/abs/2310.04799): a chat vector to be merged, without
weights. With chatvec-method installed,

    chatvec merge {name} out/

makes the model, and stock mergekit runs `{file}` as well.

{fence}yaml
{recipe}
{fence}
"""


@dataclass(frozen=True)
class Shared:
    """What was put on the hub, or would be."""

    name: str
    files: Mapping[str, int]
    """Their sizes in bytes, by name."""
    warnings: tuple[str, ...]
    """What others will not be able to do, or may not be allowed to."""
    uploaded: Uploaded | None
    """None where nothing was sent."""


def share_model(
    out: Path,
    survey: Survey,
    name: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Shared:
    """Put a merge's output on the hub, after it has been verified.

    Args:
        out: The folder.
        survey: Of the recipe that it was made from.
        name: `owner/name`, on the hub.
        private: Whether only its owner sees a repository that is new.
        dry_run: Whether to verify, and send nothing.
        on_progress: Is told how far it is, but for the sending, of which huggingface_hub tells.

    Raises:
        ChatVecError: It is not finished, not what the recipe says, or the hub does not take it.
    """
    check_name(name)
    ready = survey.ready()
    _check_finished(out, ready)
    # What has hashes was held against its models when it was written; all else is computed again.
    deep = read_hashes(out) is None
    verify(out, survey, survey.options, deep=deep, on_progress=on_progress)
    ready = with_commits_in(out, ready)
    if deep:  # then these commits have just been shown to make these weights
        ready = with_commits_of(ready)
    files: dict[str, Path | bytes] = {
        file.relative_to(out).as_posix(): file
        for file in sorted(out.rglob("*"))
        if file.is_file() and not any(p.startswith(".") for p in file.relative_to(out).parts)
    }
    hashes = {
        n: _sha256(f) for n, f in files.items() if isinstance(f, Path) and WEIGHTS.fullmatch(n)
    }
    files[RECIPE_FILE] = ready.recipe.text.encode()
    card, own = _card(out, ready, name, hashes)
    if card is not None:
        files[CARD_FILE] = card.encode()
    warnings = (*own, *warnings_of(list(ready.models.values())))
    uploaded = None
    if not dry_run:
        uploaded = upload(name, files, f"Share {name}", private=private)
    return Shared(name, _sizes(files), warnings, uploaded)


def share_recipe(
    recipe: Recipe,
    name: str,
    models: Mapping[object, Model],
    *,
    private: bool = False,
    dry_run: bool = False,
) -> Shared:
    """Put a recipe alone on the hub.

    Args:
        recipe: The recipe.
        name: `owner/name`, on the hub.
        models: What is known of its models.
        private: Whether only its owner sees a repository that is new.
        dry_run: Whether to send nothing.

    Raises:
        ChatVecError: The hub does not take it.
    """
    check_name(name)
    files = {
        RECIPE_FILES[0]: recipe.text.encode(),
        CARD_FILE: _recipe_card(recipe, name, list(models.values())).encode(),
    }
    warnings = tuple(warnings_of(list(models.values())))
    uploaded = None
    if not dry_run:
        uploaded = upload(name, files, f"Share the recipe {name}", private=private)
    return Shared(name, _sizes(files), warnings, uploaded)


def _check_finished(out: Path, survey: ReadySurvey) -> None:
    changes = [c.name for c in finish(out, survey, dry_run=True)]
    lacking = [name for name in changes if name not in (CARD_FILE, PICTURE_FILE)]
    if lacking:
        raise ChatVecError(
            f"{out} is not ready to chat: `chatvec finish` would change {', '.join(lacking)}.",
            f"Run `chatvec finish {out}` first.",
        )


def _card(
    out: Path, survey: ReadySurvey, name: str, hashes: Mapping[str, str]
) -> tuple[str | None, tuple[str, ...]]:
    """Return the card to send, None for the one in the folder as it is, and what to say of that."""
    held = content_of(out / CARD_FILE)
    day = date_of(held) if isinstance(held, str) else None
    if isinstance(held, str) and not _is_ours(held, survey, out):
        return None, (f"{CARD_FILE} was written by somebody, and is sent as it is.",)
    picture = (out / PICTURE_FILE).is_file()
    made_on = day or date.today().isoformat()
    return model_card(survey, name, made_on, picture=picture, hashes=hashes), ()


def _is_ours(card: str, survey: ReadySurvey, out: Path) -> bool:
    """Tell whether a card is what `finish` wrote, and nobody added to it."""
    day = date_of(card)
    if day is None:
        return False
    recorded, picture = with_commits_in(out, survey), (out / PICTURE_FILE).is_file()
    return card == model_card(recorded, out.resolve().name, day, picture=picture)


def _recipe_card(recipe: Recipe, name: str, models: list[Model]) -> str:
    title = recipe.metadata.get("title")
    names = [m.reference.model.path for m in models if m.folder is None]
    language = recipe.metadata.get("language")
    metadata = ModelCardData(
        base_model=names or None,
        base_model_relation="merge" if names else None,
        language=language
        if isinstance(language, str) and re.fullmatch("[a-z]{2,3}", language)
        else None,
        tags=[*TAGS, "recipe"],
    )
    text = RECIPE_CARD.format(
        metadata=metadata.to_yaml(),
        title=prose(title) if isinstance(title, str) else name,
        name=name,
        file=RECIPE_FILES[0],
        recipe=recipe.text.rstrip(),
        fence="`" * max(3, 1 + max(map(len, re.findall("`+", recipe.text)), default=0)),
    )
    return str(ModelCard(text))


def warnings_of(models: list[Model]) -> Iterator[str]:
    """Yield what others cannot do with what is made of models, or may not be allowed to."""
    for model in models:
        licence, name = licence_of(model), without_commits(model)
        how = strictness(licence)
        if how is Strictness.NO_DERIVATIVES:
            yield f"{name}: its licence, {licence}, forbids sharing what is made from it."
        elif how is Strictness.NON_COMMERCIAL:
            yield f"{name}: its licence, {licence}, makes the result non-commercial."
        elif how is Strictness.OWN_TERMS:
            yield f"{name}: its licence, {licence}, has terms of its own for what is made from it."
        elif how is Strictness.NOT_STATED:
            yield f"{name}: no licence is stated, so nothing allows sharing what is made from it."
        if model.gated:
            yield f"{name} is gated: others have to ask for access before they can make it again."
        if model.folder is not None and model.commit is None:
            yield f"{name} is a folder here: nobody else can make it again from that."


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _sizes(files: Mapping[str, Path | bytes]) -> dict[str, int]:
    return {
        name: len(content) if isinstance(content, bytes) else content.stat().st_size
        for name, content in sorted(files.items())
    }
