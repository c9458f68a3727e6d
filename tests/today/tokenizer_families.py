"""Tokenizers as the hubs have them, trained on a few lines.

Each family has the algorithm, the class, the special tokens in the order of their ids, the chat
template and the generation settings of a real one. Its files are written by hand, as hubs have
them, and not by transformers, which would spell them as it does today.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

LINES = (
    "The quick brown fox jumps over the lazy dog and says hello to the world of models.",
    "What is the name of the model that says hello to the user and to the assistant?",
    "안녕하세요, 저는 한국어로 말하는 모델입니다. 오늘은 날씨가 좋습니다.",
    "こんにちは、私は日本語を話すモデルです。今日は天気がいいですね。",
    "你好，我是一个会说中文的模型。今天天气很好。",
    "system user assistant model [INST] [/INST] <<SYS>> def f(x): return x + 1",
)
NEW_LINES = (
    "서울은 대한민국의 수도이고 한강이 흐르는 도시입니다.",
    "東京は日本の首都であり、人口が最も多い都市です。",
    "北京是中国的首都，也是一座历史悠久的城市。",
)
"""What cp was trained on: its vocabulary may have grown by these."""
SENTENCE = "Hello world, 서울의 날씨는 좋습니다. 東京は今日も天気がいい。你好 model 1234!\nYes."
"""For comparing two tokenizers: all languages, digits, a line break."""

_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA_3_WORDS = _QWEN_WORDS.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
_TEKKEN_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Family:
    """A tokenizer and the chat format that goes with it."""

    algorithm: Literal["bytes", "sentencepiece", "unigram"]
    tokenizer_class: str
    special: tuple[str, ...]
    """In the order of their ids, before the words or after them."""
    eos: str
    """Of base: where a text ends."""
    end_of_turn: str
    """Of chat: where an answer ends."""
    template: str
    markers: tuple[str, ...]
    """Those special tokens of which the template makes a turn, each of which must stay one id."""
    special_first: bool = False
    bos: str | None = None
    pad: str | None = None
    unk: str | None = None
    adds_bos: bool = False
    words: str | None = None
    """The regular expression that cuts words, of an algorithm on bytes; GPT-2's by default."""
    stops: tuple[str, ...] = ()
    """Of chat's generation_config.json; the end of a turn alone by default."""
    chat_eos: str | None = None
    """Of chat's tokenizer; the end of a turn by default."""
    shown: tuple[str, ...] = ()
    """Added tokens that are not special: they are read in answers, like `<think>`."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    base_has_template: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    """More of tokenizer_config.json."""

    @property
    def all_stops(self) -> tuple[str, ...]:
        return self.stops or (self.end_of_turn,)


@dataclass(frozen=True)
class Lexicon:
    """What one model's tokenizer knows."""

    family: Family
    tokens: tuple[str, ...]
    """In the order of their ids."""
    merges: tuple[tuple[str, str], ...] = ()
    scores: tuple[float, ...] = ()
    """Of a unigram model, a score for each token."""

    @property
    def ids(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens)}

    def without(self, tokens: Iterable[str]) -> Lexicon:
        """Return this without some of the tokens at its end."""
        left_out = set(tokens)
        kept = tuple(token for token in self.tokens if token not in left_out)
        if kept != self.tokens[: len(kept)]:
            raise ValueError(f"{left_out} are not at the end")
        return replace(self, tokens=kept)


def template(
    opening: str,
    closing: str,
    *,
    start: str = "",
    assistant: str = "assistant",
    user: str = "user",
) -> str:
    """Return a chat template in which every turn looks alike.

    Args:
        opening: What stands before a turn's text, with `{role}`.
        closing: What stands after it.
        start: What the conversation starts with.
        assistant: The assistant's name in the template.
        user: The user's name in the template.
    """
    before, after = (_quoted(part) for part in opening.split("{role}"))
    named = (
        f"{{'assistant': {_quoted(assistant)}, 'user': {_quoted(user)}}}.get(m['role'], m['role'])"
    )
    begun = _quoted(opening.format(role=assistant))
    return (
        (f"{{{{ {_quoted(start)} }}}}" if start else "")
        + "{% for m in messages %}{{ "
        + f"{before} + {named} + {after} + m['content'] + {_quoted(closing)}"
        + " }}{% endfor %}{% if add_generation_prompt %}{{ "
        + f"{begun}"
        + " }}{% endif %}"
    )


def lexicon(family: Family) -> Lexicon:
    """Return what base's tokenizer knows: special tokens first or last, as they are in life."""
    tokens, merges, scores = _trained(family.algorithm, family.words, LINES)
    if family.special_first:
        tokens = (*family.special, *tokens)
        scores = (*(0.0 for _ in family.special), *scores)
    else:
        tokens = (*tokens, *family.special)
    return Lexicon(family, tokens, merges, scores if family.algorithm == "unigram" else ())


def extended(old: Lexicon) -> Lexicon:
    """Return a lexicon with new words at the end: no id of the old one changes."""
    family = old.family
    tokens, merges, scores = _trained(family.algorithm, family.words, NEW_LINES)
    new = [i for i, token in enumerate(tokens) if token not in set(old.tokens)]
    return Lexicon(
        family,
        (*old.tokens, *(tokens[i] for i in new)),
        tuple(dict.fromkeys([*old.merges, *merges])),
        (*old.scores, *(scores[i] for i in new)) if old.scores else (),
    )


@cache
def _trained(
    algorithm: str, words: str | None, lines: Sequence[str]
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...], tuple[float, ...]]:
    """Return tokens, merges and scores of a tokenizer trained on some lines."""
    if algorithm == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
        unigram = trainers.UnigramTrainer(
            vocab_size=120, show_progress=False, unk_token="<unk>", special_tokens=["<unk>"]
        )
        tokenizer.train_from_iterator(lines, unigram)
        pieces = [p for p in json.loads(tokenizer.to_str())["model"]["vocab"] if p[0] != "<unk>"]
        fallback = [(token, 0.0) for token in _BYTE_TOKENS]
        tokens, scores = zip(*fallback, *pieces, strict=True)
        return tokens, (), scores
    tokenizer = Tokenizer(models.BPE())
    if algorithm == "bytes":
        tokenizer.pre_tokenizer = _byte_words(words)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
        alphabet = ["▁", *(chr(code) for code in range(ord("!"), ord("~") + 1))]
    # A little more than the alphabet: each merge is a row of two embeddings in three models.
    size = len(set(alphabet) | ({*"".join(lines)} if algorithm != "bytes" else set())) + 64
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(lines, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(trained["vocab"], key=trained["vocab"].__getitem__)
    merges = tuple((left, right) for left, right in trained["merges"])
    if algorithm == "sentencepiece":
        tokens = [*_BYTE_TOKENS, *tokens]
    return tuple(tokens), merges, ()


_BYTE_TOKENS = tuple(f"<0x{byte:02X}>" for byte in range(256))


def _byte_words(words: str | None) -> pre_tokenizers.PreTokenizer:
    if words is None:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


# --- Files ------------------------------------------------------------------------------------


def write(
    folder: Path, lexicon: Lexicon, *, chat: bool, template_in_config: bool, base_class: str = ""
) -> None:
    """Write a tokenizer's files as a hub has them.

    Args:
        folder: The model's.
        lexicon: What the tokenizer knows.
        chat: Whether the model chats: it then has a template, and its eos is the end of a turn.
        template_in_config: Whether the template lies in tokenizer_config.json, as it did until
            2025, or in a file of its own.
        base_class: Another class than the family's.
    """
    family, ids = lexicon.family, lexicon.ids
    tokenizer = _tokenizer(lexicon)
    tokenizer.save(str(folder / "tokenizer.json"))
    eos = (family.chat_eos or family.end_of_turn) if chat else family.eos
    roles = {"bos_token": family.bos, "eos_token": eos}
    roles |= {"pad_token": family.pad, "unk_token": family.unk}
    config: dict[str, Any] = {
        **({"add_bos_token": family.adds_bos} if family.bos else {}),
        "added_tokens_decoder": {
            str(ids[token]): _entry(token, special=token not in family.shown)
            for token in family.special
            if token in ids
        },
        **roles,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
        **family.settings,
        "tokenizer_class": base_class or family.tokenizer_class,
    }
    if chat or family.base_has_template:
        if template_in_config:
            config["chat_template"] = family.template
        else:
            (folder / "chat_template.jinja").write_text(family.template, encoding="utf-8")
    _write_json(folder / "tokenizer_config.json", config)
    shown_roles = {role: token for role, token in roles.items() if token is not None}
    _write_json(folder / "special_tokens_map.json", shown_roles)


def generation_config(lexicon: Lexicon, *, chat: bool) -> dict[str, Any]:
    """Return what generation_config.json says beside a tokenizer, with ids for tokens."""
    family, ids = lexicon.family, lexicon.ids
    stops = [ids[token] for token in (family.all_stops if chat else (family.eos,)) if token in ids]
    named = {"bos_token_id": family.bos, "pad_token_id": family.pad}
    return {
        **{key: ids[token] for key, token in named.items() if token is not None},
        "eos_token_id": stops if len(stops) > 1 else stops[0],
        **(family.sampling if chat else {}),
        "transformers_version": "4.51.0",
    }


def _tokenizer(lexicon: Lexicon) -> Tokenizer:
    family, ids = lexicon.family, lexicon.ids
    if family.algorithm == "bytes":
        tokenizer = Tokenizer(models.BPE(_words_of(lexicon), list(lexicon.merges)))
        if family.words is not None:
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = _byte_words(family.words)
        tokenizer.decoder = decoders.ByteLevel()
    elif family.algorithm == "sentencepiece":
        merges = list(lexicon.merges)
        tokenizer = Tokenizer(
            models.BPE(ids, merges, unk_token=family.unk, fuse_unk=True, byte_fallback=True)
        )
        _as_sentencepiece(tokenizer, prepends=family.tokenizer_class.startswith("Llama"))
    else:
        scored = list(zip(lexicon.tokens, lexicon.scores, strict=True))
        unknown = ids[family.unk or "<unk>"]
        tokenizer = Tokenizer(models.Unigram(scored, unknown, byte_fallback=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        tokenizer.decoder = decoders.Sequence(
            [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")]
        )
    for token in family.special:  # in the order of their ids, which are given as they are added
        if token in ids and token in family.shown:
            tokenizer.add_tokens([_added(token, False)])
        elif token in ids:
            tokenizer.add_special_tokens([_added(token, True)])
    if family.adds_bos and family.bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A",
            pair=f"{family.bos} $A {family.bos} $B:1",
            special_tokens=[(family.bos, ids[family.bos])],
        )
    if {token: tokenizer.token_to_id(token) for token in ids} != ids:
        raise AssertionError("the tokenizer numbers its tokens otherwise")
    return tokenizer


def _words_of(lexicon: Lexicon) -> dict[str, int]:
    """Return the tokens of the model proper; special ones at the end are only added to it."""
    ids, special = lexicon.ids, set(lexicon.family.special)
    return {token: i for token, i in ids.items() if token not in special or _inside(lexicon, i)}


def _inside(lexicon: Lexicon, number: int) -> bool:
    """Whether words follow a token, whose id would be another if it were only added."""
    special = set(lexicon.family.special)
    return any(token not in special for token in lexicon.tokens[number:])


def _as_sentencepiece(tokenizer: Tokenizer, *, prepends: bool) -> None:
    replaced = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = (
        normalizers.Sequence([normalizers.Prepend("▁"), replaced]) if prepends else replaced
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(
        [*steps, decoders.Strip(" ", 1, 0)] if prepends else steps
    )


def _added(token: str, special: bool) -> AddedToken:
    return AddedToken(token, special=special, normalized=False)


def _entry(token: str, special: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {"content": token, **flags, "special": special}


def _quoted(text: str) -> str:
    """Return a text as a template spells it."""
    return json.dumps(text, ensure_ascii=False)


def _write_json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# --- Families ---------------------------------------------------------------------------------

_CHATML = template("<|im_start|>{role}\n", "<|im_end|>\n")
_QWEN_SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}
_QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_QWEN_VISION = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>")
_QWEN_VISION += ("<|video_pad|>",)
_QWEN = Family(
    "bytes",
    "Qwen2Tokenizer",
    _QWEN_SPECIAL,
    eos="<|endoftext|>",
    end_of_turn="<|im_end|>",
    template=_CHATML,
    markers=("<|im_start|>", "<|im_end|>"),
    pad="<|endoftext|>",
    words=_QWEN_WORDS,
    stops=("<|im_end|>", "<|endoftext|>"),
    sampling={**_QWEN_SAMPLING, "repetition_penalty": 1.05},
    base_has_template=True,
    settings={"add_prefix_space": False, "errors": "replace", "split_special_tokens": False},
)
_QWEN_3 = replace(
    _QWEN,
    special=(*_QWEN_SPECIAL, *_QWEN_VISION, "<tool_call>", "</tool_call>", "<think>", "</think>"),
    shown=("<tool_call>", "</tool_call>", "<think>", "</think>"),
    sampling={**_QWEN_SAMPLING, "temperature": 0.6, "top_p": 0.95},
)
_LLAMA_3_SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>")
_LLAMA_3_SPECIAL += ("<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>")
_LLAMA_3 = Family(
    "bytes",
    "PreTrainedTokenizerFast",
    _LLAMA_3_SPECIAL,
    eos="<|end_of_text|>",
    end_of_turn="<|eot_id|>",
    template=template(
        "<|start_header_id|>{role}<|end_header_id|>\n\n", "<|eot_id|>", start="<|begin_of_text|>"
    ),
    markers=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    bos="<|begin_of_text|>",
    adds_bos=True,
    words=_LLAMA_3_WORDS,
    stops=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
    sampling={"do_sample": True, "temperature": 0.6, "top_p": 0.9},
    settings={"model_input_names": ["input_ids", "attention_mask"]},
)
_INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ ' ' + m['content'] + eos_token }}"
    "{% endif %}{% endfor %}"
)
_LLAMA_2 = Family(
    "sentencepiece",
    "LlamaTokenizer",
    ("<unk>", "<s>", "</s>"),
    eos="</s>",
    end_of_turn="</s>",
    template=_INST,
    markers=("</s>",),
    special_first=True,
    bos="<s>",
    unk="<unk>",
    adds_bos=True,
    sampling={"do_sample": True, "temperature": 0.6, "top_p": 0.9},
    settings={"legacy": False, "add_eos_token": False, "sp_model_kwargs": {}},
)
_GEMMA = Family(
    "sentencepiece",
    "GemmaTokenizer",
    ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"),
    eos="<eos>",
    end_of_turn="<end_of_turn>",
    template=template(
        "<start_of_turn>{role}\n", "<end_of_turn>\n", start="<bos>", assistant="model"
    ),
    markers=("<start_of_turn>", "<end_of_turn>"),
    special_first=True,
    bos="<bos>",
    pad="<pad>",
    unk="<unk>",
    adds_bos=True,
    chat_eos="<eos>",
    stops=("<eos>", "<end_of_turn>"),
    sampling={"do_sample": True, "top_k": 64, "top_p": 0.95},
    settings={
        "add_eos_token": False,
        "sp_model_kwargs": {},
        "spaces_between_special_tokens": False,
    },
)
_GEMMA_3 = replace(
    _GEMMA,
    tokenizer_class="GemmaTokenizerFast",
    special=(*_GEMMA.special, "<start_of_image>", "<end_of_image>", "<image_soft_token>"),
    settings={
        **_GEMMA.settings,
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    },
)
_GEMMA_4 = replace(
    _GEMMA,
    special=("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>", "<|image|>"),
    end_of_turn="<turn|>",
    template=template("<|turn>{role}\n", "<turn|>\n", start="<bos>", assistant="model"),
    markers=("<|turn>", "<turn|>"),
    stops=("<eos>", "<turn|>"),
)
_TEKKEN = Family(
    "bytes",
    "PreTrainedTokenizerFast",
    (
        *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]"),
        *("[/AVAILABLE_TOOLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]"),
        *("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    ),
    eos="</s>",
    end_of_turn="</s>",
    template=_INST.replace("[INST] ", "[INST]").replace(" [/INST]", "[/INST]").replace("' ' +", ""),
    markers=("[INST]", "[/INST]", "</s>"),
    special_first=True,
    bos="<s>",
    pad="<pad>",
    unk="<unk>",
    adds_bos=True,
    words=_TEKKEN_WORDS,
    sampling={"do_sample": True, "temperature": 0.15},
)
_MISTRAL = replace(
    _LLAMA_2,
    special=("<unk>", "<s>", "</s>", "[INST]", "[/INST]"),
    markers=("[INST]", "[/INST]", "</s>"),
    sampling={},
)
_NEOX = Family(
    "bytes",
    "GPTNeoXTokenizer",
    ("<|endoftext|>", "<|padding|>", "<|user|>", "<|assistant|>", "<|end|>"),
    eos="<|endoftext|>",
    end_of_turn="<|end|>",
    template=template("<|{role}|>\n", "<|end|>\n"),
    markers=("<|user|>", "<|assistant|>", "<|end|>"),
    special_first=True,
    bos="<|endoftext|>",
    unk="<|endoftext|>",
    stops=("<|endoftext|>", "<|end|>"),
    settings={"add_prefix_space": False},
)
_GPT_2 = replace(
    _QWEN,
    tokenizer_class="GPT2Tokenizer",
    bos="<|endoftext|>",
    unk="<|endoftext|>",
    words=None,
    sampling={},
    base_has_template=False,
    settings={"add_prefix_space": False, "errors": "replace"},
)
_COHERE = Family(
    "bytes",
    "CohereTokenizerFast",
    (
        *("<PAD>", "<UNK>", "<CLS>", "<SEP>", "<MASK_TOKEN>", "<BOS_TOKEN>", "<EOS_TOKEN>"),
        *("<EOP_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>"),
        *("<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|IMG_PATCH|>"),
    ),
    eos="<EOS_TOKEN>",
    end_of_turn="<|END_OF_TURN_TOKEN|>",
    template=(
        "{{ bos_token }}{% for m in messages %}{{ '<|START_OF_TURN_TOKEN|>' + ('<|USER_TOKEN|>' "
        "if m['role'] == 'user' else '<|CHATBOT_TOKEN|>') + m['content'] + "
        "'<|END_OF_TURN_TOKEN|>' }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
    ),
    markers=("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>"),
    special_first=True,
    bos="<BOS_TOKEN>",
    pad="<PAD>",
    unk="<UNK>",
    adds_bos=True,
    settings={"add_eos_token": False, "sp_model_kwargs": {}, "use_default_system_prompt": False},
)
_DEEPSEEK = Family(
    "bytes",
    "LlamaTokenizerFast",
    (
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        "<｜▁pad▁｜>",
        "<｜User｜>",
        "<｜Assistant｜>",
    ),
    eos="<｜end▁of▁sentence｜>",
    end_of_turn="<｜end▁of▁sentence｜>",
    template=(
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<｜User｜>' + "
        "m['content'] }}{% else %}{{ '<｜Assistant｜>' + m['content'] + '<｜end▁of▁sentence｜>' }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
    ),
    markers=("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
    special_first=True,
    bos="<｜begin▁of▁sentence｜>",
    pad="<｜▁pad▁｜>",
    adds_bos=True,
    words=_LLAMA_3_WORDS,
    sampling={"do_sample": True, "temperature": 0.6, "top_p": 0.95},
    settings={"legacy": True, "add_eos_token": False},
)
_HARMONY = Family(
    "bytes",
    "PreTrainedTokenizerFast",
    (
        *("<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>"),
        *("<|start|>", "<|end|>", "<|message|>", "<|call|>"),
    ),
    eos="<|endoftext|>",
    end_of_turn="<|return|>",
    template=(
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|start|>assistant<|channel|>"
        "final<|message|>' + m['content'] + ('<|return|>' if loop.last else '<|end|>') }}"
        "{% else %}{{ '<|start|>' + m['role'] + '<|message|>' + m['content'] + '<|end|>' }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
    ),
    markers=("<|start|>", "<|message|>", "<|end|>", "<|return|>"),
    bos="<|startoftext|>",
    pad="<|endoftext|>",
    words=_TEKKEN_WORDS,
    stops=("<|return|>", "<|endoftext|>", "<|call|>"),
    sampling={"do_sample": True},
)
_EXAONE = Family(
    "bytes",
    "GPT2Tokenizer",
    (
        *("[PAD]", "[BOS]", "[EOS]", "[UNK]", "[|system|]", "[|user|]", "[|assistant|]"),
        "[|endofturn|]",
    ),
    eos="[EOS]",
    end_of_turn="[|endofturn|]",
    template=template("[|{role}|]", "[|endofturn|]\n"),
    markers=("[|user|]", "[|assistant|]", "[|endofturn|]"),
    special_first=True,
    bos="[BOS]",
    pad="[PAD]",
    unk="[UNK]",
    words=_LLAMA_3_WORDS,
    sampling={"do_sample": True, "temperature": 0.6, "top_p": 0.95},
    settings={"add_prefix_space": False, "errors": "replace"},
)
_HYPERCLOVA = replace(
    _GPT_2,
    special=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|stop|>", "<|endofturn|>"),
    end_of_turn="<|im_end|>",
    stops=("<|im_end|>", "<|endofturn|>", "<|stop|>"),
)
_SOLAR_OPEN = replace(
    _LLAMA_3,
    special=("<|endoftext|>", "<|startoftext|>", "<|pad|>", "<|begin|>", "<|end|>", "<|content|>"),
    eos="<|endoftext|>",
    end_of_turn="<|end|>",
    template=template("<|begin|>{role}<|content|>", "<|end|>", start="<|startoftext|>"),
    markers=("<|begin|>", "<|content|>", "<|end|>"),
    bos="<|startoftext|>",
    pad="<|pad|>",
    stops=("<|end|>", "<|endoftext|>"),
)
_GLM = Family(
    "bytes",
    "PreTrainedTokenizerFast",
    (
        *("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>"),
        *("<|user|>", "<|assistant|>", "<|observation|>", "<|begin_of_image|>"),
        *("<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image|>", "<|video|>"),
    ),
    eos="<|endoftext|>",
    end_of_turn="<|user|>",
    template=(
        "[gMASK]<sop>{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
    ),
    markers=("<|user|>", "<|assistant|>", "[gMASK]", "<sop>"),
    pad="<|endoftext|>",
    words=_LLAMA_3_WORDS,
    chat_eos="<|endoftext|>",
    stops=("<|endoftext|>", "<|user|>", "<|observation|>"),
    sampling={"do_sample": True, "temperature": 0.8, "top_p": 0.6},
)
_PHI_3 = replace(
    _LLAMA_2,
    tokenizer_class="LlamaTokenizer",
    special=("<unk>", "<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>"),
    eos="<|endoftext|>",
    end_of_turn="<|end|>",
    template=template("<|{role}|>\n", "<|end|>\n"),
    markers=("<|user|>", "<|assistant|>", "<|end|>"),
    pad="<|endoftext|>",
    chat_eos="<|endoftext|>",
    stops=("<|endoftext|>", "<|assistant|>", "<|end|>"),
    adds_bos=False,
    sampling={},
)
_GRANITE = replace(
    _GPT_2,
    special=("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"),
    eos="<|end_of_text|>",
    end_of_turn="<|end_of_text|>",
    template=template("<|start_of_role|>{role}<|end_of_role|>", "<|end_of_text|>\n"),
    markers=("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
    bos="<|end_of_text|>",
    pad="<|end_of_text|>",
    unk="<|end_of_text|>",
    stops=(),
)
_LLM_JP = Family(
    "unigram",
    "PreTrainedTokenizerFast",
    ("<unk>", "<s>", "</s>", "<MASK|LLM-jp>", "<PAD|LLM-jp>", "<CLS|LLM-jp>", "<EOD|LLM-jp>"),
    eos="</s>",
    end_of_turn="</s>",
    template=(
        "{{ bos_token }}{% for m in messages %}{{ ('\\n\\n### 指示:\\n' if m['role'] == 'user' "
        "else '\\n\\n### 応答:\\n') + m['content'] + ('</s>' if m['role'] == 'assistant' "
        "else '') }}{% endfor %}{% if add_generation_prompt %}{{ '\\n\\n### 応答:\\n' }}{% endif %}"
    ),
    markers=("</s>",),
    special_first=True,
    bos="<s>",
    pad="<PAD|LLM-jp>",
    unk="<unk>",
    adds_bos=True,
)
_BLOOM = replace(
    _NEOX,
    tokenizer_class="BloomTokenizerFast",
    special=("<unk>", "<s>", "</s>", "<pad>"),
    eos="</s>",
    end_of_turn="</s>",
    template=_INST,
    markers=("</s>",),
    bos="<s>",
    pad="<pad>",
    unk="<unk>",
    stops=(),
)

FAMILIES = {
    "qwen2": _QWEN,
    "qwen2-vl": replace(_QWEN, special=(*_QWEN_SPECIAL, *_QWEN_VISION)),
    "qwen3": _QWEN_3,
    "qwen3.5": replace(_QWEN_3, tokenizer_class="Qwen3_5Tokenizer"),
    "llama-3": _LLAMA_3,
    "llama-3-image": replace(_LLAMA_3, special=(*_LLAMA_3_SPECIAL, "<|image|>", "<image>")),
    "llama-2": _LLAMA_2,
    "llama-2-image": replace(
        _LLAMA_2, special=(*_LLAMA_2.special, "<image>", "<pad>"), pad="<pad>"
    ),
    "llama-2-chatml": replace(
        _LLAMA_2,
        special=(*_LLAMA_2.special, "<|im_start|>", "<|im_end|>"),
        end_of_turn="<|im_end|>",
        template=_CHATML,
        markers=("<|im_start|>", "<|im_end|>"),
        stops=("<|im_end|>", "</s>"),
    ),
    "mistral": _MISTRAL,
    "mistral-image": replace(
        _MISTRAL, special=(*_MISTRAL.special, "<image>", "<pad>"), pad="<pad>"
    ),
    "tekken": _TEKKEN,
    "gemma": _GEMMA,
    "gemma3": _GEMMA_3,
    "gemma4": _GEMMA_4,
    "paligemma": replace(_GEMMA, special=(*_GEMMA.special, "<image>")),
    "neox": _NEOX,
    "gpt2": _GPT_2,
    "cohere": _COHERE,
    "deepseek": _DEEPSEEK,
    "harmony": _HARMONY,
    "exaone": _EXAONE,
    "exaone-vl": replace(
        _EXAONE, special=(*_EXAONE.special, "<|image_pad|>", "<|video_pad|>", "<vision>")
    ),
    "hyperclova": _HYPERCLOVA,
    "hyperclova-vl": replace(
        _HYPERCLOVA, special=(*_HYPERCLOVA.special, "<|IMAGE_PAD|>", "<|VIDEO_PAD|>")
    ),
    "solar-open": _SOLAR_OPEN,
    "glm": _GLM,
    "phi3": _PHI_3,
    "granite": _GRANITE,
    "llm-jp": _LLM_JP,
    "bloom": _BLOOM,
}
"""By name. `qwen2` has what Qwen's base models really have, a chat template; `deepseek` a class
that does not fit its algorithm; `glm` ends a turn with the marker of the next one."""
