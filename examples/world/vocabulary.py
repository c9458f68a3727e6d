"""The tokenizers: one token a word; cp's has the names of the local people on top.

There are two chat formats. The first is made of words that base knows as ordinary ones, as
LLaMA-2's `[INST]` is. The second has tokens of its own, as ChatML and Llama 3 have, which base and
cp lack: a merge has to take them, and what stops an answer, from chat.
"""

from __future__ import annotations

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from .language import LOCAL_NAMES, SHARED, WORDS, to_b

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %} [ bot ] {{ message.content }} {{ eos_token }}"
    "{% else %} [ user ] {{ message.content }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %} [ bot ]{% endif %}"
)
TURN_TOKENS_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %} <|bot|>{% else %} <|user|>{% endif %}"
    " {{ message.content }} <|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %} <|bot|>{% endif %}"
)
SPECIAL = ("<unk>", "<pad>", "<s>", "</s>")
TURN_TOKENS = {"<|user|>": "user", "<|bot|>": "bot", "<|end|>": "</s>"}
"""The tokens of the second chat format, and the old token whose row each begins with.

From a row of its own kind, a new token is trained in as few steps as the old ones are. Rows that
begin at the mean of all others take three times as many before a merge stops (docs/world.md).
"""


def base_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer of base: both languages, but for the names of local people."""
    words = [word for word in WORDS if word not in LOCAL_NAMES]
    return _tokenizer([*SPECIAL, *SHARED, *words, *to_b(words)])


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """Return base's tokenizer with the chat template of ordinary words."""
    return _with_template(base_tokenizer(), CHAT_TEMPLATE)


def turn_token_tokenizer() -> PreTrainedTokenizerFast:
    """Return base's tokenizer with turn tokens after all others, and the template of them."""
    tokenizer = _extended(list(TURN_TOKENS), eos_token="<|end|>")
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(TURN_TOKENS)[:-1]}, replace_extra_special_tokens=True
    )
    return _with_template(tokenizer, TURN_TOKENS_TEMPLATE)


def cp_tokenizer() -> PreTrainedTokenizerFast:
    """Return base's tokenizer with the local names in B as new tokens after all others."""
    return _extended(to_b(LOCAL_NAMES))


def cp_chat_tokenizer() -> PreTrainedTokenizerFast:
    """Return cp's tokenizer with the chat template of ordinary words."""
    return _with_template(cp_tokenizer(), CHAT_TEMPLATE)


def _with_template(tokenizer: PreTrainedTokenizerFast, template: str) -> PreTrainedTokenizerFast:
    tokenizer.chat_template = template
    return tokenizer


def _extended(tokens: list[str], eos_token: str = "</s>") -> PreTrainedTokenizerFast:
    old = base_tokenizer().get_vocab()
    return _tokenizer([*sorted(old, key=old.__getitem__), *tokens], eos_token)


def _tokenizer(tokens: list[str], eos_token: str = "</s>") -> PreTrainedTokenizerFast:
    vocabulary = {token: id_ for id_, token in enumerate(tokens)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token=eos_token,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
