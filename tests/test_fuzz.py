"""A small part of `python -m tests.fuzz`: the whole of it takes an hour of a processor's time."""

from __future__ import annotations

import subprocess
import sys

from conftest import ROOT

NUMBERS = {"recipes": 30, "folders": 6, "vector-recipes": 12, "vector-folders": 4, "outputs": 6}


def test_changed_recipes_and_models_come_to_a_result_or_to_one_line() -> None:
    # In a process of its own: what it imports turns the hub off.
    numbers = [*(f"--{kind}={number}" for kind, number in NUMBERS.items()), "--seed=3", "--jobs=1"]
    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *numbers], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"0 of {sum(NUMBERS.values())} are wrong" in run.stdout
    for ended in (
        " folder merged",
        "output refused",
        "vector-folder merged",
        "vector-recipe passed",
    ):
        assert ended in run.stdout
