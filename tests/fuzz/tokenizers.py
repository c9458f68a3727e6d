"""Tokenizer files changed at random, in the ways in which people's and strangers' differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.files import is_readable
from tests.fuzz.values import WORDS, changed

IDS: tuple[Any, ...] = (0, 1, 5, 300, 10**9, 2**31, -1, "x", None, 1.5)
TOKENS = ("<|im_end|>", "<|eot_id|>", "</s>", "[PAD]", "\u200b", "é", "e\u0301", *WORDS)
PARTS: dict[str, tuple[Any, ...]] = {
    "normalizer": (
        {"type": "NFKC"},
        {"type": "Replace", "pattern": {"Regex": "(x+x+)+y"}, "content": ""},
        {"type": "Sequence", "normalizers": [{"type": "Lowercase"}] * 2000},
        {"type": "Prepend", "prepend": "▁" * 5000},
        {"type": "NoSuch"},
        None,
    ),
    "pre_tokenizer": (
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
        {"type": "Split", "pattern": {"Regex": "(.+)+$"}, "behavior": "Removed", "invert": True},
        {"type": "Whitespace"},
        None,
    ),
    "post_processor": (
        {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<nosuch>", "type_id": 0}}],
            "pair": [],
            "special_tokens": {},
        },
        {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 50,
            "pair": [],
            "special_tokens": {},
        },
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        None,
    ),
    "decoder": (
        {"type": "ByteFallback"},
        {"type": "Strip", "content": "x", "start": 10**6, "stop": 10**6},
        {"type": "Fuse"},
        None,
    ),
    "padding": (
        {
            "strategy": {"Fixed": 10**9},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "x",
        },
        {
            "strategy": "BatchLongest",
            "direction": "Left",
            "pad_to_multiple_of": 10**9,
            "pad_id": 10**6,
            "pad_type_id": 0,
            "pad_token": "<pad>",
        },
    ),
    "truncation": (
        {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 0},
        {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 10**6},
    ),
}
"""What tokenizers can have besides their tokens; regular expressions among it, and lengths."""
MODEL_KEYS: dict[str, tuple[Any, ...]] = {
    "type": ("BPE", "Unigram", "WordPiece", "WordLevel", "NoSuch", None),
    "unk_token": ("<nosuch>", "", None, 5),
    "byte_fallback": (True, "x"),
    "fuse_unk": (True,),
    "ignore_merges": (True,),
    "merges": ([], [["x", "y"]], ["x y"], ["x"], [[]], {}),
    "vocab": ([["x", -1.0], ["y", -2.0]], {}, [], {"x": 0}),
    "dropout": (1.0, 5, -1),
    "continuing_subword_prefix": ("##",),
    "max_input_chars_per_word": (0, 10**9),
    "unk_id": (0, 10**9),
}


def _tokens(tokenizer: dict[str, Any], random: Random) -> str:
    """Change the vocabulary: a token has another number, is missing, or is one more."""
    vocabulary = tokenizer["model"]["vocab"]
    token = random.choice(list(vocabulary))
    match random.randrange(6):
        case 0:
            vocabulary[token] = random.choice(IDS)
        case 1:
            del vocabulary[token]
        case 2:
            vocabulary[random.choice(TOKENS)] = vocabulary.pop(token)
        case 3:
            vocabulary[random.choice(TOKENS)] = max(
                (i for i in vocabulary.values() if type(i) is int), default=0
            ) + random.choice([1, 2, 1000])
        case 4:
            other = random.choice(list(vocabulary))
            vocabulary[token], vocabulary[other] = vocabulary[other], vocabulary[token]
        case 5:
            more = len(vocabulary)
            vocabulary |= {f"new{i}": more + i for i in range(random.choice([1, 8, 3000]))}
    return f"token {token!r:.40}"


def _added(tokenizer: dict[str, Any], random: Random) -> str:
    """Change the tokens that were added to the vocabulary."""
    added = tokenizer.setdefault("added_tokens", [])
    flags = {key: random.random() < 0.5 for key in ("single_word", "lstrip", "rstrip")}
    new = {
        "id": random.choice([random.randrange(300), *IDS]),
        "content": random.choice(TOKENS),
        **flags,
        "normalized": random.random() < 0.5,
        "special": random.random() < 0.5,
    }
    if added and random.random() < 0.5:
        at = random.randrange(len(added))
        key = random.choice(list(new))
        if random.random() < 0.2:
            del added[at]
        else:
            added[at][key] = new[key]
        return f"added token {at}"
    added += [new] * random.choice([1, 1, 2])
    return f"{new['content']!r:.40} added"


def _part(tokenizer: dict[str, Any], random: Random) -> str:
    key = random.choice(list(PARTS))
    tokenizer[key] = random.choice(PARTS[key])
    return f"{key} {tokenizer[key]!r:.60}"


def _model(tokenizer: dict[str, Any], random: Random) -> str:
    key = random.choice(list(MODEL_KEYS))
    tokenizer["model"][key] = random.choice(MODEL_KEYS[key])
    return f"model {key} {tokenizer['model'][key]!r:.60}"


def _anything(tokenizer: dict[str, Any], random: Random) -> str:
    other = changed(tokenizer, random)
    tokenizer.clear()
    tokenizer.update(other if isinstance(other, dict) else {})
    return "anything"


WAYS: tuple[Callable[[dict[str, Any], Random], str], ...] = (
    *(_tokens, _tokens, _added, _added, _part, _part, _model, _anything),
)


def change_tokenizer(folder: Path, random: Random) -> str:
    """Change `tokenizer.json`, and return how."""
    file = folder / "tokenizer.json"
    if not is_readable(file):
        return f"{file.name} left alone"
    told = []
    try:
        tokenizer = json.loads(file.read_text(encoding="utf-8"))
        for _ in range(random.choice([1, 1, 2])):
            told.append(random.choice(WAYS)(tokenizer, random))
        file.write_text(json.dumps(tokenizer, ensure_ascii=random.random() < 0.5), "utf-8")
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return "tokenizer.json left alone"  # as an earlier change has left it
    return f"tokenizer.json: {', '.join(told)}"
