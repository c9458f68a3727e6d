"""What is known of a model's tokenizer.

A tokenizer of 128k tokens takes some 200 MB while it is loaded, so only what is asked of it is
kept.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from mergekit.common import ModelPath
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from chatvec_method.errors import first_line

WHOLE_VOCABULARY_FILE = re.compile(
    r"tokenizer(\.[\d.]+)?\.json|tekken\.json|tokenizer\.model|tiktoken\.model"
)
"""The names of files that hold all tokens, and that transformers reads whatever the class."""
VOCABULARY_FILE = re.compile(rf"{WHOLE_VOCABULARY_FILE.pattern}|vocab\b.*|.*\.(model|tiktoken)")
"""The names of files in which tokens are."""
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

    @property
    def tokens(self) -> dict[int, str]:
        """Every id's token."""
        return {i: token for token, i in self.ids.items()}


def look_up_tokenizer(
    path: ModelPath, files: Collection[str], trust_remote_code: bool
) -> tuple[TokenizerFacts | None, str]:
    """Return what is known of a tokenizer, or why there is none.

    Where its files are missing, transformers 5 does not fail: it builds an empty tokenizer of the
    class that goes with the architecture.

    Args:
        path: The model's.
        files: The names of its files.
        trust_remote_code: Whether the tokenizer may run code of its own.
    """
    if not any(TOKENIZER_FILE.fullmatch(name) for name in files):
        return None, "it has no tokenizer files"
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path.path, revision=path.revision, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # each kind of tokenizer fails in its own way
        if not any(VOCABULARY_FILE.fullmatch(name) for name in files):
            return None, _without("tokenizer.json")
        return None, first_line(error)
    missing = missing_vocabulary(tokenizer, files)
    return (None, missing) if missing else (tokenizer_facts(tokenizer), "")


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


def tokenizer_facts(tokenizer: PreTrainedTokenizerBase) -> TokenizerFacts:
    """Return what a merge needs to know of a loaded tokenizer."""
    template = tokenizer.chat_template
    if isinstance(template, dict):  # several, by name
        template = template.get("default")
    return TokenizerFacts(
        ids=tokenizer.get_vocab(),
        added=frozenset(tokenizer.get_added_vocab()),
        special={k: v for k, v in tokenizer.special_tokens_map.items() if isinstance(v, str)},
        chat_template=template,
    )
