"""The output's tokenizer, with the special tokens and the template of its chat format."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import snapshot_download
from mergekit.common import ModelPath, ModelReference
from mergekit.merge import _copy_tokenizer
from tokenizers import AddedToken
from transformers import AutoTokenizer
from transformers.utils import (
    CHAT_TEMPLATE_DIR,
    CHAT_TEMPLATE_FILE,
)

from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.facts.chat_format import (
    ChatFormat,
    speaking_chat,
)
from chatvec_method.facts.survey import Survey
from chatvec_method.finishing.files import Content, content_of, json_text, text_of

TOKENIZER_FILE, TOKENIZER_CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"


SPECIAL_TOKENS_FILE = "special_tokens_map.json"
"""Where transformers before version 5 kept the special tokens once more."""


LOADED_FROM = ("is_local", "local_files_only")
"""What transformers notes in a tokenizer's config of where it was loaded, and never reads."""


SMALL_FILES = ["*.json", "tokenizer.model"]
"""What mergekit downloads of a model besides its weights."""


def has_tokenizer(out: Path) -> bool:
    """Tell whether a folder has any file of a tokenizer."""
    names = (TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, "tokenizer.model", "vocab.json")
    return any((out / name).is_file() for name in names)


def tokenizer_files(out: Path, survey: Survey, chat: ChatFormat) -> dict[str, Content]:
    """Return the tokenizer's files, as far as they have to change."""
    if has_tokenizer(out):
        return _made_ready(out, survey, chat)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write_tokenizer(folder, survey)
        files = {file.name: content_of(file) for file in folder.iterdir() if file.is_file()}
        return files | _made_ready(folder, survey, chat)


def _write_tokenizer(folder: Path, survey: Survey) -> None:
    """Write the tokenizer that a merge would have written."""
    config = survey.recipe.config
    try:
        if survey.vocabulary is not None:
            survey.vocabulary.tokenizer.save_pretrained(folder)
        else:  # by mergekit, whose business it is which of the model's files are copied
            donor = ModelReference(model=ModelPath(path=str(_small_files(survey))))
            local = config.model_copy(update={"base_model": donor})
            _copy_tokenizer(local, str(folder), survey.options)
    except Exception as error:  # each kind of tokenizer fails in its own way
        raise ChatVecError(
            f"the output has no tokenizer, and that of {config.base_model} cannot be copied "
            f"({first_line(error)}).",
            "Download that model again, with its tokenizer files.",
        ) from error


def _small_files(survey: Survey) -> Path:
    """Return a folder with base_model's files, without weights if they had to be downloaded."""
    reference = survey.recipe.config.base_model
    folder, path = survey.models[reference].folder, reference.model
    if folder is not None:
        return folder
    downloaded = snapshot_download(path.path, revision=path.revision, allow_patterns=SMALL_FILES)
    return Path(downloaded)


def _made_ready(folder: Path, survey: Survey, chat: ChatFormat) -> dict[str, Content]:
    """Return the files of a tokenizer that change where it is to know a chat format."""
    files: dict[str, Content] = {}
    if chat.template is not None:
        files[CHAT_TEMPLATE_FILE] = chat.template.text
        for other in (folder / CHAT_TEMPLATE_DIR).glob("*.jinja"):
            files[f"{CHAT_TEMPLATE_DIR}/{other.name}"] = None

    tokens = survey.tokens or {}
    wanted = (*chat.markers, *chat.special.values())
    special = {token: tokens[token] for token in wanted if token in tokens}
    texts = {
        TOKENIZER_FILE: _tokenizer_json(folder, special),
        TOKENIZER_CONFIG_FILE: text_of(folder / TOKENIZER_CONFIG_FILE),
        SPECIAL_TOKENS_FILE: text_of(folder / SPECIAL_TOKENS_FILE),
    }
    contents = {name: json.loads(text) for name, text in texts.items() if text is not None}
    shown = _shown_in_answers(contents, special, survey)
    obsolete = {*LOADED_FROM, *(["chat_template"] if chat.template else [])}
    for name, content in contents.items():
        new = _with_special_tokens(content, special, shown)
        if name != TOKENIZER_FILE:
            new = _with_roles(new, chat.special)
        new = {key: value for key, value in new.items() if key not in obsolete}
        files[name] = json_text(texts[name] or "", content, new)
    return files


def _tokenizer_json(folder: Path, special: Mapping[str, int]) -> str | None:
    """Return `tokenizer.json`, converted from what there is in its place if that is not enough."""
    text = text_of(folder / TOKENIZER_FILE)
    if text is None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if tokenizer.is_fast and special.keys() - tokenizer.get_added_vocab().keys():
            text = tokenizer.backend_tokenizer.to_str(pretty=True)
    return text


def _shown_in_answers(
    contents: Mapping[str, Any], special: Mapping[str, int], survey: Survey
) -> frozenset[str]:
    """Return the special tokens that the chat model means to be read, like Qwen3's `<think>`.

    What mergekit adds for `tokenizer: tokens:` is shown by mistake, so the chat model is asked.
    """
    entries = [entry for content in contents.values() for entry in _added_tokens(content)]
    shown = {entry["content"] for entry in entries if not entry["special"]} & special.keys()
    if not shown or survey.plan is None:
        return frozenset()
    path = speaking_chat(survey.plan.roles, survey.models).reference.model
    tokenizer = AutoTokenizer.from_pretrained(
        path.path, revision=path.revision, trust_remote_code=survey.options.trust_remote_code
    )
    known = tokenizer.added_tokens_decoder.values()
    return frozenset(token.content for token in known if not token.special)


def _added_tokens(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tokens that are never cut into pieces, of tokenizer.json or the config."""
    return [*content.get("added_tokens", ()), *content.get("added_tokens_decoder", {}).values()]


def _with_special_tokens(
    content: Mapping[str, Any], special: Mapping[str, int], shown: Collection[str]
) -> dict[str, Any]:
    """Return tokenizer.json or the config with tokens that are never cut, nor shown in answers."""
    new = dict(content)
    by_id = {entry["id"]: entry for entry in content.get("added_tokens", ())}
    decoder = content.get("added_tokens_decoder", {})
    by_id |= {int(number): entry for number, entry in decoder.items()}
    for token, number in special.items():
        entry = by_id.get(number)
        if entry is None:
            added: Any = AddedToken(token, special=True, normalized=False)
            own = {"id": number} if "added_tokens" in content else {}
            by_id[number] = {**own, **added.__getstate__()}
        elif token not in shown and not entry["special"]:
            by_id[number] = {**entry, "normalized": False, "special": True}
    in_order = sorted(by_id.items())
    if "added_tokens" in content:
        new["added_tokens"] = [entry for _, entry in in_order]
    if "added_tokens_decoder" in content:
        new["added_tokens_decoder"] = {str(number): entry for number, entry in in_order}
    return new


def _with_roles(content: Mapping[str, Any], roles: Mapping[str, str]) -> dict[str, Any]:
    """Return a tokenizer's config with its bos, eos and pad set."""
    new = dict(content)
    for role, token in roles.items():
        held = content.get(role)
        if (held.get("content") if isinstance(held, dict) else held) != token:
            new[role] = token
    return new
