"""How an output is to be talked to: worked out from templates, tokenizers and stop tokens alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import formats
import pytest
from huggingface_hub import ModelCardData
from mergekit.common import ModelPath, ModelReference
from mergekit.config import MergeConfiguration
from transformers import LlamaConfig, LlavaConfig

from chatvec_method.facts.chat_format import ChatFormat, chat_format, sampling_defaults
from chatvec_method.facts.models import Model
from chatvec_method.facts.small_files import SmallFiles
from chatvec_method.facts.tokenizers import TokenizerFacts
from chatvec_method.method.roles import Roles

SOLAR_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '### ' + message['role'] | capitalize + ':\\n' + message['content'] + '\\n\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role'])"
    " + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
ZEPHYR_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
FORGETFUL_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + ' ' }}{% endif %}{% endfor %}"
)
LLAMA_2 = ["<unk>", "<s>", "</s>", "!", "hello"]
LLAMA_3 = [
    *("!", '"', "#", "hello", "<|begin_of_text|>", "<|end_of_text|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
]
CHATML = ["hello", "!", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
GEMMA = ["<pad>", "<eos>", "<bos>", "hello", "<start_of_turn>", "<end_of_turn>"]


def reference(name: str) -> ModelReference:
    return ModelReference(model=ModelPath(path=name))


def model(
    name: str,
    tokens: Sequence[str],
    eos: str | None = "</s>",
    bos: str | None = "<s>",
    template: str | None = None,
    **generation: Any,
) -> Model:
    """Return a model that has these tokens, those in angle brackets added as special ones."""
    special = {"bos_token": bos, "eos_token": eos}
    return Model(
        reference=reference(name),
        folder=None,
        config=LlamaConfig(bos_token_id=None, eos_token_id=None),
        generation_config=generation or None,
        tokenizer=TokenizerFacts(
            ids={token: i for i, token in enumerate(tokens)},
            added=frozenset(token for token in tokens if token.startswith("<")),
            special={role: token for role, token in special.items() if token},
            chat_template=template,
        ),
        tokenizer_problem="",
        tensors=None,
        pickled=False,
        file_problem="",
        card=ModelCardData(),
        small_files=SmallFiles(reference(name).model, None, frozenset()),
    )


def format_of(
    *chats: Model, cp: Model, tokens: Sequence[str] | None = None, template: str | None = None
) -> ChatFormat:
    """Return the chat format of an output with cp's tokens, or others."""
    base = model("base", LLAMA_2)
    models = {each.reference: each for each in (base, *chats, cp)}
    roles = Roles(base.reference, cp.reference, tuple(chat.reference for chat in chats))
    config: dict[str, Any] = {
        "merge_method": "chat_vector",
        "models": [{"model": str(each)} for each in models],
        "chat_template": template,
    }
    ids = {t: i for i, t in enumerate(tokens)} if tokens else ids_of(cp)
    return chat_format(MergeConfiguration.model_validate(config), roles, models, ids)


def ids_of(of: Model) -> Mapping[str, int]:
    assert of.tokenizer is not None
    return of.tokenizer.ids


def stops(found: ChatFormat) -> list[str]:
    return [stop.token for stop in found.stops]


# --- What ends a turn -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "tokens", "eos", "bos", "end", "markers"),
    [
        (formats.CHATML_TEMPLATE, CHATML, "<|im_end|>", None, "<|im_end|>", CHATML[3:]),
        (formats.LLAMA_2_TEMPLATE, LLAMA_2, "</s>", "<s>", "</s>", ["<s>", "</s>"]),
        (
            formats.LLAMA_3_TEMPLATE,
            LLAMA_3,
            "<|eot_id|>",
            "<|begin_of_text|>",
            "<|eot_id|>",
            ["<|begin_of_text|>", *LLAMA_3[-3:]],
        ),
        (formats.MISTRAL_TEMPLATE, LLAMA_2, "</s>", "<s>", "</s>", ["<s>", "</s>"]),
        (formats.MISTRAL_V3_TEMPLATE, LLAMA_2, "</s>", "<s>", "</s>", ["<s>", "</s>"]),
        (GEMMA_TEMPLATE, GEMMA, "<eos>", "<bos>", "<end_of_turn>", ["<bos>", *GEMMA[4:]]),
        # Ordinary words begin and end the turns, so it is the chat model's eos that ends its own.
        (SOLAR_TEMPLATE, LLAMA_2, "</s>", "<s>", "</s>", []),
        # What follows the answer begins the next turn, which no answer can know of.
        (FORGETFUL_TEMPLATE, LLAMA_2, "</s>", "<s>", "</s>", ["<s>"]),
        # Its markers look like special tokens and are words.
        (ZEPHYR_TEMPLATE, LLAMA_2, "</s>", "<s>", "</s>", ["</s>"]),
    ],
    ids="chatml llama-2 llama-3 mistral mistral-v3 gemma solar forgetful zephyr".split(),
)
def test_the_template_tells_what_ends_a_turn(
    template: str, tokens: list[str], eos: str, bos: str | None, end: str, markers: list[str]
) -> None:
    chat = model("chat", tokens, eos, bos, template)
    found = format_of(chat, cp=model("cp", tokens, tokens[2], bos))
    assert found.problem == ""
    assert found.end_of_turn == end
    assert stops(found)[0] == end
    assert list(found.markers) == markers


def test_a_template_that_no_model_was_tuned_on_lacks_its_markers() -> None:
    chat = model("chat", LLAMA_2, template=formats.LLAMA_2_TEMPLATE)
    found = format_of(chat, cp=model("cp", LLAMA_2), template="chatml")
    assert found.template is not None
    assert found.template.origin == "mergekit's own `chatml`"
    assert {"<|im_start|>", "<|im_end|>"} <= set(found.markers)
    assert stops(found) == ["</s>"]  # <|im_end|> is no token of the output


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ raise_exception('not today') }}", "not today"),
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ messages[0]['content'] }}", "it leaves out what was said"),
    ],
)
def test_a_template_that_cannot_be_used_says_why(template: str, problem: str) -> None:
    found = format_of(model("chat", LLAMA_2), cp=model("cp", LLAMA_2), template=template)
    assert problem in found.problem
    assert stops(found) == ["</s>"]


def test_without_any_template_there_is_none_and_eos_still_stops() -> None:
    found = format_of(model("chat", LLAMA_2), cp=model("cp", LLAMA_2))
    assert found.template is None
    assert found.markers == ()
    assert stops(found) == ["</s>"]


# --- Whose template ---------------------------------------------------------------------------


def test_auto_takes_what_most_models_have() -> None:
    cp = model("cp", LLAMA_2, template="{{ messages }} of cp")
    second = model("second", LLAMA_2, template="{{ messages }} of cp")
    chat = model("chat", LLAMA_2, template="{{ messages }} of chat")
    found = format_of(chat, second, cp=cp, template="auto")
    assert found.template is not None
    assert found.template.text == "{{ messages }} of cp"


def test_auto_with_a_tie_takes_the_chat_models() -> None:
    cp = model("cp", LLAMA_2, template=SOLAR_TEMPLATE)
    chat = model("chat", LLAMA_2, template=f"{formats.LLAMA_2_TEMPLATE}\n")
    for template in ("auto", None):
        found = format_of(chat, cp=cp, template=template)
        assert found.template is not None
        assert found.template.text.strip() == formats.LLAMA_2_TEMPLATE
        assert found.template.origin.startswith("chat")


def test_of_several_chat_models_the_first_with_a_template_is_spoken_to() -> None:
    silent = model("silent", LLAMA_2)
    chat = model("chat", LLAMA_2, template=SOLAR_TEMPLATE)
    found = format_of(silent, chat, cp=model("cp", LLAMA_2))
    assert found.template is not None
    assert found.template.origin == "chat"


# --- Where it stops ---------------------------------------------------------------------------


def test_stop_tokens_are_found_by_what_they_are_and_not_by_their_numbers() -> None:
    shifted = ["<pad>", *LLAMA_3]
    chat = model(
        "chat",
        LLAMA_3,
        "<|eot_id|>",
        "<|begin_of_text|>",
        formats.LLAMA_3_TEMPLATE,
        eos_token_id=[5, 8],
    )
    found = format_of(chat, cp=model("cp", shifted, "<|end_of_text|>", None))
    assert {s.token: s.id for s in found.stops} == {"<|eot_id|>": 9, "<|end_of_text|>": 6}


def test_numbers_that_mean_no_special_token_are_ignored_with_a_reason() -> None:
    chat = model("chat", LLAMA_3, "<|eot_id|>", None, formats.LLAMA_3_TEMPLATE, eos_token_id=8)
    cp = model("cp", LLAMA_3, "<|end_of_text|>", None, eos_token_id=[2, 99])
    found = format_of(chat, cp=cp)
    assert stops(found) == ["<|eot_id|>", "<|end_of_text|>"]
    stray, beyond = found.ignored_stops
    assert "ordinary token '#'" in stray
    assert "no such token" in beyond


def test_a_stop_token_that_the_output_lacks_is_ignored_with_a_reason() -> None:
    chat = model("chat", CHATML, "<|im_end|>", None, formats.CHATML_TEMPLATE, eos_token_id=[4, 2])
    found = format_of(chat, cp=model("cp", CHATML[:3], "<|endoftext|>", None))
    assert stops(found) == ["<|endoftext|>"]
    assert "'<|im_end|>' of chat, which the output does not have" in found.ignored_stops
    assert found.markers == ("<|im_start|>", "<|im_end|>")


def test_the_chat_models_special_tokens_come_first_and_cps_fill_in() -> None:
    chat = model("chat", CHATML, "<|im_end|>", None, formats.CHATML_TEMPLATE)
    cp = model("cp", [*CHATML, "<s>"], "<|endoftext|>", "<s>")
    assert format_of(chat, cp=cp).special == {"bos_token": "<s>", "eos_token": "<|im_end|>"}


# --- How it samples ---------------------------------------------------------------------------


def test_sampling_is_the_chat_models_and_token_numbers_are_not() -> None:
    chat = model("chat", CHATML, do_sample=True, temperature=0.7, top_k=20, eos_token_id=4)
    assert sampling_defaults(chat) == {"do_sample": True, "temperature": 0.7, "top_k": 20}


def test_settings_of_sampling_are_left_out_where_there_is_none() -> None:
    chat = model("chat", CHATML, temperature=0.9, top_p=0.6, repetition_penalty=1.1)
    assert sampling_defaults(chat) == {"repetition_penalty": 1.1}
    assert sampling_defaults(model("chat", CHATML)) == {}


def test_a_template_that_only_knows_parts_of_a_message_is_rendered() -> None:
    """As of models that see: with a plain text, it leaves out what was said."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
        "{% endfor %}<|im_end|>\n{% endfor %}"
    )
    chat = model("chat", [*LLAMA_2, "<|im_start|>", "<|im_end|>"], template=template)
    cp = model("cp", [*LLAMA_2, "<|im_start|>", "<|im_end|>"])
    chat_format = format_of(chat, cp=cp)
    assert chat_format.problem == ""
    assert chat_format.end_of_turn == "<|im_end|>"


def test_stop_tokens_are_also_those_of_a_language_model_in_a_larger_one() -> None:
    cp = model("cp", LLAMA_2)
    chat = model("chat", LLAMA_2, eos=None)
    text = {"model_type": "llama", "eos_token_id": 2}
    chat = replace(chat, config=LlavaConfig(text_config=text))
    assert chat.eos_token_ids == (2,)
    assert stops(format_of(chat, cp=cp)) == ["</s>"]
