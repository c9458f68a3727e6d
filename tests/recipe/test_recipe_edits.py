"""Changes to a recipe's text: what is asked for changes, and every other character stays."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import MODEL_RECIPES

from chatvec_method.errors import ChatVecError
from chatvec_method.recipe.edits import Edit, edited

TEXT = """\
# a recipe
merge_method: chat_vector # the method
base_model: a/cp

models:
  - model: a/base # first
    parameters: {role: base}
  - model: a/chat
    parameters:
      role: chat
      ratio:
        # why so
        - {filter: mlp, value: [0.1, # early
            0.2]}
        - filter: self_attn
          value: 0.5 # half

        - {value: 1.0} # the rest

tokeniser: {source: a/cp, tokens: {"<x>": {source: a/chat}}} # misspelled
chat_template: |-
  {{ a }}
  {{ b }}

out_dtype: bfloat16
"""
RATIO = ("models", 1, "parameters", "ratio")


@pytest.mark.parametrize(
    ("edit", "old", "new"),
    [
        (Edit(("base_model",), "a/chat"), "base_model: a/cp", "base_model: a/chat"),
        (Edit(("tokeniser",), rename="tokenizer"), "tokeniser:", "tokenizer:"),
        (
            Edit(("tokeniser", "pad_to_multiple_of"), 64),
            "{source: a/chat}}}",
            "{source: a/chat}}, pad_to_multiple_of: 64}",
        ),
        (
            Edit(("tokeniser", "tokens", "<|y|>"), {"source": "a/chat", "force": True}),
            "{source: a/chat}}}",
            '{source: a/chat}, "<|y|>": {source: a/chat, force: true}}}',
        ),
        (Edit((*RATIO, 1, "value"), 0.25), "value: 0.5 #", "value: 0.25 #"),
        (Edit((*RATIO, 1, "filter"), "layers.1."), "filter: self_attn", "filter: layers.1."),
        (
            Edit((*RATIO, 1), {"value": 0.5}, insert=True),
            "        - filter: self_attn",
            "        - {value: 0.5}\n        - filter: self_attn",
        ),
        (
            Edit((*RATIO, 1), remove=True),
            "        - filter: self_attn\n          value: 0.5 # half\n",
            "",
        ),
        (Edit((*RATIO, 2), remove=True), "        - {value: 1.0} # the rest\n", ""),
        (Edit((*RATIO, 0, "filter"), remove=True), "filter: mlp, value", "value"),
        (Edit((*RATIO, 1, "filter"), remove=True), "filter: self_attn\n          value", "value"),
        (
            Edit(("tokeniser", "tokens"), remove=True),
            ', tokens: {"<x>": {source: a/chat}}',
            "",
        ),
        (Edit(("out_dtype",), remove=True), "out_dtype: bfloat16\n", ""),
        (
            Edit(("chat_template",), "{{ c }}\n\n  {{ d }}"),
            "  {{ a }}\n  {{ b }}\n",
            "  {{ c }}\n\n    {{ d }}\n",
        ),
        (
            Edit(("models", 0, "parameters", "role"), "cp"),
            "parameters: {role: base}",
            "parameters: {role: cp}",
        ),
        (
            Edit(("dtype", "deep", "er"), [1, None, True, "no", "1e3", ""]),
            "out_dtype: bfloat16\n",
            'out_dtype: bfloat16\ndtype: {deep: {er: [1, null, true, "no", "1e3", ""]}}\n',
        ),
        (
            Edit(RATIO, [{"filter": "mlp", "value": [0, 1]}, {"value": 1}]),
            TEXT[TEXT.index("        - {filter: mlp") : TEXT.index(" # the rest")],
            "        - {filter: mlp, value: [0, 1]}\n        - {value: 1}",
        ),
        (
            Edit(RATIO, 0.5),
            TEXT[TEXT.index("        - {filter: mlp") : TEXT.index(" # the rest")],
            "        0.5",
        ),
        (
            Edit(("base_model",), [{"a": 1}, {"b": 2}]),
            "base_model: a/cp\n",
            "base_model:\n  - {a: 1}\n  - {b: 2}\n",
        ),
        (
            Edit(("parameters", "ratio"), [{"filter": "mlp", "value": 0}]),
            "out_dtype: bfloat16\n",
            "out_dtype: bfloat16\nparameters: {ratio: [{filter: mlp, value: 0}]}\n",
        ),
        (
            Edit(("models", 1, "parameters", "extra"), [{"filter": "mlp", "value": 0}]),
            " # the rest\n",
            " # the rest\n      extra:\n        - {filter: mlp, value: 0}\n",
        ),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value)[:60],
)
def test_only_what_is_asked_for_changes(edit: Edit, old: str, new: str) -> None:
    assert TEXT.count(old) == 1
    assert edited(TEXT, [edit]) == TEXT.replace(old, new)


def test_edits_follow_one_another() -> None:
    edits = [
        Edit(("tokeniser",), rename="tokenizer"),
        Edit(("tokenizer", "source"), "a/chat"),
        Edit((*RATIO, 0), remove=True),
        Edit((*RATIO, 0, "value"), 0.75),
    ]
    result = yaml.safe_load(edited(TEXT, edits))
    assert result["tokenizer"]["source"] == "a/chat"
    ratio = result["models"][1]["parameters"]["ratio"]
    assert ratio == [{"filter": "self_attn", "value": 0.75}, {"value": 1.0}]


def test_a_removed_last_entry_leaves_an_empty_collection() -> None:
    assert yaml.safe_load(edited("a: {b: 1}\n", [Edit(("a", "b"), remove=True)])) == {"a": {}}
    assert yaml.safe_load(edited("a:\n  - 1\nc: 2\n", [Edit(("a", 0), remove=True)])) == {
        "a": [],
        "c": 2,
    }


KEYS = st.sampled_from(["a", "ratio", "<|x|>", "이", "1", "on"])
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=6),
    st.sampled_from(["two\nlines", "a: b", "# no", "{{ x }}\n  y\n", "-", "1e3"]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def texts_and_edits(draw: st.DrawFn) -> tuple[str, Edit]:
    """Draw a document in one of YAML's styles, and an edit of something in it."""
    document = draw(st.dictionaries(KEYS, VALUES, min_size=1, max_size=4))
    flow = draw(st.sampled_from([None, True, False]))
    text = yaml.safe_dump(document, default_flow_style=flow, allow_unicode=True)
    place: Any = document
    path: list[str | int] = []
    while isinstance(place, (dict, list)) and place and (not path or draw(st.booleans())):
        path.append(
            draw(st.sampled_from([*place] if isinstance(place, dict) else range(len(place))))
        )
        place = place[path[-1]]
    if draw(st.booleans()):
        return f"# above\n{text}# below\n", Edit(tuple(path), draw(VALUES))
    if isinstance(path[-1], str) and draw(st.booleans()):
        return text, Edit(tuple(path), rename="renamed")
    if isinstance(path[-1], int) and draw(st.booleans()):
        return text, Edit(tuple(path), draw(VALUES), insert=True)
    return text, Edit(tuple(path), remove=True)


@settings(max_examples=300, deadline=None)
@given(texts_and_edits())
def test_any_edit_of_any_document_is_made_or_refused(drawn: tuple[str, Edit]) -> None:
    text, edit = drawn
    try:
        after = edited(text, [edit])
    except ChatVecError:
        return
    assert after.startswith("# above\n") == text.startswith("# above\n")
    assert after.endswith("# below\n") == text.endswith("# below\n")
    parent: Any = yaml.safe_load(after)
    for key in edit.path[:-1]:
        parent = parent[key]
    last: Any = edit.path[-1]
    if edit.rename:
        assert "renamed" in parent
    elif edit.remove:
        assert len(parent) == 0 or isinstance(parent, list) or last not in parent
    else:
        assert parent[last] == edit.value


def test_shared_recipes_take_an_edit_and_keep_every_other_line() -> None:
    for file in MODEL_RECIPES:
        text = file.read_text(encoding="utf-8")
        lines = edited(text, [Edit(("out_dtype",), "float32")]).splitlines()
        different = [a for a, b in zip(text.splitlines(), lines, strict=True) if a != b]
        assert len(different) == 1, file


@pytest.mark.parametrize("value", [0.5, [0.5, 1.0], [{"filter": "mlp", "value": 0}, {"value": 1}]])
@pytest.mark.parametrize(
    "text", ["x:\n- 1\n- 2 # two\ny: 1\n", "x:\n  - 1\n  - 2\ny: 1\n", "x: 1\n"]
)
def test_a_list_is_replaced_however_it_is_indented(text: str, value: Any) -> None:
    after = yaml.safe_load(edited(text, [Edit(("x",), value)]))
    assert after == {**yaml.safe_load(text), "x": value}


def test_what_cannot_be_changed_safely_is_refused() -> None:
    text = "a: &x {b: 1}\nc: *x\n"
    with pytest.raises(ChatVecError, match="by hand"):
        edited(text, [Edit(("c", "b"), 2)])
