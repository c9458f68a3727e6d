"""A recipe by its name: a file, a name of the catalogue, a repository or an address of the hub.

What comes from the hub was written by strangers: only texts of a recipe's size are read, as YAML
without code. The libraries that ask the hub are imported when it is asked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from chatvec_method.errors import ChatVecError
from chatvec_method.recipe.catalogue import recipe_file, recipe_names
from chatvec_method.recipe.text import parse_yaml, read_text

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

    from chatvec_method.recipe.file import Recipe

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
RECIPE_FILES = ("recipe.yaml", "mergekit_config.yml")
"""Where a repository has its recipe; else its card may carry it."""
CARD = "README.md"
MOST_BYTES = 500_000
"""Of a recipe, or of a card with one."""
FENCE = re.compile(r"(`{3,})(.*)")
ENDINGS = (".yaml", ".yml")
OTHER = "Write the path of a recipe's file, or a repository of the hub that has a recipe."
HOSTS = ("huggingface.co", "hf.co")


@dataclass(frozen=True)
class Place:
    """Where on the hub a recipe is."""

    repository: str
    revision: str | None
    file: str | None
    """None for whichever has it."""

    def __str__(self) -> str:
        return f"{self.repository}@{self.revision}" if self.revision else self.repository


def read_named(named: str | os.PathLike[str]) -> Recipe:
    """Return a recipe by its name; see `named_text`.

    Raises:
        ChatVecError: There is none of that name, it cannot be had or read, or its method is not
            `chat_vector`.
    """
    from chatvec_method.recipe.file import parse_recipe

    return parse_recipe(*named_text(named))


def named_text(named: str | os.PathLike[str]) -> tuple[str, str]:
    """Return the text of a recipe and what messages call it.

    Args:
        named: The path of a file; the name of a recipe that comes with the package; `owner/name`
            or the address of a repository on the hub, perhaps with `@revision` behind it, whose
            `recipe.yaml`, `mergekit_config.yml` or card has the recipe. What exists as a file is
            that file.

    Raises:
        ChatVecError: There is none of that name, or it cannot be had.
    """
    name = os.fspath(named)
    place = place_on_hub(name)
    if place is not None:
        return _text_on_hub(place), str(place)
    if not Path(name).exists() and name in recipe_names():
        return read_text(recipe_file(name)), name
    return read_text(Path(name)), name


def place_on_hub(name: str) -> Place | None:
    """Return where on the hub a name leads; None if it is a file's here."""
    if name.startswith(("http://", "https://")):
        return _of_address(name)
    if Path(name).exists() or name.endswith(ENDINGS):
        return None
    repository, _, revision = name.partition("@")
    if REPOSITORY.fullmatch(repository) is None or repository.startswith("."):
        return None
    return Place(repository, revision or None, None)


def _of_address(address: str) -> Place:
    """Return what an address means: `.../owner/name`, with `/tree/REV` or `/blob/REV/FILE`."""
    from huggingface_hub import constants

    address, _, pin = address.partition("@")
    parts = urlsplit(address)
    hosts = (*HOSTS, urlsplit(constants.ENDPOINT).hostname)
    owner, name, kind, revision, *file = [*map(unquote, parts.path.strip("/").split("/"))] + [
        ""
    ] * 4
    file = [part for part in file if part]
    if parts.hostname not in hosts or REPOSITORY.fullmatch(f"{owner}/{name}") is None:
        raise ChatVecError(
            f"{address} is no model's page on the hub.",
            f"Write https://{HOSTS[0]}/owner/name, or owner/name.",
            code="no-such-recipe",
        )
    if kind not in ("tree", "blob", "resolve", "raw"):
        revision, file = "", []
    named = "/".join(file) if kind != "tree" else ""
    return Place(f"{owner}/{name}", pin or revision or None, named or None)


def _text_on_hub(place: Place) -> str:
    from huggingface_hub import HfApi

    from chatvec_method.facts.on_hub import HUB_SECONDS
    from chatvec_method.hub.asking import answers_as_errors

    with answers_as_errors(str(place), OTHER):
        info = HfApi().model_info(
            place.repository, revision=place.revision, files_metadata=True, timeout=HUB_SECONDS
        )
        if info.gated:
            HfApi().auth_check(place.repository)
        for file in (place.file,) if place.file else RECIPE_FILES:
            text = _file_text(info, file)
            if text is not None:
                return text
        card = None if place.file else _file_text(info, CARD)
    for block in _recipes_in(card or ""):
        return block
    what = place.file or f"{', '.join(RECIPE_FILES)} nor a recipe in its card"
    raise ChatVecError(
        f"{place} has no {what}." if place.file else f"{place} has neither {what}.",
        OTHER,
        code="no-such-recipe",
    )


def _file_text(info: ModelInfo, file: str) -> str | None:
    """Return a repository's file; None if it has none of that name."""
    listed = next((each for each in info.siblings or () if each.rfilename == file), None)
    if listed is None:
        return None
    if (listed.size or 0) > MOST_BYTES:
        raise ChatVecError(
            f"{file} of {info.id} has {listed.size} bytes, and a recipe has {MOST_BYTES} at most.",
            OTHER,
            code="no-such-recipe",
        )
    from huggingface_hub import hf_hub_download

    return read_text(Path(hf_hub_download(info.id, file, revision=info.sha)))


def _recipes_in(card: str) -> Iterator[str]:
    """Yield the recipes that stand in a card, as mergekit and chatvec write it there."""
    for block in _yaml_blocks(card):
        try:
            says = parse_yaml(block, CARD)
        except ChatVecError:
            continue
        if "merge_method" in says:
            yield block


def _yaml_blocks(card: str) -> Iterator[str]:
    """Yield the texts between fences that begin with ```yaml."""
    lines: list[str] = []
    begun = kind = ""
    for line in card.splitlines():
        fence = FENCE.fullmatch(line.rstrip())
        if fence is not None and not begun:
            begun, kind, lines = fence[1], fence[2].strip().lower(), []
        elif fence is not None and fence[1] == begun and not fence[2]:
            if kind in ("yaml", "yml"):
                yield "\n".join([*lines, ""])
            begun = ""
        elif begun:
            lines.append(line)
