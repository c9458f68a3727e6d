"""Recipes of `task_arithmetic` and `linear` that are chat vectors: what they are, is kept."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import oracle
import pytest
import torch
import yaml
from checking import as_text
from click.testing import CliRunner, Result
from conftest import Merge, Recipe
from hypothesis import given, settings
from hypothesis import strategies as st

from chatvec_method.checks.algebra import read_as_chat_vector
from chatvec_method.cli import main
from chatvec_method.errors import ChatVecError
from chatvec_method.recipe.algebra import readings

BY_PART = [{"filter": "mlp", "value": 0.25}, {"filter": "norm", "value": [0.5, 1]}, {"value": 0.5}]


def negative(weight: Any) -> Any:
    if isinstance(weight, list):
        return [negative(each) for each in weight]
    if isinstance(weight, dict):
        return {**weight, "value": negative(weight["value"])}
    return -weight


def written(method: str, base_model: str | None, weights: Mapping[str, Any], **keys: Any) -> Recipe:
    """Return a recipe of one of mergekit's own methods; None is a model without a weight."""
    models = [
        {"model": name, **({} if weight is None else {"parameters": {"weight": weight}})}
        for name, weight in weights.items()
    ]
    donor = {} if base_model is None else {"base_model": base_model}
    return {"merge_method": method, **donor, "models": models, **keys}


def task(base_model: str, weights: Mapping[str, Any], **keys: Any) -> Recipe:
    return written("task_arithmetic", base_model, weights, **keys)


def linear(weights: Mapping[str, Any], base_model: str | None = None, **keys: Any) -> Recipe:
    return written("linear", base_model, weights, **keys)


def in_slices(recipe: Recipe, *ranges: tuple[int, int]) -> Recipe:
    recipe = copy.deepcopy(recipe)
    models = recipe.pop("models")
    slices = [{"sources": [{**m, "layer_range": [*layers]} for m in models]} for layers in ranges]
    return {**recipe, "slices": copy.deepcopy(slices)}


PLAIN = {"cp": 1.0, "chat": 0.5}
FORMS = {
    "on base": task("base", PLAIN),
    "on base, listed": task("base", {"base": None, **PLAIN}),
    "on base, listed with a weight": task("base", {"base": 0.3, **PLAIN}),
    "on base, by part": task("base", {"cp": 1, "chat": BY_PART}),
    "on base, over the depth": task("base", {"cp": [1, 1], "chat": [1.0, 0.5, 0.25]}),
    "on base, two chats": task("base", {"cp": 1, "chat": 0.5, "chat2": [0.25, 0]}),
    "on base, shared weight": task("base", {"cp": 1, "chat": None}, parameters={"weight": 0.5}),
    "on base, lambda": task("base", {"cp": 2, "chat": 0.6}, parameters={"lambda": 0.5}),
    "on base, in slices": in_slices(task("base", {"base": None, **PLAIN}), (0, 2), (2, 3)),
    "on base, in a module": {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "modules": {"default": {"models": task("base", PLAIN)["models"]}},
    },
    "on cp": task("cp", {"chat": 0.5, "base": -0.5}),
    "on cp, by part": task("cp", {"chat": BY_PART, "base": negative(BY_PART)}),
    "on cp, normalised": task("cp", {"chat": 0.5, "base": -0.5}, parameters={"normalize": True}),
    "on cp, lambda": task("cp", {"chat": 1, "base": -1}, parameters={"lambda": 0.7}),
    "on cp, lambda by part": task("cp", {"chat": 1, "base": -1}, parameters={"lambda": BY_PART}),
    "on cp, two chats": task("cp", {"chat": 0.5, "chat2": 0.3, "base": -0.8}),
    "on chat": task("chat", {"cp": 1, "base": -0.5}),
    "on chat, two chats": task("chat", {"cp": 1, "chat2": 0.25, "base": -0.75}),
    "on chat, over the depth": task("chat", {"cp": 1, "base": [-1, -0.5]}),
    "on one that cancels out": task("chat2", {"cp": 1, "chat": 0.5, "base": -0.5}),
    "linear": linear({"cp": 1, "chat": 0.5, "base": -0.5}, parameters={"normalize": False}),
    "linear, normalised": linear({"cp": 1, "chat": 0.5, "base": -0.5}),
    "linear, divided": linear({"cp": 2, "chat": 1, "base": -1}),
    "linear, by part": linear({"base": negative(BY_PART), "chat": BY_PART, "cp": 1}),
    "linear, two chats": linear({"cp": 1, "chat": 0.1, "chat2": 0.2, "base": -0.3}),
    "linear, with a donor": linear({"cp": 1, "chat": 0.5, "base": -0.5}, base_model="chat"),
}


def in_folder(value: Any, folder: Path) -> Any:
    """Return a recipe with the models' short names as paths."""
    if isinstance(value, dict):
        return {key: in_folder(part, folder) for key, part in value.items()}
    if isinstance(value, list):
        return [in_folder(part, folder) for part in value]
    return str(folder / value) if value in ("base", "chat", "chat2", "cp") else value


@pytest.mark.parametrize("form", FORMS)
def test_what_is_a_chat_vector_by_algebra_merges_to_the_same(
    form: str, family: Path, merge: Callable[..., Merge]
) -> None:
    recipe = in_folder({**FORMS[form], "dtype": "float32"}, family)
    text, name = as_text(recipe), "recipe"
    stock = merge(recipe, out="stock")
    assert stock.exit_code == 0, stock.printed

    read, finding = read_as_chat_vector(text, name)

    assert finding is not None
    assert read.config.base_model.model.path in (str(family / "cp"), str(family / "chat"))
    held = {
        entry.model.model.path: entry.parameters["role"]
        for entry in (
            read.config.models
            or (read.config.slices and read.config.slices[0].sources)
            or read.config.modules["default"].models
        )
    }
    chats = {str(family / chat) for chat in ("chat", "chat2") if held.get(str(family / chat))}
    assert held == {
        str(family / "base"): "base",
        str(family / "cp"): "cp",
        **dict.fromkeys(chats, "chat"),
    }
    ours = merge(read.text, out="ours")
    assert ours.exit_code == 0, ours.printed
    before, after = oracle.stored_tensors(stock.out), oracle.stored_tensors(ours.out)
    assert before.keys() == after.keys()
    for tensor, values in before.items():
        torch.testing.assert_close(after[tensor], values, rtol=0, atol=2e-7)


# --- what is not one ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recipe",
    [
        task("base", {"cp": 0.9, "chat": 0.5}),
        task("base", {"cp": 1, "chat": -0.5}, tokenizer={"source": "base"})
        | {"models": [{"model": "cp", "parameters": {"weight": 1}}]},
        task("base", {"cp": [1, 0.5], "chat": 0.5}),
        task("base", PLAIN, parameters={"normalize": True}),
        task("base", {"cp": 1, "chat": None}),
        task("base", {"cp": 1, "chat": [{"filter": "mlp", "value": 1}]}),
        task("cp", {"chat": 0.5, "base": -0.4}),
        task("cp", {"chat": 0.5, "base": 0.5}),
        task("cp", {"chat": [1, 0.5], "base": [-1, -0.5, -0.5]}),
        linear({"cp": 1, "chat": 1, "chat2": 1}),
        linear({"cp": 1, "chat": 0.5, "base": -0.4}, parameters={"normalize": False}),
        linear({"cp": 0.5, "chat": 0.5}),
        {"merge_method": "task_arithmetic", "models": 5},
        {"merge_method": "linear"},
        {"merge_method": "linear", "models": [{"model": "a", "parameters": {"weight": "many"}}]},
        {"merge_method": "ties", "base_model": "base", "models": []},
    ],
    ids=str,
)
def test_what_is_no_chat_vector_is_not_taken_for_one(recipe: Recipe) -> None:
    assert readings(recipe) == []


def test_other_sums_are_refused_as_before(family: Path) -> None:
    text = as_text(in_folder(task("base", {"cp": 0.9, "chat": 0.5}), family))
    with pytest.raises(ChatVecError, match="if it is one by algebra"):
        read_as_chat_vector(text, "recipe")


SETTINGS = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-3, 3) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["filter", "value", "weight", "model"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {"merge_method": st.sampled_from(["task_arithmetic", "linear"])},
        optional={
            "base_model": SETTINGS,
            "models": st.lists(
                st.fixed_dictionaries(
                    {"model": st.sampled_from(["base", "chat", "cp"])},
                    optional={"parameters": st.dictionaries(st.just("weight"), SETTINGS)},
                )
                | SETTINGS,
                max_size=4,
            )
            | SETTINGS,
            "slices": SETTINGS,
            "modules": SETTINGS,
            "parameters": SETTINGS,
        },
    )
)
def test_whatever_is_written_is_read_or_not(raw: dict[str, Any]) -> None:
    for reading in readings(raw):
        assert {reading.cp, reading.base, *reading.chats} <= {"base", "chat", "cp"}


# --- which of two readings ----------------------------------------------------------------------


def test_a_ratio_of_one_can_be_read_in_two_ways() -> None:
    both = {(r.cp, r.chats) for r in readings(task("base", {"cp": 1, "chat": 1}))}
    assert both == {("cp", ("chat",)), ("chat", ("cp",))}


@pytest.mark.parametrize("first", ["cp", "chat"])
@pytest.mark.parametrize("sign", ["template", "name", "tokens", "tokenizer", "donor"])
def test_the_models_tell_which_one_chats(
    first: str, sign: str, family: Path, tmp_path: Path
) -> None:
    names = {"base": "base", "chat": "chat2", "cp": "cp"}  # of which none has a template
    keys: dict[str, Any] = {}
    donor = "base"
    if sign == "template":
        names["chat"] = "chat"
    elif sign == "tokens":
        names["cp"] = "cp_extended"
        keys = {"tokenizer": {"source": "union"}}
    paths = {role: str(family / name) for role, name in names.items()}
    if sign == "name":
        (tmp_path / "Some-7B-Instruct").symlink_to(paths["chat"])
        paths["chat"] = str(tmp_path / "Some-7B-Instruct")
    elif sign == "tokenizer":
        keys = {"tokenizer_source": paths["cp"]}
    elif sign == "donor":
        donor = "cp"
    order = [first, *({"cp", "chat"} - {first})]
    weights = {paths[role]: 1.0 for role in order}
    if sign == "donor":
        weights = {paths["chat"]: 1.0, paths["base"]: -1.0}
    text = as_text(task(paths[donor], weights, **keys))
    read, _ = read_as_chat_vector(text, "recipe")
    roles = {m.model.model.path: m.parameters["role"] for m in read.config.models}
    assert roles == {paths["base"]: "base", paths["chat"]: "chat", paths["cp"]: "cp"}


# --- the command --------------------------------------------------------------------------------


TEXT = """\
# Korean, by task arithmetic.
merge_method: task_arithmetic # from a blog
base_model: {family}/base # the start
models:
  - model: {family}/cp
    parameters:
      weight: 1.0 # all of it
  - model: {family}/chat # the chat model
    parameters:
      weight: 0.5 # half
      density: 1
parameters: {{normalize: false, int8_mask: true}}
chatvec: {{title: Korean}}
tokenizer: {{source: {family}/cp}} # its words
out_dtype: bfloat16 # rounds once
"""


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Result]:
    def run(text: str, *options: str) -> Result:
        (tmp_path / "recipe.yaml").write_text(text)
        return CliRunner().invoke(main, ["check", str(tmp_path / "recipe.yaml"), *options])

    return run


def test_check_offers_it_and_fix_writes_it_with_comments_and_keys(
    family: Path, command: Callable[..., Result]
) -> None:
    text = TEXT.format(family=family)

    offered = command(text, "--json")
    assert offered.exit_code == 1
    data = json.loads(offered.stdout)
    assert [f["code"] for f in data["findings"] if f["severity"] == "error"] == [
        "chat-vector-by-algebra"
    ]
    (message,) = (f["message"] for f in data["findings"] if f["severity"] == "error")
    assert f"{family / 'cp'} + 0.5 · ({family / 'chat'} − {family / 'base'})" in message
    assert f"are then {family / 'cp'}'s, and not {family / 'base'}'s" in message
    assert [model["role"] for model in data["models"]] == ["cp", "chat", "base"]

    fixed = command(text, "--fix")
    assert fixed.exit_code == 0, fixed.output
    for comment in ("# Korean", "# from a blog", "# all of it", "# the chat model", "# half"):
        assert comment in fixed.stdout
    for comment in ("# the start", "# its words", "# rounds once"):
        assert comment in fixed.stdout
    path = str(family)
    assert yaml.safe_load(fixed.stdout) == {
        "merge_method": "chat_vector",
        "base_model": f"{path}/cp",
        "models": [
            {"model": f"{path}/cp", "parameters": {"role": "cp"}},
            {"model": f"{path}/chat", "parameters": {"ratio": 0.5, "role": "chat"}},
            {"model": f"{path}/base", "parameters": {"role": "base"}},
        ],
        "chatvec": {"title": "Korean"},
        "tokenizer": {"source": f"{path}/cp"},
        "out_dtype": "bfloat16",
    }
    assert command(fixed.stdout).exit_code == 0


def test_what_is_wrong_with_the_chat_vector_is_mended_too(
    family: Path, command: Callable[..., Result]
) -> None:
    text = TEXT.format(family=family).replace("/cp", "/cp_extended")
    text = text.replace("tokenizer: {", "tokeniser: {")
    fixed = command(text, "--fix")
    assert fixed.exit_code == 0, fixed.output
    assert yaml.safe_load(fixed.stdout)["tokenizer"] == {"source": f"{family}/cp_extended"}


def test_a_merge_of_it_says_where_to_look(family: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(TEXT.format(family=family))
    arguments = ["merge", str(tmp_path / "recipe.yaml"), str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "`chatvec check --fix` writes it" in result.output


def test_aliases_that_cannot_be_changed_are_told(family: Path, command: Any) -> None:
    weight = {"weight": 1.0}
    recipe = in_folder(task("base", {"cp": None, "chat": None}), family)
    for entry in recipe["models"]:
        entry["parameters"] = weight
    text = yaml.safe_dump(recipe)
    assert "*id" in text
    result = command(text)
    assert result.exit_code == 1
    assert "is a chat vector" in result.stderr
    assert "by hand" in result.stderr
