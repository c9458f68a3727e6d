"""The shapes of schedules: their formulas, and what holds for all numbers that they may have."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatvec_method.errors import ChatVecError
from chatvec_method.schedules import shapes as schedule
from chatvec_method.schedules.spec import FORMS, parse_shape

layer_counts = st.integers(1, 200)
several = st.integers(2, 200)
numbers = st.floats(-3, 3)
shares = st.floats(0, 1)


def within(values: schedule.Numbers, one: float, other: float) -> bool:
    return bool(values.min() >= min(one, other) - 1e-12 and values.max() <= max(one, other) + 1e-12)


def monotone(values: schedule.Numbers, start: float, end: float) -> bool:
    return bool((np.diff(values) * np.sign(end - start) >= -1e-12).all())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (schedule.constant(3, 0.7), [0.7, 0.7, 0.7]),
        (schedule.linear(5, 1, 0), [1, 0.75, 0.5, 0.25, 0]),
        (schedule.cosine(3, 1, 0.5), [1, 0.75, 0.5]),
        (schedule.cosine(4, 0, 1), [0, 0.25, 0.75, 1]),
        (schedule.gaussian(3, 0.5, 0.5, 0, 1), [math.exp(-0.5), 1, math.exp(-0.5)]),
        (schedule.gaussian(3, 0, 0.5, 1, 0), [0, 1 - math.exp(-0.5), 1 - math.exp(-2)]),
        (schedule.trapezoid(6, 0.4, 0.6, 0, 1), [0, 0.5, 1, 1, 0.5, 0]),
        (schedule.trapezoid(3, 0, 1, 0, 1), [1, 1, 1]),
        (schedule.trapezoid(5, 0.5, 0.5, 0, 1), [0, 0.5, 1, 0.5, 0]),
        (schedule.middle(6, 0.1, 0.2, 0.8), [0, 0.4, 0.8, 0.8, 0.4, 0]),
        (schedule.middle(11, 0.2, 0, 1), [0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0]),
        (schedule.middle(3, 0.2, 0.1, 3), [0, 3, 0]),
        (schedule.middle(5, 0, 0, 2), [2, 2, 2, 2, 2]),
        (schedule.step(4, [(2, 3, 1), (0, 1, 0.3)]), [0.3, 0.3, 1, 1]),
        (schedule.points(5, [(0, 1), (1, 1), (0.5, 0)]), [1, 0.5, 0, 0.5, 1]),
        (schedule.points(5, [(0.25, 1), (0.75, 0)]), [1, 1, 0.5, 0, 0]),
        (schedule.per_layer(2, [1, 0.5]), [1, 0.5]),
    ],
)
def test_numbers_are_those_of_the_formula(values: schedule.Numbers, expected: list[float]) -> None:
    np.testing.assert_allclose(values, expected, atol=1e-12)


@pytest.mark.parametrize("shape", [schedule.linear, schedule.cosine])
@settings(deadline=None)
@given(layers=several, start=numbers, end=numbers)
def test_a_way_begins_and_ends_where_it_says_and_never_turns(
    shape: Callable[..., schedule.Numbers], layers: int, start: float, end: float
) -> None:
    values = shape(layers, start, end)
    assert (values[0], values[-1]) == (start, end)
    assert within(values, start, end)
    assert monotone(values, start, end)
    np.testing.assert_allclose(values[::-1], shape(layers, end, start), atol=1e-12)


@settings(deadline=None)
@given(several, shares, st.floats(0.01, 2), numbers, numbers)
def test_a_bump_lies_between_its_numbers_and_is_the_same_seen_from_the_end(
    layers: int, center: float, width: float, low: float, high: float
) -> None:
    values = schedule.gaussian(layers, center, width, low, high)
    assert within(values, low, high)
    mirrored = schedule.gaussian(layers, 1 - center, width, low, high)
    np.testing.assert_allclose(values[::-1], mirrored, atol=1e-9)
    peak = round(center * (layers - 1))
    assert monotone(values[: peak + 1], low, high) or layers < 3
    assert monotone(values[peak + 1 :], high, low)


@settings(deadline=None)
@given(several, shares, shares, numbers, numbers)
def test_a_plateau_lies_between_its_ramps(
    layers: int, one: float, other: float, low: float, high: float
) -> None:
    up, down = sorted((one, other))
    values = schedule.trapezoid(layers, up, down, low, high)
    assert within(values, low, high)
    x = schedule.depths(layers)
    assert np.allclose(values[(x >= up) & (x <= down)], high)
    assert values[0] == (low if up > 0 else high)
    assert values[-1] == (low if down < 1 else high)
    mirrored = schedule.trapezoid(layers, 1 - down, 1 - up, low, high)
    # 1 - (1 - tiny) is 0, which makes a ramp a step
    if min(up, 1 - down) > 1e-6:
        np.testing.assert_allclose(values[::-1], mirrored, atol=1e-6)


@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=100))
def test_points_at_every_layer_are_a_list_of_numbers_one_by_one(values: list[float]) -> None:
    layers = len(values)
    pairs = list(zip(schedule.depths(layers), values, strict=True))
    np.testing.assert_array_equal(schedule.points(layers, pairs), values)
    np.testing.assert_array_equal(schedule.per_layer(layers, values), values)
    ranges = [(i, i, value) for i, value in enumerate(values)]
    np.testing.assert_array_equal(schedule.step(layers, ranges), values)


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form.parameters])
@settings(deadline=None)
@given(layers=layer_counts)
def test_every_shape_has_a_number_for_each_layer_without_being_told_any(
    name: str, layers: int
) -> None:
    values = parse_shape(name).numbers(layers)
    assert values.shape == (layers,)
    assert values.dtype == np.float64
    assert within(values, 0, 1)


def test_one_layer_has_the_depth_that_it_has_in_mergekit() -> None:
    assert schedule.linear(1, 1, 0.3) == [0.3]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.7", "constant:0.7"),
        ("-0.5", "constant:value=-0.5"),
        ("linear 1 0.3", "linear:1:0.3"),
        ("linear:from=1:to=0.3", "linear:1:0.3"),
        ("gaussian:low=0.3", "gaussian:0.5:0.2:0.3:1"),
        ("gaussian::0.1", "gaussian:0.5:0.1:0:1"),
        ("step 0-7:0.3 8-9:1", "step:0-7:0.3,8-9:1"),
        ("step:0:1,1-9:0", "step:0-0:1,1-9:0"),
        ("points:0:1, 1:0", "linear:1:0"),
    ],
)
def test_a_shape_may_be_written_in_several_ways(one: str, other: str) -> None:
    np.testing.assert_array_equal(parse_shape(one).numbers(10), parse_shape(other).numbers(10))


@pytest.mark.parametrize(
    "text",
    [
        "1, 0.5, 0.25\n",
        "1\n0.5\n0.25\n",
        "ratio\n1\n0.5\n0.25\n\n",
        "layer,ratio\n0,1\n1,0.5\n2,0.25\n",
        "\ufefflayer,ratio\r\n0,1\r\n1,0.5\r\n2,0.25\r\n",
    ],
)
def test_numbers_one_by_one_may_stand_in_a_file(text: str, tmp_path: Path) -> None:
    file = tmp_path / "my ratios.csv"
    file.write_text(text, encoding="utf-8")
    assert list(parse_shape(f"per-layer:{file}").numbers(3)) == [1, 0.5, 0.25]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no shape"),
        ("gausian", "no shape"),
        ("0.7:0.3", "no more numbers than value"),
        ("linear:1:2:3", "no more numbers than from, to"),
        ("linear:one", "`one` is not a number"),
        ("linear:nan", "nan is not finite"),
        ("linear:start=1", "no number `start`, only from, to"),
        ("linear:1:from=0", "`from` twice"),
        ("gaussian:width=0", "more than 0"),
        ("trapezoid:0.9:0.1", "between two depths"),
        ("middle:0.4:0.2", "come to half of it at most"),
        ("middle:-0.1", "come to half of it at most"),
        ("step", "layer 0 has no number"),
        ("step:0-7:0.3", "layer 8 has no number"),
        ("step:0-5:1,5-9:0", "layer 5 has two numbers"),
        ("step:0-10:1", "no layers 0 to 10, only 0 to 9"),
        ("step:9-0:1", "counted upwards"),
        ("step:first:1", "`first` is no range"),
        ("step:0-9", "`0-9` is not layers and a number"),
        ("points", "one point or more"),
        ("points:0:1,1.5:1", "1.5 is outside"),
        ("points:0.5:1,0.5:0", "same depth"),
        ("per-layer:1,0.5", "2 numbers for 10 layers"),
        ("per-layer:nothing.csv", "nothing.csv is not a list of numbers, or cannot be read"),
    ],
)
def test_what_has_no_meaning_is_refused_with_an_example(text: str, reason: str) -> None:
    with pytest.raises(ChatVecError, match=reason) as caught:
        parse_shape(text).numbers(10)
    assert "`" in caught.value.fix


def test_layers_in_a_file_must_be_in_order(tmp_path: Path) -> None:
    file = tmp_path / "ratios.csv"
    file.write_text("layer,ratio\n1,0.5\n0,1\n", encoding="utf-8")
    with pytest.raises(ChatVecError, match="layer 0 is expected where 1 stands"):
        parse_shape(f"per-layer:{file}")


def test_a_list_that_never_ends_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for file in (tmp_path / "pipe.csv", "/dev/zero"):
        with pytest.raises(ChatVecError, match="and no file"):
            parse_shape(f"per-layer:{file}")


@pytest.mark.parametrize("layers", [0, -1])
def test_a_model_without_layers_has_no_schedule(layers: int) -> None:
    with pytest.raises(ValueError, match="one layer or more"):
        schedule.constant(layers)
