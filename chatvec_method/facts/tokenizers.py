"""What is known of a model's tokenizer.

A tokenizer of 128k tokens takes some 200 MB while it is loaded, so only what is asked of it is
kept.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.facts.small_files import SmallFiles
from chatvec_method.tokenizer_bounds import check_bounds

CHAT_TEMPLATE_JSON = "chat_template.json"
"""Where processors once kept the chat template, and still look for it first."""

WHOLE_VOCABULARY_FILE = re.compile(
    r"tokenizer(\.[\d.]+)?\.json|tekken\.json|tokenizer\.model|tiktoken\.model"
)
"""The names of files that hold all tokens, and that transformers reads whatever the class."""
VOCABULARY_FILE = re.compile(rf"{WHOLE_VOCABULARY_FILE.pattern}|vocab\b.*|.*\.(model|tiktoken)")
"""The names of files in which tokens are."""
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
TOKENIZER_FILE = re.compile(
    rf"{VOCABULARY_FILE.pattern}|tokenizer.*|merges\.txt|(added_tokens|special_tokens_map)\.json"
)
"""The names of files that make a folder one with a tokenizer."""


@dataclass(frozen=True)
class TokenizerFacts:
    """What a merge needs to know of a tokenizer."""

    ids: Mapping[str, int] = field(repr=False)
    """Every token's id, added tokens included."""
    added: frozenset[str] = field(repr=False)
    """Tokens that are found in a text before anything else is, and never cut into pieces."""
    special: Mapping[str, str]
    """The tokens with a part to play: bos_token, eos_token, pad_token, ..."""
    chat_template: str | None
    assumed: frozenset[str] = frozenset()
    """Tokens of no file: transformers adds them, as the class of the architecture has them.

    They have ids after all others, as for `<|endoftext|>` of a Qwen model whose tokenizer is
    DeepSeek's, and are no added or special tokens here.
    """

    @property
    def tokens(self) -> dict[int, str]:
        """Every id's token."""
        return {i: token for token, i in self.ids.items()}


def look_up_tokenizer(
    files: SmallFiles, trust_remote_code: bool
) -> tuple[TokenizerFacts | None, str]:
    """Return what is known of a tokenizer, or why there is none.

    Where its files are missing, transformers 5 does not fail: it builds an empty tokenizer of the
    class that goes with the architecture.

    Args:
        files: The model's.
        trust_remote_code: Whether the tokenizer may run code of its own.
    """
    if not any(TOKENIZER_FILE.fullmatch(name) for name in files.names):
        return None, "it has no tokenizer files"
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            files.path.path, revision=files.path.revision, trust_remote_code=trust_remote_code
        )
        check_bounds(tokenizer)
    except ChatVecError as error:
        return None, error.problem.removesuffix(".")
    except Exception as error:  # each kind of tokenizer fails in its own way
        if not any(VOCABULARY_FILE.fullmatch(name) for name in files.names):
            return None, _without("tokenizer.json")
        return None, first_line(error)
    if missing := missing_vocabulary(tokenizer, files.names):
        return None, missing
    return tokenizer_facts(tokenizer, files), ""


def missing_vocabulary(tokenizer: PreTrainedTokenizerBase, files: Collection[str]) -> str:
    """Return why a loaded tokenizer cannot have its tokens from a model's files; empty if it can.

    Args:
        tokenizer: As transformers loaded it; its class tells which files it reads.
        files: The names of the model's files.
    """
    read_by_class = tokenizer.vocab_files_names
    if not read_by_class:  # a tokenizer of bytes or characters
        return ""
    if any(WHOLE_VOCABULARY_FILE.fullmatch(name) for name in files):
        return ""
    needed = [read_by_class[key] for key in ("vocab_file", "merges_file") if key in read_by_class]
    missing = [name for name in needed if name not in files]
    if needed and not missing:
        return ""
    if len(missing) == len(needed):
        return _without("tokenizer.json", *missing)
    return f"it has a {needed[0]}, but no {missing[0]}"


def _without(*names: str) -> str:
    return f"it has none of the files with a tokenizer's tokens ({', '.join(dict.fromkeys(names))})"


def tokenizer_facts(tokenizer: PreTrainedTokenizerBase, files: SmallFiles) -> TokenizerFacts:
    """Return what a merge needs to know of a loaded tokenizer.

    Args:
        tokenizer: As transformers loaded it.
        files: Those that it was loaded from.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict):  # several, by name
        template = template.get("default")
    if template is None:  # a processor may have it, in the file in which it was once kept
        template = (files.json(CHAT_TEMPLATE_JSON) or {}).get("chat_template")
    special = {k: v for k, v in tokenizer.special_tokens_map.items() if isinstance(v, str)}
    ids = tokenizer.get_vocab()
    assumed = _assumed(ids, special, files)
    return TokenizerFacts(
        ids=ids,
        added=frozenset(tokenizer.get_added_vocab()) - assumed,
        special={role: token for role, token in special.items() if token not in assumed},
        chat_template=template if isinstance(template, str) else None,
        assumed=assumed,
    )


def _assumed(
    ids: Mapping[str, int], special: Mapping[str, str], files: SmallFiles
) -> frozenset[str]:
    """Return the tokens that no file has: special ones, and numbered last."""
    first = len(ids) - len(special)
    last = {token for token in special.values() if ids.get(token, -1) >= first}
    content = files.json("tokenizer.json") if last else None
    if content is None:
        return frozenset()
    vocabulary = content.get("model", {}).get("vocab", {})
    words = vocabulary if isinstance(vocabulary, dict) else {entry[0] for entry in vocabulary}
    stated = {*_stated(files.json(TOKENIZER_CONFIG_FILE)), *_stated(content.get("added_tokens"))}
    return frozenset(token for token in last - stated if token not in words)


def _stated(settings: Any) -> Iterator[str]:
    """Yield the texts in a tokenizer's settings, tokens among them."""
    if isinstance(settings, str):
        yield settings
    elif isinstance(settings, dict):
        for value in settings.values():
            yield from _stated(value)
    elif isinstance(settings, list):
        for value in settings:
            yield from _stated(value)
