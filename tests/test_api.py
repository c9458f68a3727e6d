"""What Python programs call: what it takes, what it refuses, what it shows on the way."""

from __future__ import annotations

import ast
import builtins
import io
import itertools
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import CHAT, ROOT, Recipe
from mergekit.options import MergeOptions

import chatvec_method
from chatvec_method import (
    ChatVecError,
    ChatVecWarning,
    Progress,
    Severity,
    check,
    finish,
    merge,
    read_recipe,
    schedule,
    survey,
    verify,
)
from chatvec_method.options import Options
from chatvec_method.progress import bars

IMPORT = """
import sys, time
before = time.perf_counter()
import chatvec_method
assert "merge" in dir(chatvec_method)
print(time.perf_counter() - before, "torch" in sys.modules)
"""
TRIES = 5
LONGEST_IMPORT_SECONDS = 0.05


def test_importing_the_package_is_quick_and_loads_no_torch() -> None:
    seconds = []
    for _ in range(TRIES):
        run = subprocess.run(
            [sys.executable, "-c", IMPORT], check=True, capture_output=True, text=True, cwd=ROOT
        )
        took, with_torch = run.stdout.split()
        assert with_torch == "False"
        seconds.append(float(took))
    assert min(seconds) < LONGEST_IMPORT_SECONDS


def test_what_type_checkers_see_is_what_there_is() -> None:
    source = Path(chatvec_method.__file__).read_text(encoding="utf-8")
    (block,) = [node for node in ast.parse(source).body if isinstance(node, ast.If)][:1]
    imported = {
        name.name: node.module.removeprefix("chatvec_method.")
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for name in node.names
    }
    assert sorted(imported) == chatvec_method.__all__ == sorted(chatvec_method.__all__)
    homes = chatvec_method._HOMES
    assert {name: homes.get(name, "api") for name in imported} == imported
    for name in chatvec_method.__all__:
        assert getattr(chatvec_method, name).__name__ == name


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="mrege"):
        chatvec_method.mrege  # noqa: B018


def test_options_are_those_of_mergekit() -> None:
    """A new one of theirs belongs into `Options`, for editors and type checkers."""
    assert sorted(Options.__annotations__) == sorted(MergeOptions.model_fields)


# --- recipes ----------------------------------------------------------------------------------


def as_file(recipe: Recipe, folder: Path) -> Path:
    file = folder / "a recipe.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "form",
    [
        as_file,
        lambda recipe, folder: str(as_file(recipe, folder)),
        lambda recipe, _: yaml.safe_dump(recipe),
        lambda recipe, _: yaml.safe_dump(recipe, default_flow_style=True, width=10_000).strip(),
        lambda recipe, _: recipe,
        lambda recipe, _: read_recipe(recipe),
        lambda recipe, _: survey(recipe),
        lambda recipe, _: survey(recipe).ready(),
    ],
    ids="path name text one-line dict recipe survey ready-survey".split(),
)
def test_a_recipe_may_be_a_path_a_text_a_dict_or_a_survey(
    form: Callable[[Recipe, Path], Any], recipe: Recipe, tmp_path: Path
) -> None:
    given = form(recipe, tmp_path)
    assert read_recipe(given).raw == recipe
    assert not check(given).of(Severity.ERROR)


def test_a_dict_may_have_paths_tuples_and_numbers_of_numpy(recipe: Recipe) -> None:
    plain = read_recipe(recipe)
    recipe["base_model"] = Path(recipe["base_model"])
    recipe["models"] = tuple(recipe["models"])
    recipe["out_dtype"] = torch.bfloat16
    recipe["models"][CHAT]["parameters"]["ratio"] = np.linspace(1, 0.5, 3)
    read = read_recipe(recipe)
    assert read.config.base_model == plain.config.base_model
    assert read.raw["out_dtype"] == "bfloat16"
    assert read.raw["models"][CHAT]["parameters"]["ratio"] == [1.0, 0.75, 0.5]


def test_a_dict_with_what_yaml_cannot_say_is_refused(recipe: Recipe) -> None:
    recipe["out_dtype"] = object()
    with pytest.raises(ChatVecError, match="a value that YAML cannot write"):
        read_recipe(recipe)


# --- options ----------------------------------------------------------------------------------


def test_an_unknown_option_is_told_with_the_nearest(recipe: Recipe) -> None:
    with pytest.raises(ChatVecError, match="Did you mean `out_shard_size`"):
        check(recipe, out_shard_sise=3)  # type: ignore[call-arg]
    with pytest.raises(ChatVecError, match=r"no option `x`\. It has allow_crimes, "):
        survey(recipe, x=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("value", ["5Q", "", None])
def test_a_wrong_value_is_told_with_the_option(value: Any, recipe: Recipe) -> None:
    with pytest.raises(ChatVecError, match="the option `out_shard_size` is"):
        survey(recipe, out_shard_size=value)


def test_options_mean_what_they_mean_to_the_command(recipe: Recipe, tmp_path: Path) -> None:
    options = survey(recipe, out_shard_size="5k", transformers_cache=tmp_path, cuda=True).options
    assert options.out_shard_size == 5000
    assert options.transformers_cache == str(tmp_path)
    assert options.device == "cuda"


def test_a_survey_has_its_options_already(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ChatVecError, match="`quiet` would do nothing"):
        merge(survey(recipe), tmp_path / "out", quiet=True)


# --- merges -----------------------------------------------------------------------------------


def test_merge_refuses_what_check_has_errors_for(recipe: Recipe, tmp_path: Path) -> None:
    recipe["models"][CHAT]["parameters"]["ratios"] = 1.0
    (finding,) = check(recipe).of(Severity.ERROR)
    with pytest.raises(ChatVecError) as refused:
        merge(recipe, tmp_path / "out")
    assert refused.value.code == finding.code
    assert str(refused.value) == f"{finding.place}: {finding.message} {finding.fix}"
    assert not (tmp_path / "out").exists()


def test_several_errors_are_told_at_once(recipe: Recipe, tmp_path: Path) -> None:
    recipe["models"][CHAT]["parameters"]["ratios"] = 1.0
    recipe["models"][0]["parameters"]["weight"] = 1.0
    errors = check(recipe).of(Severity.ERROR)
    assert len(errors) > 1
    with pytest.raises(ChatVecError) as refused:
        merge(recipe, tmp_path / "out")
    assert all(error.message in str(refused.value) for error in errors)


def test_what_may_be_meant_is_a_warning_and_merged(recipe: Recipe, tmp_path: Path) -> None:
    recipe["chatvec"] = {"accept": ["no-such-code"]}
    findings = check(recipe).of(Severity.WARNING)
    assert "accept-unknown" in [finding.code for finding in findings]
    with pytest.warns(ChatVecWarning) as told:
        merged = merge(recipe, tmp_path / "out", quiet=True)
    assert [str(each.message) for each in told] == list(map(str, findings))
    assert told[0].filename == __file__
    assert (merged.out / "model.safetensors").is_file()


def test_merge_replaces_a_model_only_where_told_to(recipe: Recipe, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ChatVecWarning)
        merge(recipe, tmp_path / "out", quiet=True)
        with pytest.raises(ChatVecError, match="exists already"):
            merge(recipe, tmp_path / "out", quiet=True)
        merge(recipe, tmp_path / "out", quiet=True, overwrite=True)


def test_finish_and_verify_need_a_recipe_or_a_folder_that_has_it(tmp_path: Path) -> None:
    for look in (finish, verify):
        with pytest.raises(ChatVecError, match="does not say which recipe"):
            look(tmp_path)


# --- schedules --------------------------------------------------------------------------------


def test_a_schedule_may_be_text_a_number_or_numbers(recipe: Recipe) -> None:
    assert schedule(0.7, layers=3) == schedule("0.7", layers=3) == 0.7
    as_text = schedule("per-layer:1,0.5,0.25", mlp="0.3", layers=3)
    assert schedule(np.array([1, 0.5, 0.25]), mlp=0.3, layers=3) == as_text
    written = schedule([1, 0.5, 0.25], mlp=0.3, into=recipe)
    plan = survey(written).ready().plan
    (chat,) = plan.roles.chats
    ratios = {t.layer: t.ratios[chat] for t in plan.tensors if t.kind == "attention"}
    assert ratios == {0: 1.0, 1: 0.5, 2: 0.25}


def test_a_schedule_without_a_recipe_needs_the_number_of_layers() -> None:
    with pytest.raises(ChatVecError, match="Write `layers=32`"):
        schedule("linear")  # type: ignore[call-overload]


# --- progress ---------------------------------------------------------------------------------

STATES = [
    Progress("fetch", 0, 0),
    *(Progress("merge", done, 10_000_000) for done in range(0, 10_000_001, 2_500_000)),
    *(Progress("verify", done, 8_000_000) for done in range(0, 8_000_001, 4_000_000)),
]


class Terminal(io.StringIO):
    """What somebody looks at."""

    def isatty(self) -> bool:
        return True


class ZMQInteractiveShell:
    """What rich knows a notebook by."""


def show_states(**settings: bool) -> None:
    with bars(**settings) as show:
        for state in STATES:
            show(state)


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ({}, ["Merging (10.0 MB)", "Verifying (8.0 MB)"]),
        ({"transient": True}, []),
        ({"quiet": True}, []),
    ],
    ids=str,
)
def test_in_a_pipe_there_is_a_line_for_each_phase(
    settings: dict[str, bool], lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    show_states(**settings)
    assert stderr.getvalue().splitlines() == lines


def test_in_a_pipe_there_is_a_line_for_each_model_and_for_tenths_of_what_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(time, "monotonic", itertools.count(0.0, 0.7).__next__)
    with bars() as show:
        for done in range(0, 201):
            show(Progress("fetch", done, 200, "one/a" if done < 100 else "two/b"))
    assert stderr.getvalue().splitlines() == [
        "Fetching one/a (0 bytes of 200 bytes)",
        "Fetching: 20 %",
        "Fetching: 40 %",
        "Fetching two/b (100 bytes of 200 bytes)",
        "Fetching: 60 %",
        "Fetching: 80 %",
        "Fetching: 100 %",
    ]


@pytest.mark.parametrize("quiet", [False, True])
def test_on_a_terminal_there_is_a_bar_for_each_long_phase(
    quiet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    show_states(quiet=quiet)
    last = stderr.getvalue().rpartition("Merging")[2]
    assert ("10.0/10.0 MB" in last and "Verifying" in last) is not quiet
    assert bool(stderr.getvalue()) is not quiet


def test_bars_of_several_threads_leave_the_process_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    stdout, both = sys.stdout, threading.Barrier(2)

    def show() -> None:
        with bars() as show:
            both.wait()
            for state in STATES:
                show(state)

    with ThreadPoolExecutor(2) as pool:
        for shown in [pool.submit(show) for _ in range(2)]:
            shown.result()
    assert sys.stderr is stderr
    assert sys.stdout is stdout


@pytest.mark.parametrize("transient", [False, True])
def test_in_a_notebook_the_bars_are_one_output_which_ends_complete(
    transient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[dict[str, str], str, bool]] = []

    def display(data: dict[str, str], *, raw: bool, display_id: str, update: bool) -> None:
        assert raw
        shown.append((data, display_id, update))

    module = ModuleType("IPython.display")
    module.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(builtins, "get_ipython", ZMQInteractiveShell, raising=False)
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    show_states(transient=transient)
    assert stderr.getvalue() == ""
    assert len({display_id for _, display_id, _ in shown}) == 1
    assert [update for _, _, update in shown] == [False] + [True] * (len(shown) - 1)
    last, _, _ = shown[-1]
    for data in last.values():
        assert ("10.0/10.0 MB" in data and "8.0/8.0 MB" in data) is not transient
    assert last["text/html"].startswith("<pre")


def test_a_caller_may_be_told_in_place_of_bars(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    told: list[Progress] = []
    check(recipe, deep=True, on_progress=told.append)
    assert stderr.getvalue() == ""
    assert {progress.phase for progress in told} == {"read"}
    assert told[-1].done == told[-1].total
