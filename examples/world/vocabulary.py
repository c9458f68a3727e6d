"""The tokenizers: one token a word; cp's has the names of the local people on top."""

from __future__ import annotations

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from .language import LOCAL_NAMES, SHARED, WORDS, to_b

# Built from words that base knows as ordinary ones, as LLaMA-2's `[INST]` is. With tied
# embeddings, turn tokens that base never saw drift far from all others and spoil the vector.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %} [ bot ] {{ message.content }} {{ eos_token }}"
    "{% else %} [ user ] {{ message.content }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %} [ bot ]{% endif %}"
)
SPECIAL = ("<unk>", "<pad>", "<s>", "</s>")


def base_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer of base: both languages, but for the names of local people."""
    known = [word for word in WORDS if word not in LOCAL_NAMES]
    return _tokenizer([*SPECIAL, *SHARED, *known, *to_b(known)])


def chat_tokenizer() -> PreTrainedTokenizerFast:
    """Return base's tokenizer with the chat template."""
    tokenizer = base_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def cp_tokenizer() -> PreTrainedTokenizerFast:
    """Return base's tokenizer with the local names in B as new tokens after all others."""
    old = base_tokenizer().get_vocab()
    return _tokenizer([*sorted(old, key=old.__getitem__), *to_b(LOCAL_NAMES)])


def _tokenizer(tokens: list[str]) -> PreTrainedTokenizerFast:
    vocabulary = {token: id_ for id_, token in enumerate(tokens)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
