"""Ratios in all forms in which people have them, as recipes that say the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml
from conftest import CHAT, Recipe
from surveying import ready

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.schedules.any_ratio import with_part, with_ratio
from chatvec_method.schedules.cases import Schedule
from chatvec_method.schedules.spec import parse_shape


@pytest.fixture
def survey(recipe: Recipe) -> ReadySurvey:
    return ready(recipe)


def ratio_of(raw: dict[str, Any]) -> Any:
    return raw["models"][CHAT]["parameters"]["ratio"]


@pytest.mark.parametrize(
    ("ratio", "written"),
    [
        (0.7, 0.7),
        ("0.7", 0.7),
        (np.float32(0.5), 0.5),
        ([1, 0.3], [1.0, 0.3]),
        (np.array([1, 0.25]), [1.0, 0.25]),
        ({"value": 1}, {"value": 1.0}),
        (
            [{"filter": "mlp", "value": (0, 1)}, {"value": 1}],
            [{"filter": "mlp", "value": [0.0, 1.0]}, {"value": 1.0}],
        ),
    ],
    ids=str,
)
def test_every_form_of_a_ratio_stands_in_the_recipe(
    ratio: Any, written: Any, survey: ReadySurvey
) -> None:
    reworded = with_ratio(survey.recipe, ratio, survey.plan)
    assert ratio_of(reworded.raw) == written
    assert yaml.safe_load(reworded.recipe.text) == reworded.raw
    assert reworded.config == reworded.recipe.config


@pytest.mark.parametrize(
    ("ratio", "line"),
    [
        ("linear:1:0", {"filter": "model.norm", "value": 0.0}),
        (Schedule(parse_shape("0.5"), head=0.2), {"filter": "lm_head", "value": 0.2}),
    ],
    ids=["shape", "schedule"],
)
def test_a_schedule_stands_in_the_recipe_with_a_number_for_each_layer(
    ratio: str | Schedule, line: Any, survey: ReadySurvey
) -> None:
    reworded = with_ratio(survey.recipe, ratio, survey.plan)
    assert line in ratio_of(reworded.raw)


def test_a_ratio_for_all_chat_models_leaves_no_other_in_the_recipe(recipe: Recipe) -> None:
    recipe["parameters"] = {"ratio": 0.2}
    del recipe["models"][CHAT]["parameters"]["ratio"]
    survey = ready(recipe)
    raw = with_ratio(survey.recipe, 0.7, survey.plan).raw
    assert str(raw).count("ratio") == 1
    assert ratio_of(raw) == 0.7


def test_slices_have_the_ratio_in_each_of_them(recipe: Recipe) -> None:
    models = recipe.pop("models")
    recipe["slices"] = [
        {"sources": [{**model, "layer_range": layers} for model in models]}
        for layers in ([0, 2], [2, 3])
    ]
    survey = ready(recipe)
    raw = with_ratio(survey.recipe, 0.7, survey.plan).raw
    assert [each["sources"][CHAT]["parameters"]["ratio"] for each in raw["slices"]] == [0.7, 0.7]


def test_a_recipe_with_aliases_is_written_anew(recipe: Recipe) -> None:
    recipe["parameters"] = {"ratio": 1.0}
    text = yaml.safe_dump(recipe).replace("ratio: 1.0", "ratio: &same 1.0", 1)
    text = text.replace("ratio: 1.0", "ratio: *same")
    survey = ready(text)
    reworded = with_ratio(survey.recipe, 0.7, survey.plan)
    assert yaml.safe_load(reworded.recipe.text) == reworded.raw
    assert ratio_of(reworded.raw) == 0.7


@pytest.mark.parametrize(
    ("part", "filters"),
    [
        ("mlp", ["mlp"]),
        ("MLP", ["mlp"]),
        ("attention", ["self_attn"]),
        ("embeddings", ["embed_tokens"]),
        ("layers.1.", ["layers.1."]),
    ],
)
def test_a_part_gets_filters_above_what_is_there(
    part: str, filters: list[str], survey: ReadySurvey
) -> None:
    raw = with_part(survey.recipe, part, 0.5, survey.plan).raw
    expected = [{"filter": each, "value": 0.5} for each in filters]
    assert ratio_of(raw) == [*expected, {"value": 1.0}]


def test_a_part_that_is_set_again_stands_there_once(survey: ReadySurvey) -> None:
    reworded = with_part(survey.recipe, "mlp", 0.5, survey.plan)
    reworded = with_part(reworded.recipe, "self_attn", [0, 1], survey.plan)
    raw = with_part(reworded.recipe, "mlp", 0.25, survey.plan).raw
    assert ratio_of(raw) == [
        {"filter": "mlp", "value": 0.25},
        {"filter": "self_attn", "value": [0.0, 1.0]},
        {"value": 1.0},
    ]


def test_a_part_below_a_ratio_for_all_models_leaves_that_to_the_rest(recipe: Recipe) -> None:
    del recipe["models"][CHAT]["parameters"]["ratio"]
    recipe["parameters"] = {"ratio": 0.2}
    survey = ready(recipe)
    reworded = with_part(survey.recipe, "mlp", 0.5, survey.plan)
    plan = survey.plan.with_ratios(reworded.config)
    ratios = {tensor.kind: set(tensor.ratios.values()) for tensor in plan.tensors}
    assert ratios.pop("MLP") == {0.5}
    assert set().union(*ratios.values()) == {0.2}


@pytest.mark.parametrize(
    ("part", "ratio", "message"),
    [
        ("experts", 0.5, "no tensor has `experts` in its name.*attention, mlp"),
        ("mlp", "linear:1:0", "no ratio for mlp alone"),
        ("mlp", [{"value": 1}], "no ratio for mlp alone"),
        ("mlp", "much", "no shape"),
    ],
)
def test_what_is_no_part_or_no_ratio_of_one_is_told(
    part: str, ratio: Any, message: str, survey: ReadySurvey
) -> None:
    with pytest.raises(ChatVecError, match=message):
        with_part(survey.recipe, part, ratio, survey.plan)
