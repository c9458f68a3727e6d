"""A merge's output made ready to chat: template, special tokens, stop tokens, config and card.

What mergekit writes has the config and the tokenizer of `base_model`, which seldom know how the
chat model chats. Here the output gets what the survey says. What is written is a function of the
recipe, its models and the headers of the output's weights, so that it does not matter whether
`chatvec merge` or stock `mergekit-yaml` made them, nor how often this runs. No weights are read.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

from huggingface_hub import snapshot_download
from mergekit.common import ModelPath, ModelReference, get_config_value
from mergekit.merge import _copy_tokenizer
from tokenizers import AddedToken
from transformers import AutoTokenizer, GenerationConfig
from transformers.utils import (
    CHAT_TEMPLATE_DIR,
    CHAT_TEMPLATE_FILE,
    CONFIG_NAME,
    GENERATION_CONFIG_NAME,
)

from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.facts.chat_format import (
    ChatFormat,
    chat_format,
    same_special_token,
    sampling_defaults,
    speaking_chat,
)
from chatvec_method.facts.models import Model, look_up
from chatvec_method.facts.plan import MergePlan
from chatvec_method.facts.survey import Survey, expected_header
from chatvec_method.finishing.card import date_of, model_card
from chatvec_method.method.refusals import dtype_name, tokenizer_source
from chatvec_method.pictures.ratios import ratio_picture
from chatvec_method.recipe.file import METADATA, Recipe, read_recipe

RECIPE_FILE = "mergekit_config.yml"
"""In which mergekit keeps the recipe."""
CARD_FILE, PICTURE_FILE = "README.md", "ratio.png"
TOKENIZER_FILE, TOKENIZER_CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
"""Where transformers before version 5 kept the special tokens once more."""

LOADED_FROM = ("is_local", "local_files_only")
"""What transformers notes in a tokenizer's config of where it was loaded, and never reads."""
SMALL_FILES = ["*.json", "tokenizer.model"]
"""What mergekit downloads of a model besides its weights."""
MODEL_KEYS = ("model", "base_model", "source", "tokenizer_source")
"""The keys of a recipe under which the name of a model stands."""

FREE_KEYS = ("chat_template", METADATA)
"""The keys of a recipe that may have changed since the merge: no weight depends on them."""

Content: TypeAlias = "str | bytes | None"
"""Of a file: text, or bytes where it is none; None where there is no file."""


@dataclass(frozen=True)
class FileChange:
    """What became of a file of the output."""

    name: str
    before: Content
    after: Content


def recipe_of(out: Path) -> Recipe:
    """Return the recipe that a merge's output was made from.

    Raises:
        ChatVecError: The folder does not exist, or does not say.
    """
    if not out.is_dir():
        raise ChatVecError(f"there is no folder {out}.", "Write the folder of a merge's output.")
    file = out / RECIPE_FILE
    if not file.is_file():
        raise ChatVecError(
            f"{out} does not say which recipe it was made from: it has no {RECIPE_FILE}.",
            "Pass it with `--recipe RECIPE` (stock mergekit leaves that file out with "
            "`--no-write-model-card`).",
        )
    return read_recipe(file)


def finish(
    out: Path,
    survey: Survey,
    *,
    name: str | None = None,
    card: bool = True,
    dry_run: bool = False,
) -> tuple[FileChange, ...]:
    """Make a merge's output ready to chat, in place.

    Each file is replaced in one step. A second run finds nothing to change.

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
    plan, chat = survey.plan, survey.format
    if survey.problems:
        raise survey.problems[0]
    if plan is None or chat is None or survey.tokens is None:
        donor = survey.models[survey.recipe.config.base_model]
        raise ChatVecError(
            f"model {donor} has no tokenizer that loads ({donor.tokenizer_problem}), so the output "
            "cannot have one.",
            "Download it again, with its tokenizer files, or write `tokenizer: {source: ...}` with "
            "another model and merge again.",
        )
    output = _look_at(out, survey, plan)
    tokens = _usable_tokens(output, plan, survey.tokens)
    if tokens != survey.tokens:
        chat = chat_format(survey.recipe.config, plan.roles, survey.models, tokens)
        survey = replace(survey, tokens=tokens, format=chat)

    files: dict[str, Content] = {RECIPE_FILE: survey.recipe.text}
    files |= _tokenizer_files(out, survey, chat)
    files[GENERATION_CONFIG_NAME] = _generation_config(survey, plan, chat)
    files[CONFIG_NAME] = _config(out, output, survey, plan, chat)
    if card:
        files |= _card_files(out, survey, plan, name or out.resolve().name)

    changes = tuple(
        FileChange(file, before, after)
        for file, after in sorted(files.items())
        if (before := _content(out / file)) != after
    )
    if not dry_run:
        for change in changes:
            _write(out / change.name, change.after)
    return changes


# --- Is this that recipe's output? -----------------------------------------------------------


def _look_at(out: Path, survey: Survey, plan: MergePlan) -> Model:
    """Return what is known of the output, after making sure that it is the recipe's."""
    if not (out / CONFIG_NAME).is_file():
        what = f"it has no {CONFIG_NAME}" if out.is_dir() else "there is no such folder"
        raise ChatVecError(
            f"{out} is not the output of a merge that came to its end: {what}.",
            "Merge again, or write the folder of another merge.",
        )
    _check_same_recipe(out, survey.recipe)
    reference = ModelReference(model=ModelPath(path=str(out)))
    output = look_up(reference, survey.options.trust_remote_code)
    _check_tensors(out, output, survey, plan)
    if _has_tokenizer(out):
        _check_tokenizer(out, output, survey)
    elif _in_chance_order(survey):
        raise ChatVecError(
            f"{out} has no tokenizer, and with `source: union` only that of the merge itself tells "
            "which row is which token's: mergekit numbers them anew each time.",
            "Merge again.",
        )
    return output


def _check_same_recipe(out: Path, recipe: Recipe) -> None:
    file = out / RECIPE_FILE
    if not file.is_file():
        return
    made_from, given = (
        _settings({k: v for k, v in each.raw.items() if k not in FREE_KEYS}, {})
        for each in (read_recipe(file), recipe)
    )
    if made_from != given:
        raise ChatVecError(
            f"{out} was not made from {recipe.name}: the recipe in its {RECIPE_FILE} is another.",
            "Leave `--recipe` out, or merge again.",
        )


def _settings(value: Any, numbers: dict[str, int], key: str = "") -> Any:
    """Return what a recipe says, with models numbered in order: their folders may have moved."""
    if isinstance(value, dict):
        return {name: _settings(part, numbers, name) for name, part in value.items()}
    if isinstance(value, list):
        return [_settings(part, numbers, key) for part in value]
    return numbers.setdefault(value, len(numbers)) if key in MODEL_KEYS else value


def _check_tensors(out: Path, output: Model, survey: Survey, plan: MergePlan) -> None:
    fix = "Merge again, or pass the recipe that it was made from with `--recipe RECIPE`."
    if output.tensors is None or output.file_problem:
        raise ChatVecError(f"{out} is not whole: {output.file_problem}.", "Merge again.")
    planned = {tensor.name: tensor for tensor in plan.tensors}
    if missing := sorted(planned.keys() - output.tensors.keys()):
        raise ChatVecError(f"{out} lacks {missing[0]}, which the recipe makes.", fix)
    if extra := sorted(output.tensors.keys() - planned.keys()):
        raise ChatVecError(f"{out} has {extra[0]}, which the recipe does not make.", fix)
    for name, tensor in planned.items():
        shape, expected = output.tensors[name].shape, expected_header(survey, tensor)
        if expected and shape != expected.shape:
            raise ChatVecError(
                f"{out}: {name} is {list(shape)}, and the recipe makes it {list(expected.shape)}.",
                fix,
            )


def _has_tokenizer(out: Path) -> bool:
    names = (TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, "tokenizer.model", "vocab.json")
    return any((out / name).is_file() for name in names)


def _check_tokenizer(out: Path, output: Model, survey: Survey) -> None:
    if output.tokenizer is None:
        raise ChatVecError(
            f"{out}: its tokenizer does not load ({output.tokenizer_problem}).",
            "Remove its tokenizer files and run this again, which writes them anew.",
        )
    own, expected = output.tokenizer.ids, survey.tokens or {}
    for token in sorted(own.keys() | expected.keys()):
        if token in own and token in expected and _in_chance_order(survey):
            continue
        if own.get(token) != expected.get(token):
            raise ChatVecError(
                f"{out} has another tokenizer than the recipe gives it: the id of {token!r} is "
                f"{own.get(token, 'missing')}, and should be {expected.get(token, 'missing')}.",
                "Remove its tokenizer files and run this again, which writes them anew.",
            )


def _in_chance_order(survey: Survey) -> bool:
    """Whether mergekit numbers the tokens in an order that is another in each process."""
    config = survey.recipe.config
    return tokenizer_source(config) == "union"


def _usable_tokens(output: Model, plan: MergePlan, planned: Mapping[str, int]) -> Mapping[str, int]:
    """Return the output's tokens, by its own tokenizer if it has one, that have a row."""
    tokens = output.tokenizer.ids if output.tokenizer else planned
    rows = _rows(output, plan)
    if rows is None or max(tokens.values(), default=0) < rows:
        return tokens
    return {token: number for token, number in tokens.items() if number < rows}


# --- The tokenizer ---------------------------------------------------------------------------


def _tokenizer_files(out: Path, survey: Survey, chat: ChatFormat) -> dict[str, Content]:
    """Return the tokenizer's files, as far as they have to change."""
    if _has_tokenizer(out):
        return _made_ready(out, survey, chat)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write_tokenizer(folder, survey)
        files = {file.name: _content(file) for file in folder.iterdir() if file.is_file()}
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
        TOKENIZER_CONFIG_FILE: _text(folder / TOKENIZER_CONFIG_FILE),
        SPECIAL_TOKENS_FILE: _text(folder / SPECIAL_TOKENS_FILE),
    }
    contents = {name: json.loads(text) for name, text in texts.items() if text is not None}
    shown = _shown_in_answers(contents, special, survey)
    obsolete = {*LOADED_FROM, *(["chat_template"] if chat.template else [])}
    for name, content in contents.items():
        new = _with_special_tokens(content, special, shown)
        if name != TOKENIZER_FILE:
            new = _with_roles(new, chat.special)
        new = {key: value for key, value in new.items() if key not in obsolete}
        files[name] = _json_text(texts[name] or "", content, new)
    return files


def _tokenizer_json(folder: Path, special: Mapping[str, int]) -> str | None:
    """Return `tokenizer.json`, converted from what there is in its place if that is not enough."""
    text = _text(folder / TOKENIZER_FILE)
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


# --- The configs -----------------------------------------------------------------------------


def _token_ids(survey: Survey, plan: MergePlan, chat: ChatFormat) -> dict[str, Any]:
    """Return the output's eos_token_id, if one is known, and bos_token_id and pad_token_id."""
    tokens = survey.tokens or {}
    stops = [stop.id for stop in chat.stops]
    ids: dict[str, Any] = {"eos_token_id": stops if len(stops) > 1 else stops[0]} if stops else {}
    for role in ("bos_token", "pad_token"):
        numbers = [tokens[chat.special[role]]] if role in chat.special else []
        for model in (speaking_chat(plan.roles, survey.models), survey.models[plan.roles.cp]):
            for source in (model.generation_config or {}, model.config.to_dict()):
                number = same_special_token(model, source.get(f"{role}_id"), tokens)
                numbers += [] if number is None else [number]
        ids[f"{role}_id"] = next(iter(numbers), None)
    return ids


def _generation_config(survey: Survey, plan: MergePlan, chat: ChatFormat) -> str:
    ids = _token_ids(survey, plan, chat)
    if ids["pad_token_id"] is None and chat.stops:
        eos = chat.special.get("eos_token")
        stops = {stop.token: stop.id for stop in chat.stops}
        ids["pad_token_id"] = stops.get(eos or "", chat.stops[0].id)
    try:
        config = GenerationConfig(
            **ids, **sampling_defaults(speaking_chat(plan.roles, survey.models))
        )
        config.validate(strict=True)
    except (ValueError, TypeError):  # the chat model's sampling is no use; its stop tokens are
        config = GenerationConfig(**ids)
    return config.to_json_string()


def _config(out: Path, output: Model, survey: Survey, plan: MergePlan, chat: ChatFormat) -> str:
    """Return `config.json` with what its weights and its tokenizer say."""
    text = _text(out / CONFIG_NAME) or ""
    config = json.loads(text)
    new = copy.deepcopy(config)
    vocabulary_key = plan.architecture.vocab_size_config_key or "vocab_size"
    *path, size_key = vocabulary_key.split(".")
    language_model = new  # or a part of it, in a model that also sees or hears
    for step in path:
        language_model = language_model.get(step, {})

    for key, number in _token_ids(survey, plan, chat).items():
        for part in (new, language_model):
            if part.get(key) is not None or (part is new and number is not None):
                part[key] = number
    rows = _rows(output, plan)
    if rows is not None and rows != get_config_value(output.config, vocabulary_key):
        language_model[size_key] = rows
    dtype = output.weights_dtype
    if dtype and dtype_name(dtype) != str(output.config.dtype).removeprefix("torch."):
        new["torch_dtype" if "torch_dtype" in config else "dtype"] = dtype_name(dtype)
    if _tied(output) and _head_counts(output, survey, plan):
        new["tie_word_embeddings"] = False
    return _json_text(text, config, new)


def _rows(output: Model, plan: MergePlan) -> int | None:
    for tensor in plan.tensors:
        if tensor.kind == "embeddings" and output.tensors is not None:
            axis = tensor.weight.vocabulary_axis or 0
            return output.tensors[tensor.name].shape[axis]
    return None


def _head_counts(output: Model, survey: Survey, plan: MergePlan) -> bool:
    """Whether the output has a head that is not its embeddings once more.

    mergekit writes one where any model has one, but takes the config from base_model, and where
    that is tied, nobody would read it.
    """
    head = next((t for t in plan.tensors if t.kind == "head"), None)
    embeddings = next((t for t in plan.tensors if t.kind == "embeddings"), None)
    if head is None or embeddings is None:
        return False
    all_tied = all(_tied(survey.models[model]) for model in plan.roles.all)
    return not all_tied or head.ratios != embeddings.ratios


def _tied(model: Model) -> bool:
    return bool(getattr(model.config, "tie_word_embeddings", False))


# --- The card and the files ------------------------------------------------------------------


def _card_files(out: Path, survey: Survey, plan: MergePlan, name: str) -> dict[str, Content]:
    card = model_card(survey, name, date.today().isoformat())
    held = _content(out / CARD_FILE)
    written = date_of(held) if isinstance(held, str) else None
    if written is not None and model_card(survey, name, written) == held:
        card = model_card(survey, name, written)  # nothing but the day has changed
    return {CARD_FILE: card, PICTURE_FILE: ratio_picture(plan)}


def _json_text(text: str, old: Mapping[str, Any], new: dict[str, Any]) -> str:
    """Return a JSON file's text with new content, written as the old is."""
    if new == old:
        return text
    if list(old) == sorted(old):
        new = dict(sorted(new.items()))
    return json.dumps(new, indent=2, ensure_ascii=False) + ("\n" if text.endswith("\n") else "")


def _text(file: Path) -> str | None:
    return file.read_bytes().decode("utf-8") if file.is_file() else None


def _content(file: Path) -> Content:
    try:
        return _text(file)
    except UnicodeDecodeError:
        return file.read_bytes()


def _write(file: Path, content: Content) -> None:
    """Replace a file in one step."""
    partial = file.with_name(f".{file.name}.chatvec-partial")
    try:
        if content is None:
            file.unlink()
            return
        with partial.open("wb") as stream:
            stream.write(content.encode("utf-8") if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ChatVecError(
            f"{file} cannot be written ({error.strerror or error}).",
            "See that the folder may be written to and that the disk has room.",
        ) from error
