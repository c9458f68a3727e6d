"""Commits written into a recipe: in every place where a model is named, and nowhere else."""

from __future__ import annotations

import yaml

from chatvec_method.recipe.pins import commits_in, model_names, pinned

ONE, OTHER = "1" * 40, "2" * 40
TEXT = """\
# o/cp stays in comments
chatvec: {gated: [o/cp], source: o/cp}
merge_method: chat_vector
base_model: o/cp
models:
  - model: o/base+o/lora
    parameters: {role: base}
  - {model: o/chat@v1, parameters: {role: chat, ratio: 1.0}} # o/chat
  - model: o/cp
    parameters: {role: cp}
tokenizer:
  source: o/cp
  tokens:
    "<|a|>": {source: {kind: model_token, model: o/chat@v1, token: b}}
    "<|c|>": {source: o/chat@v1, force: true}
chat_template: o/cp
"""
COMMITS = {"o/cp": ONE, "o/base": ONE, "o/lora": OTHER, "o/chat@v1": OTHER}


def test_a_commit_is_written_wherever_its_model_is_named() -> None:
    text = pinned(TEXT, COMMITS)
    raw = yaml.safe_load(text)
    named = {name for _, name in model_names(raw)}
    assert named == {f"o/cp@{ONE}", f"o/base@{ONE}+o/lora@{OTHER}", f"o/chat@{OTHER}"}
    assert raw["chatvec"] == {"gated": ["o/cp"], "source": "o/cp"}
    assert raw["chat_template"] == "o/cp"
    assert text.startswith("# o/cp stays in comments\n")
    assert commits_in(raw) == {"o/cp": ONE, "o/base": ONE, "o/lora": OTHER, "o/chat": OTHER}


def test_what_has_no_commit_stays_as_it_is() -> None:
    assert pinned(TEXT, {}) == TEXT
    assert pinned(pinned(TEXT, COMMITS), COMMITS) == pinned(TEXT, COMMITS)


def test_base_and_union_are_no_models() -> None:
    text = TEXT.replace("source: o/cp\n", "source: base\n")
    assert yaml.safe_load(pinned(text, {**COMMITS, "base": ONE}))["tokenizer"]["source"] == "base"
