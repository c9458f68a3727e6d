"""A small part of `python -m tests.fuzz`: the whole of it takes an hour of a processor's time."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from conftest import ROOT

from tests.fuzz.__main__ import main

NUMBERS = {"recipes": 30, "folders": 6, "vector-recipes": 12, "vector-folders": 4}


def test_changed_recipes_and_models_come_to_a_result_or_to_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    numbers = [*(f"--{kind}={number}" for kind, number in NUMBERS.items()), "--jobs=1"]
    run = CliRunner().invoke(main, numbers)
    assert run.exit_code == 0, run.output
    assert f"0 of {sum(NUMBERS.values())} are wrong" in run.output
    for ended in (" folder merged", "vector-folder merged", "vector-recipe passed"):
        assert ended in run.output
