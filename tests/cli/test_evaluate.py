"""The command: what it prints and writes of a sweep through the world's recipe."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from conftest import ROOT
from PIL import Image

from chatvec_method.cli import main
from chatvec_method.cli.evaluate_progress import TimeLeft
from chatvec_method.evaluation import questions
from chatvec_method.evaluation.asked import asked_of
from chatvec_method.evaluation.sweep import Step
from chatvec_method.evaluation.targets import Point

RATIOS = (0.0, 0.5, 1.0)
LIMIT = 2


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(questions, "LONGEST_ANSWER", 6)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture
def run(state: Path) -> Callable[..., Result]:
    """Return a function that sweeps the world's recipe; what was asked before is kept."""

    def run(*options: str | Path, recipe: str | Path = "recipes/world.yaml") -> Result:
        arguments = [recipe, "--ratio", "0:1:0.5", "--language", "ko", "--limit", LIMIT]
        arguments += ["--state", state, "--device", "cpu", *options]
        return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])

    return run


def test_it_prints_a_line_a_ratio_and_a_sentence(run: Callable[..., Result]) -> None:
    result = run()
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    header = next(line for line in lines if line[:3] == ["follows", "knows", "recalls"])
    assert header[-3:] == ["language", "ends", "reads"]
    of_suite, beside, of_line = (
        [line for line in lines if line[:1] == [ratio] and line[1] != "of"]
        for ratio in ("0", "0.5", "1")
    )
    assert len(of_suite) == len(beside) == len(of_line) == 3
    assert "recipes/world.yaml: cp has moved 3.66 times as far from base" in result.stdout
    assert result.stdout.strip().splitlines()[-1].startswith("ko: ")
    assert result.stderr == ""


def test_json_csv_and_answers_say_the_same(run: Callable[..., Result], tmp_path: Path) -> None:
    table, answers = tmp_path / "scores.csv", tmp_path / "answers.jsonl"
    result = run("--json", "--csv", table, "--answers", answers)
    data = json.loads(result.stdout)

    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["value"] for row in rows] == [
        str(score["value"]) for each in data["results"] for score in each["scores"]
    ]
    assert {float(row["ratio"]) for row in rows} == set(RATIOS)
    assert {row["low"] == "" for row in rows} == {False}
    assert data["versions"].keys() >= {"chatvec-method", "lm-eval", "torch", "transformers"}
    assert len(data["revisions"]["recipes/world.yaml"]) == 3
    assert [len(each["line_from_cp"]["perplexity"]) for each in data["results"]] == [5, 5, 5]

    given = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    assert len(given) == len(RATIOS) * len(asked_of("ko", LIMIT))
    for ratio in RATIOS:
        marks = [
            each["passed"] for each in given if (each["ratio"], each["axis"]) == (ratio, "knows")
        ]
        (row,) = (r for r in rows if (float(r["ratio"]), r["axis"]) == (ratio, "knows"))
        assert float(row["value"]) == sum(marks) / len(marks)
    assert all(each["why"] for each in given if not each["passed"])
    assert {each["messages"][-1]["role"] for each in given} == {"user"}


def test_pictures_are_as_wide_as_a_readme_shows_them(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    folder = tmp_path / "new"
    assert run("--png", folder, "--schedule", "linear:1:0").exit_code == 0
    light, dark = (Image.open(folder / f"evaluation{each}.png") for each in ("", "-dark"))
    assert light.size == dark.size
    assert light.size[0] == 1260
    assert light.getpixel((0, 0))[:3] == (255, 255, 255)
    assert dark.getpixel((0, 0))[:3] == (13, 17, 23)


def test_the_headline_goes_into_the_recipe_and_comments_stay(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["chatvec", "evaluate", "a|b", "--judge", "http://me:key@x/v1"])
    file = Path(shutil.copy(ROOT / "recipes" / "world.yaml", tmp_path))
    before = file.read_text(encoding="utf-8")
    result = run("--record", file, recipe=file)
    assert result.exit_code == 0, result.output

    after = file.read_text(encoding="utf-8")
    changed = [
        (old, new)
        for old, new in zip(before.splitlines(), after.splitlines(), strict=True)
        if old != new
    ]
    assert [old.split(":")[0].strip() for old, _ in changed] == ["measured"]
    measured = yaml.safe_load(after)["chatvec"]["measured"]
    assert measured.startswith(f"a quick look at {LIMIT} prompts an axis; ko: follows ")
    assert "examples/world/models/cp@" in measured
    assert "chatvec-method 0." in measured
    assert measured.endswith("`chatvec evaluate 'a b' --judge http://x/v1`")
    assert run("--record", "recipes/breeze.yaml").exit_code == 1


def test_the_figures_of_another_recipe_s_output_are_not_recorded(tmp_path: Path) -> None:
    out = shutil.copytree(ROOT / "examples" / "world" / "models" / "cp", tmp_path / "out")
    shutil.copy(ROOT / "recipes" / "world.yaml", out / "mergekit_config.yml")
    file = tmp_path / "other.yaml"
    text = (ROOT / "recipes" / "world.yaml").read_text(encoding="utf-8")
    file.write_text(text.replace("ratio: 0.625", "ratio: 0.5"), encoding="utf-8")
    arguments = ["evaluate", str(out), "--language", "ko", "--record", str(file)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert f"{out} was not made from {file}" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--judge-model", "x"], "--judge-model is for a judge. Add `--judge URL`."),
        (["--csv", "nowhere/x.csv"], "there is no folder for nowhere/x.csv"),
        (["--record", "nowhere.yaml"], "the recipe nowhere.yaml cannot be read"),
        (["--ratio", ""], "lists no ratios. Write `0,0.25,0.5`"),
        (["--tasks", "kobest,"], "the list of tasks has an empty name. Write `kmmlu,kobest`."),
        (["--tasks", "README.md"], "is not YAML"),
        (["--language", "ko,fr"], "no prompts in 'fr'. Write one of ko, ja, zh-Hant"),
        (["localhost:8000/v1"], "Write one as in `http://localhost:8000/v1`."),
        ([""], "Name a folder, a recipe or a server."),
    ],
)
def test_what_is_wrong_is_told_in_one_line_before_anything_is_asked(
    options: list[str], message: str, run: Callable[..., Result]
) -> None:
    result = run(*options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_file_that_cannot_be_written_whole_is_left_as_it_was(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tmp_path / "scores.csv"
    before.write_text("mine\n")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = run("--csv", before)
    assert result.exit_code == 1
    assert "(No space left on device); all answers are kept." in result.stderr
    assert before.read_text() == "mine\n"
    assert list(tmp_path.iterdir()) == [before]


def test_the_time_that_is_left_is_of_all_points_and_not_of_what_was_kept() -> None:
    now = 0.0
    estimate = TimeLeft(lambda: now)
    point = Point("x", "recipe", 0.5, None, None, lambda *_: None)

    def after(seconds: float, number: int, done: int) -> float | None:
        nonlocal now
        now += seconds
        return estimate.after(Step(point, number, 3, "generate_until", done, 100))

    assert after(0, 1, 90) is None  # 90 were kept
    assert after(10, 1, 95) == pytest.approx(2 * 205)
    assert after(10, 1, 100) == pytest.approx(2 * 200)
    assert after(30, 2, 0) == pytest.approx(2 * 200)  # loading is not answering
    assert after(20, 2, 10) == pytest.approx(2 * 190)
