"""The model card: metadata that the hub takes, and what a person wants to know of a merge."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
import zoo
from conftest import CHAT, CP, ROOT, Recipe
from huggingface_hub import ModelCard
from mergekit.options import MergeOptions
from surveying import ready as surveyed

import chatvec_method.finishing.finish as finish_module
from chatvec_method.errors import ChatVecError, ChatVecWarning
from chatvec_method.facts.survey import ReadySurvey, survey
from chatvec_method.finishing.card import date_of, model_card
from chatvec_method.merging.merge import merge
from chatvec_method.pictures.ratios import ratio_picture
from chatvec_method.pictures.style import new_figure, style
from chatvec_method.recipe.file import read_recipe

DAY = "2025-01-31"


def card_of(recipe: Recipe | str) -> ModelCard:
    return ModelCard(model_card(as_of_hub(surveyed(recipe)), "my-model", DAY))


def as_of_hub(survey: ReadySurvey) -> ReadySurvey:
    """Return a survey as it is where models with names of the hub have come from there."""
    models = {
        reference: model
        if Path(reference.model.path).is_absolute()
        else replace(model, commit="0" * 40)
        for reference, model in survey.models.items()
    }
    return replace(survey, models=models)


def picture_of(recipe: Recipe) -> bytes:
    plan = surveyed(recipe).plan
    assert plan is not None
    return ratio_picture(plan)


def rows(card: ModelCard, header: str) -> list[list[str]]:
    """Return the cells of the table that begins with a header's first cell."""
    lines = card.text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {header} |"))
    end = next(i for i, line in enumerate(lines[start:], start) if not line.startswith("|"))
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines[start + 2 : end]]
    return [[cell.strip().replace("\\|", "|") for cell in row] for row in cells]


@pytest.fixture
def named(tmp_path: Path, family: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Return a recipe whose models have names as on the hub, and folders of these names."""
    names = {"base": "meta/base", "chat": "meta/chat", "cp": "beomi/cp-ko"}
    for name, path in names.items():
        (tmp_path / path).mkdir(parents=True)
        for file in (family / name).iterdir():
            shutil.copy(file, tmp_path / path)
    monkeypatch.chdir(tmp_path)
    models: list[dict[str, Any]] = [
        {"model": path, "parameters": {"role": role}} for role, path in names.items()
    ]
    models[CHAT]["parameters"]["ratio"] = 0.5
    return {"merge_method": "chat_vector", "base_model": "beomi/cp-ko", "models": models}


def describe(model: str, **metadata: Any) -> None:
    """Give a model a card."""
    Path(model, "README.md").write_text(f"---\n{yaml.safe_dump(metadata)}---\n# {model}\n")


def test_the_metadata_says_what_the_hub_asks(named: Recipe) -> None:
    data = card_of(named).data
    assert data.base_model == ["beomi/cp-ko", "meta/chat", "meta/base"]
    assert data["base_model_relation"] == "merge"
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-generation"
    assert data.tags == ["mergekit", "merge", "chat-vector", "conversational"]


def test_folders_are_named_in_the_text_and_no_base_models_on_the_hub(
    recipe: Recipe, family: Path
) -> None:
    card = card_of(recipe)
    assert "base_model" not in card.data.to_dict()
    assert "base_model_relation" not in card.data.to_dict()
    assert [row[1] for row in rows(card, "role")] == [
        f"`{family / name}`" for name in ("cp", "chat", "base")
    ]


def test_a_licence_that_all_models_share_is_the_merges(named: Recipe) -> None:
    for model in named["models"]:
        describe(model["model"], license="llama3")
    card = card_of(named)
    assert card.data.license == "llama3"
    assert "The licence of all of them is llama3" in card.text


def test_different_licences_are_all_named(named: Recipe) -> None:
    describe("meta/base", license="apache-2.0")
    describe("meta/chat", license="cc-by-nc-4.0")
    describe("beomi/cp-ko", license="other", license_name="My Licence", license_link="LICENSE")
    card = card_of(named)
    assert card.data.license == "other"
    assert card.data.license_name == "my-licence-and-cc-by-nc-4.0-and-apache-2.0"
    assert card.data.license_link is None  # the file is in cp's repository, not here
    licences = {row[0]: row[2] for row in rows(card, "role")}
    assert licences == {"cp": "My Licence", "chat": "cc-by-nc-4.0", "base": "apache-2.0"}


def test_the_recipe_tells_licences_that_cards_do_not_and_without_both_none_is_claimed(
    named: Recipe,
) -> None:
    assert card_of(named).data.license is None
    licences = {"base": "llama3", "chat": ["llama3"], "cp": "llama3"}
    assert card_of({**named, "chatvec": {"licences": licences}}).data.license == "llama3"


def test_languages_are_the_recipes_and_then_the_models(named: Recipe) -> None:
    describe("meta/chat", language="en")
    describe("beomi/cp-ko", language=["ko", False])  # YAML's way of reading Norwegian's `no`
    card = card_of({**named, "chatvec": {"language": "art-x-world"}})
    assert card.data.language == ["ko", "no", "en"]
    assert card.data["language_bcp47"] == ["art-x-world"]  # no ISO code, which the hub refuses
    assert rows(card, "role")[0][-1] == "ko, no"


def test_the_ratio_table_of_per_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ROOT / "recipes" / "per_layer.yaml"
    zoo.build(tmp_path, yaml.safe_load(file.read_text(encoding="utf-8")))
    monkeypatch.chdir(tmp_path)
    found = survey(read_recipe(file), MergeOptions())
    card = ModelCard(model_card(found, "out", DAY))
    table = {row[0]: row[1:] for row in rows(card, "layers")}
    assert len(table) == 48
    assert table["0"] == ["1", "0.4", "1"]
    assert table["24"] == ["0.9", "0.987", "1"]
    assert table["47"] == ["0.6", "0.4", "1"]
    assert "Outside the layers: embeddings 0.5, final norm 1, head 0.5." in card.text
    assert card.data.license_name == "apache-2.0-and-cc-by-nc-4.0"
    assert card.data.language == ["ko"]
    assert found.recipe.text.strip() in card.text


def test_layers_with_the_same_ratios_share_a_row(recipe: Recipe) -> None:
    recipe["models"][CHAT]["parameters"]["ratio"] = [
        {"filter": "layers.2.mlp", "value": 0},
        {"filter": "o_proj", "value": 0.25},
        {"value": 1.0},
    ]
    assert rows(card_of(recipe), "layers") == [
        ["0–1", "1 and 0.25", "1", "1"],
        ["2", "1 and 0.25", "0", "1"],
    ]


def test_each_chat_vector_has_its_own_table(recipe: Recipe, family: Path) -> None:
    second = {"model": str(family / "chat2"), "parameters": {"role": "chat", "ratio": 0.25}}
    recipe["models"].append(second)
    card = card_of(recipe)
    assert "ratio_1 · (θ_chat_1 − θ_base) + ratio_2 · (θ_chat_2 − θ_base)" in card.text
    assert "| 0–2 | 1 | 1 | 1 |" in card.text
    assert "| 0–2 | 0.25 | 0.25 | 0.25 |" in card.text
    assert [row[0] for row in rows(card, "role")] == ["cp", "chat 1", "chat 2", "base"]


def test_it_tells_how_the_model_chats_and_where_it_stops(recipe: Recipe, family: Path) -> None:
    recipe["base_model"] = recipe["models"][CP]["model"] = str(family / "cp_extended")
    recipe["tokenizer"] = {"source": str(family / "cp_extended")}
    card = card_of(recipe)
    assert f"The chat template comes from {family / 'chat'}." in card.text
    stops = rows(card, "token")
    assert [row[:2] for row in stops] == [["`</s>`", "2"], ["`<|im_end|>`", "250"]]
    assert "`<\\|im_end\\|>`" in card.text  # or the table would have too many cells
    assert 'name = "my-model"' in card.text


def test_a_recipe_with_code_blocks_of_its_own_stays_one_block(recipe: Recipe) -> None:
    text = f"# ```\n# not a fence\n# ```\n{yaml.safe_dump(recipe)}"
    card = card_of(text)
    assert f"````yaml\n{text.strip()}\n````" in card.text


def test_what_looks_like_a_template_in_a_recipe_is_left_alone(recipe: Recipe) -> None:
    recipe["chat_template"] = "{% for m in messages %}{{ m.content }}{{ name }}{% endfor %}"
    assert recipe["chat_template"] in card_of(recipe).text


def test_it_is_dated_and_the_date_is_found_again(recipe: Recipe) -> None:
    assert date_of(model_card(surveyed(recipe), "my-model", DAY)) == DAY
    assert date_of("# A card by somebody else, made on 2024-01-01\n") is None


# --- The picture ------------------------------------------------------------------------------


def test_the_same_ratios_make_the_same_picture_byte_for_byte(recipe: Recipe) -> None:
    first = picture_of(recipe)
    assert first.startswith(b"\x89PNG")
    assert picture_of(recipe) == first
    recipe["models"][CHAT]["parameters"]["ratio"] = [{"filter": "mlp", "value": 0.5}, {"value": 1}]
    assert picture_of(recipe) != first


def test_a_persons_own_style_is_not_in_the_picture(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    expected = picture_of(recipe)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert picture_of(recipe) == expected
        assert matplotlib.rcParams["font.size"] == 30


def test_any_ratio_and_several_vectors_can_be_drawn(recipe: Recipe, family: Path) -> None:
    recipe["models"][CHAT]["parameters"]["ratio"] = [-0.5, 1.5, 2.5]
    second = {"model": str(family / "chat2"), "parameters": {"role": "chat", "ratio": 0}}
    one = picture_of(recipe)
    recipe["models"].append(second)
    two = picture_of(recipe)
    # The height, in dots, stands in the header.
    heights = [int.from_bytes(picture[20:24], "big") for picture in (one, two)]
    assert heights[1] == pytest.approx(2 * heights[0], rel=0.2)


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense"])
def test_the_environments_way_of_showing_pictures_does_not_matter(
    backend: str, recipe: Recipe
) -> None:
    code = (
        "import os, sys\n"
        "from chatvec_method.pictures.style import as_png, new_figure, style\n"
        "with style('light'):\n"
        "    sys.stdout.buffer.write(as_png(new_figure(1, 1)))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        f"assert os.environ['MPLBACKEND'] == {backend!r}\n"
    )
    environment = {**os.environ, "MPLBACKEND": backend}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True
    )
    assert ran.stdout.startswith(b"\x89PNG")


def test_without_matplotlib_a_picture_says_what_to_install(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as Python marks what it did not find
    with pytest.raises(ChatVecError, match=r"pip install 'chatvec-method\[pictures\]'"):
        picture_of(recipe)


def test_what_goes_wrong_while_drawing_is_one_message() -> None:
    with pytest.raises(ChatVecError, match="cannot draw the picture"), style("light"):
        new_figure(-1, 1)


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("no such font")


@pytest.mark.parametrize(
    ("part", "left", "says"),
    [
        ("ratio_picture", {"README.md"}, "has no picture of the ratios: no such font."),
        ("model_card", set(), "the model card could not be written: no such font."),
    ],
)
def test_a_card_or_picture_that_fails_is_a_warning_and_the_merge_is_there(
    part: str,
    left: set[str],
    says: str,
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe["models"][CHAT]["parameters"]["ratio"] = [1.0, 0.5]  # there is something to draw
    monkeypatch.setattr(finish_module, part, broken)
    with pytest.warns(ChatVecWarning) as warned:
        result = merge(surveyed(recipe), tmp_path / "out")

    assert [str(each.message).endswith(says) for each in warned] == [True]
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert written & {"README.md", "ratio.png"} == left
    assert result.verification.tensors > 0
    if left:
        assert "ratio.png" not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
