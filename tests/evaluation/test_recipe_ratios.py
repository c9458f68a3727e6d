"""The ratios at which a recipe is evaluated, and what its own is."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from conftest import ROOT

from chatvec_method import ChatVecError, read_recipe
from chatvec_method.evaluation.recipes import AS_WRITTEN, as_written, ratios_in, settings_of

WORLD = yaml.safe_load((ROOT / "recipes" / "world.yaml").read_text(encoding="utf-8"))


def recipe(ratio: Any) -> Any:
    models = [*WORLD["models"]]
    models[1] = {**models[1], "parameters": {"role": "chat", "ratio": ratio}}
    return read_recipe({**WORLD, "models": models})


@pytest.mark.parametrize(
    ("text", "ratios"),
    [
        ("0.5", [0.5]),
        ("0,0.25, 0.5", [0, 0.25, 0.5]),
        ("0:1.5:0.125", [i / 8 for i in range(13)]),
        ("0:0.3:0.1", [0, 0.1, 0.2, 0.3]),  # as written, not as floats add up
        ("0:1:0.4", [0, 0.4, 0.8]),
        ("1,0:1:0.5", [1, 0, 0.5]),
        ("-0.5", [-0.5]),
    ],
)
def test_ratios_are_listed_or_from_to_step(text: str, ratios: list[float]) -> None:
    assert ratios_in(text) == ratios


@pytest.mark.parametrize("text", ["", "half", "0:1", "1:0:0.1", "0:1:0", "0:inf:1", "nan"])
def test_what_lists_no_ratios_is_refused(text: str) -> None:
    with pytest.raises(ChatVecError, match="lists no ratios"):
        ratios_in(text)


def test_a_slip_of_the_pen_is_not_a_week_of_work() -> None:
    with pytest.raises(ChatVecError, match="201 ratios"):
        ratios_in("0:1000:0.001")


def test_a_ratio_that_is_one_number_is_that_number() -> None:
    assert as_written(recipe(0.625)).ratio == 0.625
    assert [each.own for each in settings_of(recipe(0.5), [0, 0.5], [])] == [False, True]
    assert [each.ratio for each in settings_of(recipe(0.5), [0, 1], [], own=True)] == [0.5, 0, 1]


def test_other_ratios_are_as_written_and_have_a_line_from_cp() -> None:
    written = [{"filter": "self_attn", "value": [1.0, 0.5]}, {"value": 0.5}]
    setting = as_written(recipe(written))
    assert (setting.ratio, setting.schedule) == (None, AS_WRITTEN)
    (chat,) = setting.given
    assert setting.given == {chat: written}
    assert setting.scaled is not None
    assert setting.scaled(0.5) == {
        chat: [{"filter": "self_attn", "value": [0.5, 0.25]}, {"value": 0.25}]
    }
