"""`chatvec new`: from the names of a recipe's models to a recipe as good as that, or better."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import formats
import jsonschema
import pytest
import torch
import yaml
import zoo
from catalogue import SECTIONS, opening_comment, schema
from checking import checked, codes
from conftest import ROOT, Recipe
from safetensors.torch import load_file
from surveying import ready
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import chatvec_method
from chatvec_method import ChatVecError
from chatvec_method.checks.findings import Severity
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.merging.streaming import stream_weights
from chatvec_method.weights.reading import Reader

BETTER = {
    "breeze": "rows that only pad are lost",
    "chinese_llama2": "out_dtype: float16 # that of cp's weights",
    "gemma2_baku": "hardly trained",
    "openbio_ko": "hardly trained",
    "youko_half": "hardly trained",
}
"""Where a new recipe does better than that of the catalogue, and what it says of that."""
ONE_STEP = 2**-8
"""How far numbers may be apart that were rounded to bfloat16 and to float16."""


def roles(recipe: Recipe, role: str) -> list[dict[str, Any]]:
    return [entry for entry in recipe["models"] if entry["parameters"]["role"] == role]


def new_of(recipe: Recipe) -> chatvec_method.Recipe:
    """Return a new recipe of another's models, with its ratios."""
    chats = roles(recipe, "chat")
    return chatvec_method.new_recipe(
        roles(recipe, "cp")[0]["model"],
        chat=[chat["model"] for chat in chats],
        base=roles(recipe, "base")[0]["model"],
        ratio=tuple(chat["parameters"]["ratio"] for chat in chats),
    )


def merged(survey: ReadySurvey, folder: Path) -> dict[str, Tensor]:
    """Return the tensors that a merge writes, their rows by token in place of their numbers."""
    folder.mkdir()
    stream_weights(survey, folder, Reader(survey.plan.checkpoints), lambda _: None)
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def rows_by_token(survey: ReadySurvey, name: str, tensor: Tensor) -> Mapping[str, Tensor]:
    axes = {t.name: t.weight.vocabulary_axis for t in survey.plan.tensors}
    if axes[name] is None:
        return {name: tensor}
    return {token: tensor[row] for token, row in survey.tokens.items()}


FILES = [*zoo.MODEL_RECIPES, zoo.RECIPES / "world.yaml"]
"""For the others, see `recipes/test_by_chatvec.py`."""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_its_merge_is_that_of_the_catalogues_recipe_or_better_with_the_reason_in_it(
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    merged_by_stock: Callable[[Path], Path],
) -> None:
    text = file.read_text(encoding="utf-8")
    monkeypatch.chdir(ROOT if file.stem == "world" else merged_by_stock(file))

    new = new_of(yaml.safe_load(text))

    assert codes(checked(new.text), Severity.ERROR, Severity.WARNING) == []
    jsonschema.validate(new.raw, schema())
    (tmp_path / "new.yaml").write_text(new.text, encoding="utf-8")
    assert list(opening_comment(tmp_path / "new.yaml")) == SECTIONS
    flat = " ".join(line.strip("# ") for line in new.text.splitlines())
    better = BETTER.get(file.stem)
    assert better is None or better in flat or better in new.text
    ours, theirs = ready(new.text), ready(text)
    marked = set((new.raw.get("tokenizer") or {}).get("tokens", {})) if better else set()
    expected, output = merged(theirs, tmp_path / "theirs"), merged(ours, tmp_path / "ours")
    assert output.keys() == expected.keys()
    for name, tensor in output.items():
        rows = rows_by_token(ours, name, tensor)
        others = rows_by_token(theirs, name, expected[name])
        assert rows.keys() == others.keys()
        for token in rows.keys() - marked:
            row, other = rows[token], others[token]
            if row.dtype == other.dtype:
                assert torch.equal(row, other), f"{name}, {token}"
            else:
                assert better, f"{name} is {row.dtype}"
                assert torch.allclose(row.float(), other.float(), rtol=ONE_STEP, atol=1e-6)


def named(folder: Path) -> dict[str, str]:
    return {role: str(folder / role) for role in ("base", "chat", "cp")}


def test_markers_that_cp_lacks_get_the_chat_models_rows(family: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(family / "chat")
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] "
        "+ '<|im_end|>\n' }}{% endfor %}"
    )
    model = AutoModelForCausalLM.from_pretrained(family / "chat")
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(tmp_path / "chat")
    tokenizer.save_pretrained(tmp_path / "chat")

    chat = str(tmp_path / "chat")
    new = chatvec_method.new_recipe(str(family / "cp"), chat=chat, base=str(family / "base"))

    row = {"source": chat, "force": True}
    assert new.raw["tokenizer"]["tokens"] == {"<|im_start|>": row, "<|im_end|>": row}
    assert new.raw["base_model"] == str(family / "cp")
    assert new.raw["chat_template"] == "auto"
    assert codes(checked(new.text), Severity.ERROR, Severity.WARNING) == []


def test_every_key_that_is_a_choice_has_a_reason(family: Path) -> None:
    names = named(family)
    text = chatvec_method.new_recipe(
        str(family / "cp_extended"), chat=names["chat"], base=names["base"]
    ).text
    for key in ("base_model", "tokenizer", "chat_template", "out_dtype"):
        assert re.search(rf"(^# [^\n]+\n{key}:|^{key}:[^\n]* # )", text, re.MULTILINE), key


def test_a_schedule_takes_the_place_of_the_ratio(family: Path) -> None:
    names = named(family)
    new = chatvec_method.new_recipe(
        names["cp"], chat=names["chat"], base=names["base"], schedule="linear:1:0.2"
    )
    assert codes(checked(new.text), Severity.ERROR, Severity.WARNING) == []
    plan = ready(new.text).plan
    (chat,) = plan.roles.chats
    ratios = {t.layer: t.ratios[chat] for t in plan.tensors if t.kind == "MLP"}
    assert ratios == pytest.approx({0: 1.0, 1: 0.6, 2: 0.2})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"cp": "missing"}, "missing"),
        ({"ratio": (1.0, 0.5)}, "there are 2 ratios for 1 chat models"),
        ({"chat": "base"}, "is listed twice, but base, chat and cp are different models"),
        ({"schedule": "circle"}, "circle"),
        ({"base": None}, "`--base owner/name`"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_right_is_one_message(
    family: Path, changes: dict[str, Any], told: str
) -> None:
    arguments: dict[str, Any] = {**named(family), **changes}
    if arguments["chat"] == "base":
        arguments["chat"] = arguments["base"]
    with pytest.raises(ChatVecError, match=re.escape(told)):
        chatvec_method.new_recipe(arguments.pop("cp"), **arguments)


def test_another_language_is_what_cps_card_says_or_what_one_says(family: Path) -> None:
    names = named(family)
    new = chatvec_method.new_recipe(
        names["cp"], chat=names["chat"], base=names["base"], language="ko"
    )
    assert new.raw["chatvec"]["language"] == "ko"


# --- chat vectors as files ------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["chatml", "chatml-reserved", "llama-3"])
def test_of_a_vector_it_is_as_good_as_of_base_and_chat(format: str, tmp_path: Path) -> None:
    family = formats.build(tmp_path / "models", format, extended=True)
    base, chat, cp = (str(family.folder / name) for name in ("base", "chat", "cp"))
    vector = str(tmp_path / "vector")
    chatvec_method.extract_vector(base, chat, vector, bits=32)
    pair = chatvec_method.new_recipe(cp, chat=chat, base=base)
    own = chatvec_method.new_recipe(cp, vector=vector)
    assert "role: vector" in own.text
    assert not [f for f in chatvec_method.check(own).findings if f.severity != Severity.ADVICE]
    jsonschema.validate(yaml.safe_load(own.text), schema())
    ours, theirs = (
        merged(ready(recipe.raw), tmp_path / n) for n, recipe in (("a", own), ("b", pair))
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_vectors_stand_beside_chat_models(family: Path, tmp_path: Path) -> None:
    vector = str(tmp_path / "vector")
    chatvec_method.extract_vector(family / "base", family / "chat2", vector)
    new = chatvec_method.new_recipe(
        str(family / "cp"),
        chat=str(family / "chat"),
        base=str(family / "base"),
        vector=vector,
        ratio=(0.7, 0.3),
    )
    held = [(e["parameters"]["role"], e["parameters"].get("ratio")) for e in new.raw["models"]]
    assert held == [("base", None), ("chat", 0.7), ("vector", 0.3), ("cp", None)]
    assert new.raw["chatvec"]["licences"].keys() == {"base", "chat", "vector", "cp"}
