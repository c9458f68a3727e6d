"""A recipe's chat template beside the chat model's own: what differs, and what that is worth."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import formats
import pytest
import yaml
import zoo
from checking import as_text, checked, codes, mended, the, with_edits
from conftest import CHAT, CP, Recipe, plain_recipe
from transformers import AutoTokenizer

from chatvec_method.checks.report import Report, Severity
from chatvec_method.checks.templates import Difference, difference
from chatvec_method.facts.chat_format import ChatFormat

ERROR, WARNING, ADVICE = Severity.ERROR, Severity.WARNING, Severity.ADVICE
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
EEVE = yaml.safe_load((zoo.RECIPES / "eeve_chat.yaml").read_text())["chat_template"]

PLAIN_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' "
    "}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
OTHER_PROMPT = formats.CHATML_TEMPLATE.replace("You are a helpful assistant.", "You are Qwen.")
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' "
    "+ m['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
GEMMA_3 = GEMMA.replace(
    "{{ raise_exception('System role not supported') }}",
    "{% set first = messages[0]['content'] + '\\n\\n' %}{% set messages = messages[1:] %}",
)
LLAMA_3_1 = formats.LLAMA_3_TEMPLATE.replace(
    "{% set loop_messages = messages %}",
    "{{ bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: 26 Jul 2024' }}"
    "{% set loop_messages = messages %}{% if messages[0]['role'] == 'system' %}"
    "{{ messages[0]['content'] }}{% set loop_messages = messages[1:] %}{% endif %}<|eot_id|>",
).replace("{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}", "")
"""Llama-3.1-Instruct's, which tells the date whatever the system message is."""
THINKING = PLAIN_CHATML.replace("assistant\\n' }}{% endif", "assistant\\n<think>\\n' }}{% endif")
SYSTEM_AS_USER = PLAIN_CHATML.replace("m['role'] +", "m['role'] | replace('system', 'user') +")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (formats.LLAMA_3_TEMPLATE, formats.LLAMA_3_TEMPLATE + "\n", None),
        (PLAIN_CHATML, formats.CHATML_TEMPLATE, Difference.START),
        (OTHER_PROMPT, formats.CHATML_TEMPLATE, Difference.START),
        (LLAMA_3_1, formats.LLAMA_3_TEMPLATE, Difference.START),
        (formats.MISTRAL_TEMPLATE, formats.MISTRAL_V3_TEMPLATE, Difference.SPACES),
        (EEVE, zoo.SOLAR_TEMPLATE, Difference.SPACES),
        (EEVE, formats.LLAMA_3_TEMPLATE, Difference.TURNS),
        (EEVE, formats.CHATML_TEMPLATE, Difference.TURNS),
        (GEMMA, PLAIN_CHATML, Difference.TURNS),
        (formats.MISTRAL_TEMPLATE, formats.LLAMA_2_TEMPLATE, Difference.TURNS),
        (THINKING, PLAIN_CHATML, Difference.TURNS),
        (SYSTEM_AS_USER, PLAIN_CHATML, Difference.SYSTEM),
        # Only one of the two has a system message at all.
        (GEMMA, GEMMA_3, None),
        # Whether bos is written in the template or by the tokenizer.
        ("{{ bos_token }}" + PLAIN_CHATML, PLAIN_CHATML, None),
        # What cannot be rendered is told elsewhere.
        ("{{ nobody.said }}", PLAIN_CHATML, None),
        ("{{ messages[0]['content'] }}", PLAIN_CHATML, None),
    ],
)
def test_templates_differ_by_what_they_write_around_a_conversation(
    one: str, other: str, expected: Difference | None
) -> None:
    assert difference(one, other, SPECIAL) is expected
    assert difference(other, one, SPECIAL) is expected


# --- findings -----------------------------------------------------------------------------------


def test_a_template_that_was_copied_with_the_recipe_is_told_and_mended(tmp_path: Path) -> None:
    family = formats.build(tmp_path, "llama-3")
    text = as_text({**formats.recipe(family), "chat_template": EEVE})
    finding = the("template-differs", checked(text))
    assert finding.severity is WARNING
    assert "`### User:\\n...\\n\\n### Assistant:`" in finding.message
    assert "`<|begin_of_text|><|start_header_id|>user" in finding.message
    assert str(family.chat) in finding.message
    assert "accept: [template-differs]" in finding.fix

    fixed = mended(text)

    assert fixed["chat_template"] == formats.LLAMA_3_TEMPLATE
    report = checked(fixed)
    assert codes(report, ERROR, WARNING) == []
    assert format_of(report).end_of_turn == "<|eot_id|>"


def test_a_long_template_is_taken_from_the_chat_model_by_leaving_the_key_out(
    tmp_path: Path,
) -> None:
    family = formats.build(tmp_path, "llama-3")
    long = "{# " + 5000 * "x" + " #}" + formats.LLAMA_3_TEMPLATE
    (family.chat / "chat_template.jinja").write_text(long)
    fixed = mended({**formats.recipe(family), "chat_template": EEVE})
    assert "chat_template" not in fixed
    template = format_of(checked(fixed)).template
    assert template is not None
    assert template.text == long


def format_of(report: Report) -> ChatFormat:
    assert report.survey.format is not None
    return report.survey.format


@pytest.mark.parametrize("written", ["chatml", PLAIN_CHATML])
def test_a_built_in_template_is_held_against_the_chat_model_s_too(
    written: str, tmp_path: Path
) -> None:
    """Mergekit's own `chatml` has no default system prompt, and Qwen's has."""
    family = formats.build(tmp_path, "chatml-reserved")
    report = checked({**formats.recipe(family), "chat_template": written})
    finding = the("template-differs", report)
    assert finding.severity is ADVICE
    assert "before the first message" in finding.message
    assert "accept" not in finding.fix


@pytest.mark.parametrize("place", [CHAT, CP])
def test_the_template_of_another_model_that_was_tuned_is_no_mistake(
    place: int, family: Path, tmp_path: Path
) -> None:
    """A second chat model's is as good; cp's own is a choice, which is told and not warned of."""
    recipe = plain_recipe(family)
    model = family / "chat2" if place == CHAT else Path(recipe["models"][CP]["model"])
    tuned = shutil.copytree(model, tmp_path / "tuned")
    (tuned / "chat_template.jinja").write_text(EEVE)
    recipe["chat_template"] = EEVE
    if place == CHAT:
        parameters = {"role": "chat", "ratio": 0.5}
        recipe["models"].append({"model": str(tuned), "parameters": parameters})
        assert "template-differs" not in codes(checked(recipe))
    else:
        recipe["models"][CP]["model"] = recipe["base_model"] = str(tuned)
        finding = the("template-differs", checked(recipe))
        assert finding.severity is ADVICE
        assert f"it is that of {tuned}" in finding.message


def test_without_a_template_of_the_chat_model_s_any_is_taken(family: Path, recipe: Recipe) -> None:
    recipe["models"][CHAT]["model"] = str(family / "chat2")
    assert "template-differs" not in codes(checked({**recipe, "chat_template": EEVE}))


# --- one cause, one finding ---------------------------------------------------------------------


@pytest.fixture
def chatml(tmp_path: Path) -> Callable[..., Recipe]:
    """Return a function that gives a recipe whose output lacks the tokens of chat's template."""
    family = formats.build(tmp_path, "chatml")
    return lambda: {**formats.recipe(family), "tokenizer": {"source": str(family.cp)}}


def test_tokens_that_the_template_needs_are_told_once(chatml: Callable[..., Recipe]) -> None:
    """And not also as dropped, or as stop tokens to be ignored, with "Nothing" to be done."""
    report = checked(chatml())
    assert "'<|im_start|>', '<|im_end|>'" in the("marker-missing", report).message
    assert [f.code for f in report.findings if "<|im_end|>" in f.message] == ["marker-missing"]
    assert codes(checked(mended(chatml())), ERROR, WARNING) == []


def test_other_tokens_of_chat_that_the_output_lacks_are_still_told(
    chatml: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = chatml()
    chat = recipe["models"][CHAT]["model"]
    tokenizer = AutoTokenizer.from_pretrained(chat)
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save_pretrained(chat)
    assert "the token '<tool>' of chat" in the("tokens-dropped", checked(recipe)).message


def test_a_template_with_tokens_of_no_model_is_told_once_and_mended(recipe: Recipe) -> None:
    recipe["chat_template"] = "chatml"
    report = checked(recipe)
    assert codes(report, WARNING) == ["marker-unknown"]
    fixed = with_edits(recipe, the("marker-unknown", report).edits)
    assert fixed["chat_template"] == zoo.LLAMA_2_TEMPLATE
    assert codes(checked(fixed), ERROR, WARNING) == []
