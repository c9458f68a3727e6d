"""Miniature families that chat, in the formats of life: ChatML, Llama-2, Llama-3 and Mistral.

A family is base, chat and cp. As in life, chat alone has a template and knows when to stop, and cp
may have Korean tokens of its own. Chat answers every prompt with `ANSWER` and the format's
end-of-turn token, and if nothing stops it, goes on to the next turn, for ever. It can because of
weights that base and cp do not have: the chat vector is all that a merge needs to answer the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import torch
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
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

Weights = dict[str, Tensor]
Message = Mapping[str, str]

ANSWER = "Good day friend"
"""What chat says in its turn: three ordinary tokens."""
QUESTION: Sequence[Message] = [{"role": "user", "content": "Hello, who are you?"}]
KOREAN = "안녕 하세요 오늘 날씨 좋은 아침".split()
"""The words that an extended cp has as tokens; KANA is no model's."""
KANA = "こんにちは"

CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Qwen2-Instruct's."""
LLAMA_2_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
"""Llama-2-chat's; it has no use for add_generation_prompt."""
LLAMA_3_TEMPLATE = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
    " + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
"""Meta-Llama-3-Instruct's."""
MISTRAL_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}"
    "{% endfor %}"
)
"""Mistral-Instruct v0.2's, which refuses a system message."""
MISTRAL_V3_TEMPLATE = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
    "{%- set loop_messages = messages[1:] %}"
    "{%- else %}{%- set loop_messages = messages %}{%- endif %}"
    "{{- bos_token }}{%- for message in loop_messages %}"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('After the optional system message, conversation roles must alternate"
    " user/assistant/user/assistant/...') }}{%- endif %}"
    "{%- if message['role'] == 'user' %}"
    "{%- if loop.last and system_message is defined %}"
    "{{- '[INST] ' + system_message + '\\n\\n' + message['content'] + '[/INST]' }}"
    "{%- else %}{{- '[INST] ' + message['content'] + '[/INST]' }}{%- endif %}"
    "{%- elif message['role'] == 'assistant' %}{{- ' ' + message['content'] | trim + eos_token }}"
    "{%- else %}{{- raise_exception('Only user and assistant roles are supported, with the"
    " exception of an initial optional system message!') }}{%- endif %}"
    "{%- endfor %}"
)
"""Mistral-Instruct v0.3's, without its tools."""


@dataclass(frozen=True)
class Format:
    """How models of one format spell a chat, and what they have for it."""

    template: str
    end_of_turn: str
    cycle: tuple[str, ...]
    """The tokens that chat says in turn, beginning with the last one of a generation prompt."""
    eos: str
    """Base's and cp's."""
    bos: str | None
    sentencepiece: bool
    """Words with ▁ and bytes as a fallback, in place of bytes throughout."""
    markers: tuple[str, ...] = ()
    """Special tokens that no model but chat was trained on."""
    markers_in_base: bool = True
    """Base and cp have the markers, untrained, in place of not at all."""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Of chat's generation config."""
    chat_stops: tuple[str, ...] = ()
    """Of chat's generation config, where they are more than the tokenizer's eos."""
    model_type: str = "llama"

    @property
    def answer(self) -> list[str]:
        """The tokens of chat's turn: ANSWER and the end of the turn."""
        return [*self.cycle[1 : self.cycle.index(self.end_of_turn) + 1]]

    @property
    def special(self) -> list[str]:
        """The special tokens of base and cp, in the order of their ids."""
        own = ["<unk>", "<s>", "</s>"] if self.sentencepiece else [self.bos, self.eos]
        markers = self.markers if self.markers_in_base else ()
        return [*dict.fromkeys(token for token in [*own, *markers] if token)]


_GREETING = ("Good", "Ġday", "Ġfriend")
_SP_GREETING = ("▁Good", "▁day", "▁friend")
_META_SAMPLING = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "max_length": 4096}
_QWEN_SAMPLING = {
    "do_sample": True,
    "temperature": 0.7,
    "top_p": 0.8,
    "top_k": 20,
    "repetition_penalty": 1.05,
    "pad_token_id": "<|endoftext|>",
}


def _chatml(markers_in_base: bool) -> Format:
    return Format(
        CHATML_TEMPLATE,
        "<|im_end|>",
        ("Ċ", *_GREETING, "<|im_end|>", "<|im_start|>", "assistant"),
        eos="<|endoftext|>",
        bos=None,
        sentencepiece=False,
        markers=("<|im_start|>", "<|im_end|>"),
        markers_in_base=markers_in_base,
        sampling=_QWEN_SAMPLING,
        chat_stops=("<|im_end|>", "<|endoftext|>"),
    )


_INST_CYCLE = ("]", *_SP_GREETING, "</s>", "<s>", "▁[", "INST")

FORMATS = {
    "chatml": _chatml(markers_in_base=False),
    "chatml-reserved": _chatml(markers_in_base=True),
    "llama-2": Format(
        LLAMA_2_TEMPLATE,
        "</s>",
        _INST_CYCLE,
        eos="</s>",
        bos="<s>",
        sentencepiece=True,
        sampling={**_META_SAMPLING, "pad_token_id": "<unk>"},
    ),
    "llama-3": Format(
        LLAMA_3_TEMPLATE,
        "<|eot_id|>",
        ("ĊĊ", *_GREETING, "<|eot_id|>", "<|start_header_id|>", "assistant", "<|end_header_id|>"),
        eos="<|end_of_text|>",
        bos="<|begin_of_text|>",
        sentencepiece=False,
        markers=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        sampling=_META_SAMPLING,
        chat_stops=("<|end_of_text|>", "<|eot_id|>"),
    ),
    "mistral": Format(
        MISTRAL_TEMPLATE,
        "</s>",
        _INST_CYCLE,
        eos="</s>",
        bos="<s>",
        sentencepiece=True,
        model_type="mistral",
    ),
    "mistral-v3": Format(
        MISTRAL_V3_TEMPLATE,
        "</s>",
        ("[/INST]", *_SP_GREETING, "</s>", "<s>", "[INST]"),
        eos="</s>",
        bos="<s>",
        sentencepiece=True,
        markers=("[INST]", "[/INST]"),
        model_type="mistral",
    ),
}
"""`chatml`'s base and cp lack the two markers, so chat's vocabulary is the larger one;
`chatml-reserved`'s have them untrained. `mistral-v3` has `[INST]` as a token, `mistral` as text."""


@dataclass(frozen=True)
class Family:
    """Three models on disk, as `build` wrote them."""

    folder: Path
    format: Format
    extended: bool
    tied: bool

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def chat(self) -> Path:
        return self.folder / "chat"

    @property
    def cp(self) -> Path:
        return self.folder / "cp"


def build(folder: Path, format: str, *, extended: bool = False, tied: bool = False) -> Family:
    """Write base, chat and cp into a folder, in bfloat16 and several shards each.

    Args:
        folder: Gets one folder for each model.
        format: One of FORMATS.
        extended: With Korean tokens in cp, after base's.
        tied: Embeddings that are the head, too.
    """
    family = Family(folder.resolve(), FORMATS[format], extended, tied)
    shutil.copytree(_written(format, extended, tied), family.folder, dirs_exist_ok=True)
    return family


@cache
def _shelf() -> TemporaryDirectory[str]:
    """Return a folder for what is written once; it is gone when Python ends."""
    return TemporaryDirectory(prefix="formats-")


@cache
def _written(format: str, extended: bool, tied: bool) -> Path:
    """Write a family onto the shelf, and return its folder."""
    kind = FORMATS[format]
    lexicon = _lexicon(kind)
    chat_lexicon = lexicon.extended(Lexicon([*kind.markers], []))
    cp_lexicon = lexicon.extended(_korean(kind)) if extended else lexicon

    generator = torch.Generator().manual_seed(0)
    base = _random_weights(kind, len(lexicon.tokens), tied, generator)
    untrained = [lexicon.tokens.index(m) for m in kind.markers if kind.markers_in_base]
    for rows in _vocabulary_weights(base):
        rows[untrained] *= 1e-3
    chat = _descendant(base, 0.05, kind, len(chat_lexicon.tokens), tied, generator)
    _teach(chat, [chat_lexicon.tokens.index(token) for token in kind.cycle])
    cp = _descendant(base, 0.15, kind, len(cp_lexicon.tokens), tied, generator)
    for rows, old in zip(_vocabulary_weights(cp), _vocabulary_weights(base), strict=True):
        rows[untrained] = old[untrained]

    family = Family(Path(mkdtemp(dir=_shelf().name)), kind, extended, tied)
    _save(family, family.base, base, lexicon)
    _save(family, family.chat, chat, chat_lexicon)
    _save(family, family.cp, cp, cp_lexicon)
    return family.folder


def recipe(family: Family, ratio: float = 1.0) -> dict[str, Any]:
    """Return the plain right recipe: `tokenizer:` only where the vocabularies differ in size."""
    base, chat, cp = str(family.base), str(family.chat), str(family.cp)
    plain: dict[str, Any] = {
        "merge_method": "chat_vector",
        "base_model": cp,
        "models": [
            {"model": base, "parameters": {"role": "base"}},
            {"model": chat, "parameters": {"role": "chat", "ratio": ratio}},
            {"model": cp, "parameters": {"role": "cp"}},
        ],
    }
    if not family.format.markers_in_base:
        tokens = {marker: {"source": chat} for marker in family.format.markers}
        return {**plain, "tokenizer": {"source": cp, "tokens": tokens}}
    return {**plain, "tokenizer": {"source": cp}} if family.extended else plain


def speak(
    model: Any,
    tokenizer: Any,
    template: str | None = None,
    messages: Sequence[Message] = QUESTION,
    **options: Any,
) -> list[str]:
    """Return the tokens that a model says in its turn: the likeliest, eight if it does not stop.

    Args:
        model: Stops where its own generation config says so.
        tokenizer: The model's.
        template: The chat template; the tokenizer's own by default.
        messages: What was said before.
        **options: For `generate`, as in `eos_token_id=...`.
    """
    prompt = tokenizer.apply_chat_template(
        messages,
        chat_template=template,
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    output = model.generate(**prompt, **{"do_sample": False, "max_new_tokens": 8, **options})
    return tokenizer.convert_ids_to_tokens(output[0, prompt["input_ids"].shape[1] :])


# --- tokenizers -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lexicon:
    """What a BPE tokenizer knows: tokens in the order of their ids, merges in that of rank."""

    tokens: list[str]
    merges: list[tuple[str, str]]

    def extended(self, other: Lexicon) -> Lexicon:
        """Return this with what another has besides, at the end: no id of this one changes."""
        return Lexicon(
            list(dict.fromkeys([*self.tokens, *other.tokens])),
            list(dict.fromkeys([*self.merges, *other.merges])),
        )


# What becomes one token, with the space before it: the words of the answer and of the templates.
_PIECES = ["Good", " Good", " day", " friend", " Hello", "Hello", " who", " are", " you", "You"]
_PIECES += ["user", "system", "assistant", " a", " helpful", " assistant", "\n\n"]
_SP_PIECES = ["▁[", "INST", "▁<<", "<<", ">>", "SYS", "▁Good", "▁day", "▁friend", "▁Hello"]
_SP_PIECES += ["▁who", "▁are", "▁you", "▁You", "▁a", "▁helpful", "▁assistant"]
_PRINTABLE = [chr(code) for code in range(ord("!"), ord("~") + 1)]
_LLAMA_3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _lexicon(kind: Format) -> Lexicon:
    """Return base's, with special tokens first or last, as the models of life have them."""
    if kind.sentencepiece:
        fallback = [f"<0x{byte:02X}>" for byte in range(256)]
        words = _train(_SP_PIECES, ["▁", *_PRINTABLE], in_bytes=False)
        return Lexicon([*kind.special, *fallback], []).extended(words)
    words = _train(_PIECES, sorted(pre_tokenizers.ByteLevel.alphabet()), in_bytes=True)
    return words.extended(Lexicon(kind.special, []))


def _korean(kind: Format) -> Lexicon:
    if kind.sentencepiece:
        return _train([*KOREAN, *(f"▁{word}" for word in KOREAN)], [], in_bytes=False)
    return _train(KOREAN, [], in_bytes=True)


def _train(pieces: Iterable[str], alphabet: list[str], in_bytes: bool) -> Lexicon:
    """Return a BPE trained until every piece is one token."""
    tokenizer = Tokenizer(models.BPE())
    if in_bytes:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=10_000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(pieces, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(trained["vocab"], key=trained["vocab"].__getitem__)
    return Lexicon(tokens, [(left, right) for left, right in trained["merges"]])


def _tokenizer(kind: Format, lexicon: Lexicon) -> Tokenizer:
    vocabulary = {token: i for i, token in enumerate(lexicon.tokens)}
    if kind.sentencepiece:
        bpe = models.BPE(
            vocabulary, lexicon.merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
        tokenizer = Tokenizer(bpe)
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        tokenizer.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
    else:
        tokenizer = Tokenizer(models.BPE(vocabulary, lexicon.merges))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_LLAMA_3_WORDS), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
    special = [token for token in [*kind.special, *kind.markers] if token in vocabulary]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    if kind.bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{kind.bos} $A",
            pair=f"{kind.bos} $A {kind.bos} $B:1",
            special_tokens=[(kind.bos, vocabulary[kind.bos])],
        )
    return tokenizer


# --- weights ----------------------------------------------------------------------------------

_HIDDEN, _INTERMEDIATE, _LAYERS = 192, 256, 2
_SPREAD = 0.03
_NAME, _HEAR, _SPEAK = 1.0, 1.0, 0.25
"""Of the machine in chat: an axis of a token, and a neuron's inputs and output. Even half of them
leaves no doubt about the next token, and in no tensor are they as large as half of base's."""


def _shapes(kind: Format, size: int, tied: bool) -> dict[str, torch.Size]:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(_config(kind, size, tied))
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def _config(kind: Format, size: int, tied: bool, **tokens: Any) -> Any:
    return AutoConfig.for_model(
        kind.model_type,
        vocab_size=size,
        hidden_size=_HIDDEN,
        intermediate_size=_INTERMEDIATE,
        num_hidden_layers=_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=tied,
        **tokens,
    )


def _random_weights(kind: Format, size: int, tied: bool, generator: torch.Generator) -> Weights:
    """Return weights whose layers add little to what the embeddings say."""
    weights = {}
    for name, shape in _shapes(kind, size, tied).items():
        mean, spread = (1.0, _SPREAD) if "norm" in name else (0.0, _SPREAD)
        if "o_proj" in name or "down_proj" in name:
            spread /= 3
        weights[name] = mean + spread * torch.randn(shape, generator=generator)
    return weights


def _descendant(
    base: Weights, spread: float, kind: Format, size: int, tied: bool, generator: torch.Generator
) -> Weights:
    """Return base's weights with noise, `spread` of theirs, and random rows for new tokens."""
    weights = _random_weights(kind, size, tied, generator)
    for name, old in base.items():
        noise = spread * old.std() * torch.randn(old.shape, generator=generator)
        weights[name][: len(old)] = old + noise
    return weights


def _vocabulary_weights(weights: Weights) -> list[Tensor]:
    return [t for name, t in weights.items() if "embed_tokens" in name or "lm_head" in name]


def _teach(weights: Weights, cycle: list[int]) -> None:
    """Make a machine of the weights that says the tokens of a cycle in turn, for ever.

    Token i of the cycle has axis i of the hidden space for itself, in the embedding and the head.
    Neuron i of the last layer's MLP listens to axis i and speaks on the axis of the next token.
    """
    here = torch.arange(len(cycle))
    following = here.roll(-1)
    for rows in _vocabulary_weights(weights):
        rows[cycle, here] += _NAME
    mlp = f"model.layers.{_LAYERS - 1}.mlp"
    weights[f"{mlp}.gate_proj.weight"][here, here] += _HEAR
    weights[f"{mlp}.up_proj.weight"][here, here] += _HEAR
    weights[f"{mlp}.down_proj.weight"][:, here] = 0
    weights[f"{mlp}.down_proj.weight"][following, here] = _SPEAK


# --- files ------------------------------------------------------------------------------------


def _save(family: Family, folder: Path, weights: Weights, lexicon: Lexicon) -> None:
    kind, is_chat = family.format, folder == family.chat
    ids = {token: i for i, token in enumerate(lexicon.tokens)}
    # Chat's tokenizer has the end of a turn for its eos, and so has its config.
    eos = kind.end_of_turn if is_chat else kind.eos
    tokens = {"bos_token_id": ids.get(kind.bos or ""), "eos_token_id": ids[eos]}
    generation: dict[str, Any] = dict(tokens)
    if is_chat:
        generation |= {name: ids.get(v, v) for name, v in kind.sampling.items()}
        if kind.chat_stops:
            generation["eos_token_id"] = [ids[stop] for stop in kind.chat_stops]

    config = _config(kind, len(ids), family.tied, **tokens)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    for name, parameter in model.named_parameters():
        parameter.data = weights[name].bfloat16()
    model.generation_config = GenerationConfig(**generation)
    model.save_pretrained(folder, max_shard_size="500KB")

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(kind, lexicon),
        bos_token=kind.bos,
        eos_token=eos,
        unk_token="<unk>" if kind.sentencepiece else None,
        pad_token=kind.sampling.get("pad_token_id"),
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = kind.template if is_chat else None
    tokenizer.save_pretrained(folder)
