"""What is judged by tokens and names: a right merge is not refused, and a wrong one not passed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import zoo
from checking import checked, codes, mended, the, wrong_tensors
from conftest import BASE, CHAT, CP, Merge, Recipe, plain_recipe
from transformers import AutoTokenizer

from chatvec_method.checks.report import Severity

ERROR, WARNING, ADVICE = Severity.ERROR, Severity.WARNING, Severity.ADVICE
ROWS_AT_ZERO = [
    {"filter": "embed_tokens", "value": 0},
    {"filter": "lm_head", "value": 0},
    {"value": 1.0},
]


@pytest.fixture
def copied(family: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """Return a function that gives the plain recipe with a model replaced by a changed copy."""

    def copy(alter: Callable[[Path], None], *places: int, of: Recipe | None = None) -> Recipe:
        recipe = of or plain_recipe(family)
        for place in places:
            entry = recipe["models"][place]
            folder = tmp_path / f"{Path(entry['model']).name}-copy"
            shutil.copytree(entry["model"], folder)
            alter(folder)
            if recipe["base_model"] == entry["model"]:
                recipe["base_model"] = str(folder)
            entry["model"] = str(folder)
        return recipe

    return copy


# --- by position --------------------------------------------------------------------------------


def with_ids(change: Callable[[dict[str, int]], None]) -> Callable[[Path], None]:
    """Change the ids of a model's tokens."""

    def alter(folder: Path) -> None:
        file = folder / "tokenizer.json"
        content = json.loads(file.read_text())
        change(content["model"]["vocab"])
        file.write_text(json.dumps(content))

    return alter


def renamed(old: str, new: str) -> Callable[[dict[str, int]], None]:
    return lambda ids: ids.update({new: ids.pop(old)})


def renamed_and_added_again(ids: dict[str, int]) -> None:
    """As in R1's distillations: other names for special tokens, and the class's own behind all."""
    for old, new in (("▁token1", "<|User|>"), ("▁token2", "<|Assistant|>")):
        ids[new] = ids.pop(old)
    ids["▁token1"] = len(ids)


def exchanged(ids: dict[str, int]) -> None:
    ids["▁token1"], ids["▁token2"] = ids["▁token2"], ids["▁token1"]


@pytest.mark.parametrize("place", [BASE, CHAT])
@pytest.mark.parametrize(
    ("change", "severity"),
    [
        (renamed("▁token1", "<|User|>"), WARNING),
        (renamed_and_added_again, WARNING),
        (exchanged, ERROR),
    ],
)
def test_only_tokens_that_changed_places_are_an_error(
    change: Callable[[dict[str, int]], None],
    severity: Severity,
    place: int,
    copied: Callable[..., Recipe],
) -> None:
    finding = the("vocabulary-order", checked(copied(with_ids(change), place)))
    assert finding.severity is severity


def test_the_order_of_rows_that_do_not_count_is_no_matter(copied: Callable[..., Recipe]) -> None:
    recipe = copied(with_ids(exchanged), CHAT)
    recipe["models"][CHAT]["parameters"]["ratio"] = ROWS_AT_ZERO
    assert "vocabulary-order" not in codes(checked(recipe))


# --- tokenizers that do not load ----------------------------------------------------------------


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


@pytest.mark.parametrize("place", [BASE, CHAT])
@pytest.mark.parametrize("aligned", [False, True], ids=["by position", "by token"])
@pytest.mark.parametrize("ratio", [1.0, ROWS_AT_ZERO], ids=["counts", "does not"])
def test_a_tokenizer_that_is_not_needed_may_be_missing(
    place: int,
    aligned: bool,
    ratio: Any,
    family: Path,
    copied: Callable[..., Recipe],
    merge: Callable[..., Merge],
) -> None:
    recipe = copied(without_tokenizer, place)
    recipe["models"][CHAT]["parameters"]["ratio"] = ratio
    recipe["chat_template"] = zoo.LLAMA_2_TEMPLATE
    if aligned:
        recipe["tokenizer"] = {"source": recipe["base_model"]}
    finding = the("tokenizer-unreadable", checked(recipe))
    if ratio != 1.0:
        assert finding.severity is ADVICE
        whole = plain_recipe(family)
        whole["models"][CHAT]["parameters"]["ratio"] = ratio
        assert wrong_tensors(merge(recipe).out, whole) == []
    else:
        assert finding.severity is (ERROR if aligned else WARNING)
        assert "accept: [tokenizer-unreadable]" in finding.fix


def test_a_stand_in_with_more_tokens_than_rows_is_an_error_that_nobody_can_accept(
    family: Path, copied: Callable[..., Recipe], merge: Callable[..., Merge]
) -> None:
    recipe = copied(without_tokenizer, BASE)
    recipe["models"][CP]["model"] = recipe["base_model"] = str(family / "cp_extended")
    recipe["tokenizer"] = {"source": recipe["base_model"]}
    recipe["models"][CHAT]["parameters"]["ratio"] = ROWS_AT_ZERO
    with pytest.raises(KeyError):
        merge(recipe)
    finding = the("tokenizer-unreadable", checked(recipe))
    assert finding.severity is ERROR
    assert "for which there is no row" in finding.message
    assert "accept" not in finding.fix


@pytest.mark.parametrize("source", [None, "chat"])
def test_without_base_model_s_tokenizer_there_is_no_merge(
    source: str | None, family: Path, copied: Callable[..., Recipe]
) -> None:
    recipe = copied(without_tokenizer, CP)
    if source:
        recipe["tokenizer"] = {"source": str(family / source)}
    finding = the("tokenizer-unreadable", checked(recipe))
    assert finding.severity is ERROR
    assert ("matches tokens by it" if source else "give the output one") in finding.message
    assert "accept" not in finding.fix


# --- tokens without a row -----------------------------------------------------------------------


def with_more_tokens(*tokens: str) -> Callable[[Path], None]:
    """Give a model's tokenizer tokens for which it has no rows."""

    def alter(folder: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens(list(tokens))
        tokenizer.save_pretrained(folder)

    return alter


@pytest.mark.parametrize("donor", [CHAT, CP])
def test_tokens_beyond_the_output_s_rows_are_told_and_left_out(
    donor: int, family: Path, copied: Callable[..., Recipe], merge: Callable[..., Merge]
) -> None:
    recipe = copied(with_more_tokens("<PRE>", "<MID>"), donor)
    recipe["base_model"] = recipe["models"][donor]["model"]
    finding = the("tokens-beyond-rows", checked(recipe))
    assert finding.severity is ERROR
    assert finding.place == recipe["base_model"]
    assert "2 tokens ('<PRE>', '<MID>') beyond the 250 rows" in finding.message
    assert "accept" not in finding.fix

    fixed = mended(recipe)

    assert fixed["tokenizer"] == {"source": "base"}
    assert codes(checked(fixed), ERROR, WARNING) == []
    made = merge(fixed)
    assert wrong_tensors(made.out, plain_recipe(family)) == []
    assert len(AutoTokenizer.from_pretrained(made.out)) == 250


def test_tokens_of_cp_beyond_its_rows_are_left_out_where_rows_go_by_token_too(
    family: Path, copied: Callable[..., Recipe], merge: Callable[..., Merge]
) -> None:
    recipe = copied(with_more_tokens("<PRE>"), CP)
    recipe["base_model"] = recipe["models"][CHAT]["model"]
    recipe["tokenizer"] = {"source": recipe["models"][CP]["model"]}
    finding = the("tokens-beyond-rows", checked(recipe))
    assert finding.place == recipe["models"][CP]["model"]
    fixed = mended(recipe)
    assert fixed["tokenizer"] == {"source": "base"}
    assert fixed["base_model"] == recipe["models"][CP]["model"]
    assert codes(checked(fixed), ERROR, WARNING) == []
    made = merge(fixed)
    assert wrong_tensors(made.out, plain_recipe(family)) == []


def test_tokens_that_only_another_model_has_beyond_its_rows_do_not_matter(
    copied: Callable[..., Recipe],
) -> None:
    recipe = copied(with_more_tokens("<PRE>"), CHAT)
    assert codes(checked(recipe), ERROR, WARNING) == []


# --- names --------------------------------------------------------------------------------------

TEMPLATE = "{% for m in messages %}{{ '<|User|>' + m['content'] + eos_token }}{% endfor %}"


def with_template(template: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "chat_template.jinja").write_text(template) and None


@pytest.fixture
def named(tmp_path: Path) -> Callable[..., Recipe]:
    """Return a function that makes a recipe of models with these names and templates."""

    def make(names: Sequence[str], templates: Sequence[str | None]) -> Recipe:
        kind = zoo.Kind("llama", 1, 32000, torch.bfloat16)
        base, chat, cp = names
        zoo.build_family(tmp_path, dict.fromkeys(names, kind), base=[base], chat=[chat], cp=[cp])
        for name, template in zip(names, templates, strict=True):
            if template:
                with_template(template)(tmp_path / name)
        recipe = plain_recipe(tmp_path)
        for entry, name in zip(recipe["models"], names, strict=True):
            entry["model"] = str(tmp_path / name)
        recipe["base_model"] = str(tmp_path / cp)
        return recipe

    return make


INSTRUCT = zoo.LLAMA_2_TEMPLATE


@pytest.mark.parametrize(
    ("names", "templates", "swapped"),
    [
        # A reasoning vector onto an Instruct model, by its name or by its template.
        (("Math-7B", "R1-Distill-7B", "Math-7B-Instruct"), (None, TEMPLATE, INSTRUCT), False),
        (("Llama-8B", "OpenThinker-8B", "Llama-8B-Instruct"), (None, TEMPLATE, INSTRUCT), False),
        (("Qwen3-8B-Base", "Qwen3-8B-Thinking", "Ko-8B-it"), (INSTRUCT,) * 3, False),
        # The way from an Instruct model to one that reasons, added to another Instruct model.
        (("L-Instruct", "L-Skywork", "Ko-L-Instruct"), (INSTRUCT, INSTRUCT, INSTRUCT), False),
        # The roles are exchanged.
        (("Llama-8B", "Ko-8B", "Llama-8B-Instruct"), (None, None, INSTRUCT), True),
        (("Llama-8B-Instruct", "Ko-8B", "Llama-8B"), (INSTRUCT, None, None), True),
        (("Llama-8B-Instruct", "Llama-8B", "Ko-8B"), (INSTRUCT, None, None), True),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_a_vector_onto_a_chat_model_is_no_exchange_of_roles(
    names: tuple[str, ...],
    templates: tuple[str | None, ...],
    swapped: bool,
    named: Callable[..., Recipe],
) -> None:
    report = checked(named(names, templates))
    assert ("roles-look-swapped" in codes(report)) is swapped
    if swapped:
        assert "accept: [" in next(f.fix for f in report.findings if f.code == "roles-look-swapped")
