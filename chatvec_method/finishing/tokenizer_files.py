"""The output's tokenizer, with the special tokens and the template of its chat format.

Its files are those of the model that the tokenizer comes from, as they stand there and not as
transformers would write them today, with what the merge has changed. Only where a merge has
numbered tokens anew (a union, tokens without a row left out) are they those that mergekit wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer
from transformers.utils import CHAT_TEMPLATE_DIR, CHAT_TEMPLATE_FILE, CONFIG_NAME

from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.facts.chat_format import ChatFormat, speaking_chat
from chatvec_method.facts.small_files import SmallFiles
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.finishing.donors import (
    config_donor,
    in_chance_order,
    template_of_processor,
    tokenizer_donor,
    with_own_code,
)
from chatvec_method.finishing.files import Content, as_content, content_of, json_text
from chatvec_method.finishing.spellings import with_old_tokens

TOKENIZER_FILE, TOKENIZER_CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
"""Where transformers before version 5 kept the special tokens once more."""
ADDED_TOKENS_FILE = "added_tokens.json"
"""Where early versions kept the ids of tokens that had been added."""
MISTRAL_FILE = "tekken.json"
"""Mistral's own; nothing else reads it, and it cannot have tokens added."""
OWN_FILE = re.compile(
    r"tokenizer(_config)?(\.[\d.]+)?\.json|(special_tokens_map|added_tokens|normalizer|tekken)\.json"
    r"|tokenizer\.model.*|vocab\.\w+|merges\.txt|.*\.(model|tiktoken)"
)
"""The names of files that a tokenizer is made of."""
SETTINGS_FILES = (TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE)
LOADED_FROM = ("is_local", "local_files_only")
"""What transformers notes in a tokenizer's config of where it was loaded, and never reads."""
ADDS_BOS, ADDS_EOS = "add_bos_token", "add_eos_token"
BUILDS_ITS_ENDS = re.compile(r"(Code)?Llama|Gemma|Cohere")
"""The tokenizer classes that in transformers 4 decide by themselves whether a text gets bos and
eos, by two settings that transformers 5 does not write."""


def has_tokenizer(out: Path) -> bool:
    """Tell whether a folder has any file of a tokenizer."""
    names = (TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, "tokenizer.model", "vocab.json")
    return any((out / name).is_file() for name in names)


def tokenizer_files(out: Path, survey: ReadySurvey, chat: ChatFormat) -> dict[str, Content]:
    """Return the files of the output's tokenizer, None for those that it must not have."""
    donor = tokenizer_donor(survey)
    ids = _ids_in_files(donor)
    numbered_anew = survey.vocabulary is not None and (
        in_chance_order(survey)
        or any(survey.tokens.get(token) != number for token, number in ids.items())
    )
    files = _as_built(out, survey, donor) if numbered_anew else _as_donated(donor)
    changed = _made_ready(files, survey, chat, donor)
    stale: dict[str, Content] = {
        file.name: None for file in out.iterdir() if OWN_FILE.fullmatch(file.name)
    }
    return stale | files | changed | _templates(out, survey, chat)


def _ids_in_files(donor: SmallFiles) -> dict[str, int]:
    """Return the tokens that a tokenizer.json has; none where there is no such file."""
    content = donor.json(TOKENIZER_FILE)
    return _ids(content) if content else {}


def _ids(content: Mapping[str, Any]) -> dict[str, int]:
    vocabulary = content.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, list):  # a unigram model's, with a score for each
        vocabulary = {entry[0]: number for number, entry in enumerate(vocabulary)}
    return {**vocabulary, **{t["content"]: t["id"] for t in content.get("added_tokens", ())}}


def _as_donated(donor: SmallFiles) -> dict[str, Content]:
    """Return the donor's files."""
    files: dict[str, Content] = {}
    for name in sorted(donor.names):
        if OWN_FILE.fullmatch(name) and (content := donor.bytes(name)) is not None:
            files[name] = as_content(content)
    if not files:
        raise ChatVecError(
            f"model {donor.path} has no tokenizer files, so the output cannot have any.",
            "Download that model again, with its tokenizer files.",
        )
    return files


def _as_built(out: Path, survey: ReadySurvey, donor: SmallFiles) -> dict[str, Content]:
    """Return the tokenizer that the merge has built, with the donor's settings."""
    assert survey.vocabulary is not None
    if has_tokenizer(out):
        built = {name: content_of(out / name) for name in SETTINGS_FILES}
    else:
        with TemporaryDirectory() as scratch:
            try:
                survey.vocabulary.tokenizer.save_pretrained(scratch)
            except Exception as error:  # each kind of tokenizer fails in its own way
                raise ChatVecError(
                    f"the output's tokenizer cannot be written ({first_line(error)}).",
                    "Write `tokenizer: {source: ...}` with another model, and merge again.",
                ) from error
            built = {name: content_of(Path(scratch) / name) for name in SETTINGS_FILES}
    settings = donor.text(TOKENIZER_CONFIG_FILE)
    if settings is not None and built[TOKENIZER_FILE] is not None:
        built[TOKENIZER_CONFIG_FILE] = settings
        built[SPECIAL_TOKENS_FILE] = donor.text(SPECIAL_TOKENS_FILE)
    return {name: content for name, content in built.items() if content is not None}


# --- What a chat format changes ----------------------------------------------------------------


def _made_ready(
    files: Mapping[str, Content], survey: ReadySurvey, chat: ChatFormat, donor: SmallFiles
) -> dict[str, Content]:
    """Return the files of a tokenizer that change where it is to know a chat format."""
    wanted = (*chat.markers, *chat.special.values())
    special = {token: survey.tokens[token] for token in wanted if token in survey.tokens}
    texts = {n: text for n in SETTINGS_FILES if isinstance(text := files.get(n), str)}
    texts.setdefault(TOKENIZER_CONFIG_FILE, "{}\n")
    if TOKENIZER_FILE not in texts:
        texts |= _converted(files, special, survey)
    contents = {name: json.loads(text) for name, text in texts.items()}
    tokenizer = contents.get(TOKENIZER_FILE)
    shown = _shown_in_answers(contents, special, survey)
    new = {name: dict(content) for name, content in contents.items()}
    ready: dict[str, Content] = {}
    if tokenizer is not None:
        missing = _missing_tokens(_ids(tokenizer), survey)
        new[TOKENIZER_FILE] = _with_special_tokens(_with_added(tokenizer, missing), special, shown)
        if missing and MISTRAL_FILE in files:
            ready[MISTRAL_FILE] = None
        if missing and isinstance(text := files.get(ADDED_TOKENS_FILE), str):
            held = json.loads(text)
            added = {token: entry["id"] for token, entry in missing.items()}
            ready[ADDED_TOKENS_FILE] = json_text(text, held, held | added)
    settings = with_own_code(new[TOKENIZER_CONFIG_FILE], donor, survey.options.trust_remote_code)
    settings = _with_entries(settings, new.get(TOKENIZER_FILE), survey)
    settings = _with_special_tokens(settings, special, shown)
    new[TOKENIZER_CONFIG_FILE] = _with_chat_format(settings, new.get(TOKENIZER_FILE), chat)
    if SPECIAL_TOKENS_FILE in new:
        new[SPECIAL_TOKENS_FILE] = _with_roles(new[SPECIAL_TOKENS_FILE], chat.special)
    return ready | {n: json_text(texts[n], contents[n], new[n]) for n in texts}


def _with_entries(
    settings: dict[str, Any], tokenizer: Mapping[str, Any] | None, survey: ReadySurvey
) -> dict[str, Any]:
    """Return a tokenizer_config.json with the added tokens of tokenizer.json, if it lists any.

    Its own entries stay if their tokens have the same ids in the output.
    """
    held = settings.get("added_tokens_decoder")
    if held is None or tokenizer is None:
        return settings
    own = {
        number: entry
        for number, entry in held.items()
        if survey.vocabulary is None or survey.tokens.get(entry["content"]) == int(number)
    }
    listed = {
        str(entry["id"]): {key: value for key, value in entry.items() if key != "id"}
        for entry in tokenizer.get("added_tokens", ())
    }
    in_order = sorted((listed | own).items(), key=lambda item: int(item[0]))
    return {**settings, "added_tokens_decoder": dict(in_order)}


def _with_chat_format(
    settings: dict[str, Any], tokenizer: Mapping[str, Any] | None, chat: ChatFormat
) -> dict[str, Any]:
    """Return a tokenizer_config.json with a chat format, in the words of transformers 4 and 5."""
    new = with_old_tokens(_with_roles(settings, chat.special))
    if tokenizer is not None and BUILDS_ITS_ENDS.match(str(new.get("tokenizer_class"))):
        new = _with_ends(new, tokenizer)
    if chat.template is not None:
        new["chat_template"] = chat.template.text
    return {key: value for key, value in new.items() if key not in LOADED_FROM}


def _templates(out: Path, survey: ReadySurvey, chat: ChatFormat) -> dict[str, Content]:
    if chat.template is None:
        return {}
    files: dict[str, Content] = {CHAT_TEMPLATE_FILE: chat.template.text}
    for other in (out / CHAT_TEMPLATE_DIR).glob("*.jinja"):
        files[f"{CHAT_TEMPLATE_DIR}/{other.name}"] = None
    return files | template_of_processor(survey, chat.template.text)


def _converted(
    files: Mapping[str, Content], special: Mapping[str, int], survey: ReadySurvey
) -> dict[str, str]:
    """Return `tokenizer.json`, made of older files where these cannot have all that is needed."""
    with TemporaryDirectory() as scratch:
        config = config_donor(survey).small_files.bytes(CONFIG_NAME) or b"{}"
        (Path(scratch) / CONFIG_NAME).write_bytes(config)
        for name, content in files.items():
            data = content.encode("utf-8") if isinstance(content, str) else content or b""
            (Path(scratch) / name).write_bytes(data)
        try:
            tokenizer = AutoTokenizer.from_pretrained(scratch)
        except Exception:  # one that needs code of its own stays as it is
            return {}
    if not tokenizer.is_fast or not special.keys() - tokenizer.get_added_vocab().keys():
        return {}
    return {TOKENIZER_FILE: tokenizer.backend_tokenizer.to_str(pretty=True)}


def _missing_tokens(ids: Mapping[str, int], survey: ReadySurvey) -> dict[str, dict[str, Any]]:
    """Return the entries of tokens that the output has and a tokenizer.json lacks.

    They are those of `tokenizer: tokens:`, and those that transformers adds for the class.
    """
    if survey.vocabulary is None:
        return {}
    known = survey.vocabulary.tokenizer.added_tokens_decoder
    entries = {}
    for token, number in sorted(survey.tokens.items(), key=lambda item: item[1]):
        if token not in ids:
            added: Any = known.get(number) or AddedToken(token)
            entries[token] = {"id": number, **added.__getstate__()}
    return entries


def _with_added(
    tokenizer: Mapping[str, Any], entries: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    in_order = sorted([*tokenizer.get("added_tokens", ()), *entries.values()], key=_id)
    return {**tokenizer, "added_tokens": in_order} if entries else dict(tokenizer)


def _id(entry: Mapping[str, Any]) -> int:
    number: int = entry["id"]
    return number


def _with_ends(settings: dict[str, Any], tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that say whether a text gets bos and eos, as the tokenizer itself does it."""
    if ADDS_BOS in settings and ADDS_EOS in settings:
        return settings
    tokens = Tokenizer.from_str(json.dumps(tokenizer)).encode("a").tokens
    bos, eos = (_content(settings.get(role)) for role in ("bos_token", "eos_token"))
    return {ADDS_BOS: tokens[:1] == [bos], ADDS_EOS: tokens[-1:] == [eos], **settings}


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _shown_in_answers(
    contents: Mapping[str, Any], special: Mapping[str, int], survey: ReadySurvey
) -> frozenset[str]:
    """Return the special tokens that the chat model means to be read, like Qwen3's `<think>`.

    What mergekit adds for `tokenizer: tokens:` is shown by mistake, so the chat model is asked.
    """
    entries = [entry for content in contents.values() for entry in _added_tokens(content)]
    if all(entry["special"] for entry in entries if entry["content"] in special) and (
        special.keys() <= {entry["content"] for entry in entries}
    ):
        return frozenset()
    chat = speaking_chat(survey.plan.roles, survey.models)
    if chat.tokenizer is None:
        return frozenset()
    path = chat.reference.model
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
            added: Any = AddedToken(token, special=token not in shown, normalized=False)
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
        if _content(content.get(role)) != token:
            new[role] = token
    return new
