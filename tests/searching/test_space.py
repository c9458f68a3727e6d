"""The numbers that are searched, and the recipes that they mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import plain_recipe

from chatvec_method import ChatVecError, Survey, read_recipe, survey
from chatvec_method.searching.recipes import with_ratios
from chatvec_method.searching.space import SPACES, Space, space_of
from chatvec_method.searching.starts import (
    agreements_of,
    coarse_starts,
    other_starts,
    uniform_beside,
)


@pytest.fixture(scope="module")
def surveyed(family: Path) -> Survey:
    return survey(plain_recipe(family))


@pytest.fixture(scope="module")
def two(family: Path) -> Survey:
    recipe = plain_recipe(family)
    recipe["models"].insert(
        2, {"model": str(family / "chat2"), "parameters": {"role": "chat", "ratio": 0.5}}
    )
    return survey(recipe)


def ratios(surveyed: Survey, space: Space, values: Mapping[str, float]) -> dict[str, float]:
    plan = surveyed.plan
    made = with_ratios(surveyed.recipe, space.ratios(values), plan)
    (chat, *_) = plan.roles.chats
    return {t.name: t.ratios[chat] for t in plan.with_ratios(made.config).tensors}


@pytest.mark.parametrize("name", SPACES)
def test_one_ratio_is_in_every_space(surveyed: Survey, name: str) -> None:
    space = space_of(surveyed.plan, name)
    made = with_ratios(surveyed.recipe, space.ratios(space.uniform(0.375)), surveyed.plan)
    assert [m["parameters"].get("ratio") for m in made.raw["models"]] == [None, 0.375, None]


def test_the_default_space_has_eight_numbers_whatever_the_depth(surveyed: Survey) -> None:
    space = space_of(surveyed.plan)
    assert space.numbers == (
        *(
            f"{part} {knot}"
            for part in ("attention", "mlp")
            for knot in ("early", "middle", "late")
        ),
        "embeddings",
        "head",
    )
    values = dict(zip(space.numbers, (0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.9, 1.1), strict=True))
    found = ratios(surveyed, space, values)
    for layer, (attention, mlp) in enumerate(((0.1, 0.5), (0.2, 0.6), (0.3, 0.7))):
        prefix = f"model.layers.{layer}"
        assert found[f"{prefix}.self_attn.q_proj.weight"] == pytest.approx(attention)
        assert found[f"{prefix}.mlp.up_proj.weight"] == pytest.approx(mlp)
        assert found[f"{prefix}.input_layernorm.weight"] == pytest.approx((attention + mlp) / 2)
    assert found["model.embed_tokens.weight"] == 0.9
    assert found["lm_head.weight"] == 1.1
    assert found["model.norm.weight"] == pytest.approx(0.5)


def test_in_parts_each_kind_has_one_number_and_the_final_norm_goes_with_norms(
    surveyed: Survey,
) -> None:
    space = space_of(surveyed.plan, "parts")
    values = dict(zip(space.numbers, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True))
    found = ratios(surveyed, space, values)
    assert found["model.layers.2.self_attn.o_proj.weight"] == 0.1
    assert found["model.layers.0.mlp.down_proj.weight"] == 0.2
    assert found["model.layers.1.input_layernorm.weight"] == found["model.norm.weight"] == 0.3


def test_a_fixed_part_is_not_searched(surveyed: Survey) -> None:
    space = space_of(surveyed.plan, "depth", fixed={"embeddings": 0.0})
    assert space.numbers == ("early", "middle", "late", "head")
    assert ratios(surveyed, space, space.uniform(1.0))["model.embed_tokens.weight"] == 0


def test_each_further_chat_vector_has_one_number(two: Survey) -> None:
    space = space_of(two.plan, "global")
    first, second = map(str, two.plan.roles.chats)
    assert space.numbers == ("all", f"share of {second}")
    made = with_ratios(two.recipe, space.ratios({"all": 0.8, f"share of {second}": 0.5}), two.plan)
    plan = two.plan.with_ratios(made.config)
    assert {tuple(t.ratios.values()) for t in plan.tensors} == {(0.8, 0.4)}
    assert first == str(plan.roles.chats[0])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "everything"}, "no space `everything`"),
        ({"low": 1.0, "high": 1.0}, "nothing to search"),
        ({"fixed": {"norms": 1.0}}, "no part `norms`"),
        ({"name": "global", "fixed": {"all": 1.0}}, "nothing is left"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    surveyed: Survey, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ChatVecError, match=said):
        space_of(surveyed.plan, **settings)


def test_comments_of_the_recipe_stay(surveyed: Survey, family: Path) -> None:
    text = "# first line\n" + yaml.safe_dump(plain_recipe(family)).replace(
        "role: chat", "role: chat # beside a role"
    )
    space = space_of(surveyed.plan)
    values = space.uniform(0.5) | {"attention early": 0.25}
    made = with_ratios(read_recipe(text), space.ratios(values), surveyed.plan)
    assert made.text.startswith("# first line\n")
    assert "# beside a role" in made.text
    assert "points:0:0.25,0.5:0.5,1:0.5" in made.text


# ---------------------------------------------------------------------------------------- starts


def test_a_search_begins_with_one_ratio_in_coarse_steps(surveyed: Survey) -> None:
    starts = coarse_starts(space_of(surveyed.plan))
    assert [start.uniform for start in starts] == [0, 0.25, 0.5, 0.75, 1, 1.25]
    inside = coarse_starts(space_of(surveyed.plan, low=0.5, high=1.0))
    assert [start.uniform for start in inside] == [0.5, 0.75, 1]


def test_then_it_looks_beside_the_best_one_at_the_middle_and_at_what_anatomy_proposes(
    surveyed: Survey,
) -> None:
    space = space_of(surveyed.plan)
    beside = uniform_beside(space, 0.75, 0.125)
    assert [start.name for start in beside] == ["uniform 0.625", "uniform 0.875"]
    assert [start.uniform for start in uniform_beside(space, 1.25, 0.06)] == [1.19]
    starts = list(other_starts(space, 0.75, lambda: agreements_of(surveyed)))
    assert [start.name for start in starts] == ["middle", "anatomy"]
    middle, proposed = (start.values for start in starts)
    assert [middle[f"mlp {knot}"] for knot in ("early", "middle", "late")] == [0, 0.75, 0]
    assert middle["embeddings"] == 0
    assert all(0 <= value <= 0.75 for value in proposed.values())
    assert [start.name for start in other_starts(space, 1.25, lambda: None)] == ["middle"]
