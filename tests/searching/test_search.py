"""A search through the world's recipe: what it finds, writes and tells."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from catalogue import schema
from click.testing import CliRunner, Result
from conftest import ROOT, Merge
from PIL import Image

from chatvec_method import ChatVecError, Outcome, evaluate, live, read_recipe, search, survey
from chatvec_method.cli import main
from chatvec_method.cli.console import console
from chatvec_method.cli.search_report import print_outcome
from chatvec_method.evaluation import questions
from chatvec_method.evaluation.evaluating import Wanted
from chatvec_method.searching import pictures
from chatvec_method.searching.asked_by_recipe import own_search
from chatvec_method.searching.files import recipe_names
from chatvec_method.searching.objectives import Measure
from chatvec_method.searching.search import Asked, News, Search, sampler_of

RECIPE = "recipes/world.yaml"
TRIALS, LIMIT = 14, 4
TASKS = "examples/world/tasks"


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(questions, "LONGEST_ANSWER", 6)


def search_world(out: Path, **settings: Any) -> Outcome:
    return search(RECIPE, out, trials=TRIALS, limit=LIMIT, device="cpu", **settings)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """Return the folder of a search that was stopped twice, and what it found."""
    out = tmp_path_factory.mktemp("search") / "out"
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(ROOT)
        for stop_after in (3, 11):

            def stop(news: News, stop_after: int = stop_after) -> None:
                if news.trial is not None and news.done == stop_after:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                search_world(out, on_news=stop)
        return out, search_world(out)


@pytest.fixture
def run(searched: tuple[Path, Outcome], tmp_path: Path) -> Callable[..., Result]:
    """Return a function that runs the command on a copy of that search."""
    out = tmp_path / "copy"
    shutil.copytree(searched[0], out)

    def run(*options: str) -> Result:
        told = [RECIPE, "--trials", str(TRIALS), "--limit", str(LIMIT), "--device", "cpu"]
        return CliRunner().invoke(main, ["search", *told, "--out", str(out), *options])

    return run


def test_a_search_that_was_stopped_finds_what_one_finds_that_was_not(
    searched: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, stopped = searched
    monkeypatch.setattr(pictures, "search_pictures", lambda *_: {})
    whole = search_world(tmp_path)
    assert len(whole.trials) == TRIALS
    assert [(t.name, t.numbers, t.values) for t in whole.trials] == [
        (t.name, t.numbers, t.values) for t in stopped.trials
    ]
    assert whole.sentences == stopped.sentences
    names = [trial.name for trial in whole.trials]
    assert names[:6] == [f"uniform {ratio:g}" for ratio in (0, 0.25, 0.5, 0.75, 1, 1.25)]
    assert set(names) >= {"middle", "anatomy"}
    uniform = [trial.uniform for trial in whole.trials if trial.uniform is not None]
    assert len(uniform) == len(set(uniform)) >= 8
    assert names[-1] is None


def test_no_recipe_that_was_written_is_beaten_on_the_searching_half(
    searched: tuple[Path, Outcome],
) -> None:
    out, found = searched
    data = json.loads((out / "results.json").read_text())
    front = [each["objectives"] for each in data["pareto"]]
    every = [each["values"] for each in data["trials"] if each["values"] is not None]
    for recipe in front:
        values = {name: each["search"] for name, each in recipe.items()}
        assert not [
            other
            for other in every
            if all(other[name] >= values[name] for name in values) and other != values
        ]
    files = set(recipe_names(found).values())
    assert files | {"suggested.yaml", "front.png", "schedules-dark.png"} <= set(data["files"])
    assert {file.name for file in out.glob("*.yaml")} == files | {"suggested.yaml"}


def test_every_written_recipe_merges_with_the_stock_command_and_scores_what_the_table_says(
    searched: tuple[Path, Outcome], merge: Callable[..., Merge], tmp_path: Path
) -> None:
    out, found = searched
    merged = []
    for name in recipe_names(found).values():
        merged.append(merge((out / name).read_text(encoding="utf-8"), out=Path(name).stem))
        assert merged[-1].exit_code == 0, merged[-1].printed
    targets = [str(each.out) for each in merged]
    results = evaluate(targets, tasks=TASKS, limit=LIMIT, state=tmp_path, device="cpu")
    for candidate, result in zip(found.front, results, strict=True):
        for figure in found.sought.figures:
            both = {**candidate.search[figure.name], **candidate.report[figure.name]}
            value = Measure((figure,)).value({figure.name: both})
            assert result.score(figure.name).value == pytest.approx(value, abs=2e-4), figure.name


def test_a_written_recipe_keeps_its_comments_and_fits_the_schema(
    searched: tuple[Path, Outcome],
) -> None:
    out, found = searched
    text = (out / "suggested.yaml").read_text(encoding="utf-8")
    before = (ROOT / RECIPE).read_text(encoding="utf-8")
    comments = [line for line in before.splitlines() if line.startswith("#")]
    assert text.splitlines()[: len(comments)] == comments
    assert "# config and tokenizer of the output" in text
    jsonschema.Draft202012Validator(schema()).validate(yaml.safe_load(text))
    measured = read_recipe(out / "suggested.yaml").metadata["measured"]
    assert f"of {TRIALS} trials in the space parts+depth, seed 0" in measured
    report = found.as_data()["pareto"][0]["objectives"]["quality"]["report"]
    first = read_recipe(out / "pareto-1.yaml").metadata["measured"]
    assert first.startswith(f"quality {report:.3f} (")


def test_pictures_are_as_wide_as_a_readme_shows_them(searched: tuple[Path, Outcome]) -> None:
    for name in ("front", "schedules", "importance"):
        light, dark = (Image.open(searched[0] / f"{name}{each}.png") for each in ("", "-dark"))
        assert light.size == dark.size
        assert light.getpixel((0, 0))[:3] == (255, 255, 255)
        assert dark.getpixel((0, 0))[:3] == (13, 17, 23)


# ------------------------------------------------------------------------------------ the command


def test_a_table_tells_of_both_halves_and_of_the_best_uniform_ratio(
    searched: tuple[Path, Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    print_outcome(console(), searched[1])
    printed = capsys.readouterr().out.strip().splitlines()
    header = next(line for line in printed if line.startswith("recipe"))
    assert header.count("report") == header.count("against uniform") == 2
    assert any(line.startswith("best uniform") for line in printed)
    assert printed[-2:] == searched[1].sentences


def test_json_is_what_lies_in_the_folder(
    run: Callable[..., Result], searched: tuple[Path, Outcome]
) -> None:
    result = run("--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    written = json.loads((searched[0] / "results.json").read_text())
    assert said["trials"] == written["trials"]
    assert len(said["trials"]) == TRIALS
    assert said["suggested"] == written["suggested"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--space", "depth"], "begun otherwise: space differs"),
        (["--seed", "1"], "begun otherwise: prompts, seed differ"),
        (["--objective", "world_first exact"], "two objectives"),
        (["--objective", "exact"], "nothing measures `exact`"),
        (["--bounds", "1"], "`1` are no bounds"),
        (["--fix", "norms"], "no part with its ratio"),
        (["--language", "ko", "--limit", "2", "--objective", "knows"], "two objectives"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    run: Callable[..., Result], options: list[str], said: str
) -> None:
    result = run(*options)
    assert result.exit_code == 1
    assert said in result.stderr
    assert "Traceback" not in result.output


# ----------------------------------------------------------------------- what a recipe asks itself


def test_a_recipe_says_what_to_ask_and_a_strangers_may_not_name_programs() -> None:
    recipe = read_recipe(RECIPE)
    own = own_search(recipe, from_hub=False)
    assert own.tasks == (TASKS,)
    assert len(own.objectives) == 2
    with pytest.raises(ChatVecError, match="programs that would run here"):
        own_search(recipe, from_hub=True)
    assert own_search(read_recipe("recipes/eeve_chat.yaml"), from_hub=True).languages == ("ko",)


@pytest.mark.parametrize(
    ("limits", "sampler"), [([], "TPESampler"), (["world_following in_b>=0.9"], "GPSampler")]
)
def test_limits_ask_for_a_gaussian_process(limits: list[str], sampler: str) -> None:
    own = own_search(read_recipe(RECIPE), from_hub=False)
    asked = Asked(1, [*own.objectives, *limits])
    prepared = Search(
        survey(RECIPE),
        Wanted(tasks=own.tasks, limit=LIMIT),
        asked,
        open_live=lambda each: live(each, device="cpu"),
        device="cpu",
    )
    assert len(prepared.sought.constraints) == len(limits)
    assert type(sampler_of(prepared)._sampler).__name__ == sampler


def test_the_suites_figures_are_those_of_an_evaluation(tmp_path: Path) -> None:
    surveyed = survey(RECIPE)
    wanted = Wanted(languages=["ko"], limit=2)
    prepared = Search(
        surveyed,
        wanted,
        Asked(1, space="global"),
        open_live=lambda each: live(each, device="cpu"),
        device="cpu",
    )
    assert [each.name for each in prepared.sought.objectives] == ["quality", "closeness"]
    halves = (*prepared.halves.search, *prepared.halves.report)
    marks = prepared.measure({"all": 0.5}, halves)
    (result,) = evaluate(RECIPE, ratio=0.5, language="ko", limit=2, state=tmp_path, device="cpu")
    for objective in prepared.sought.objectives:
        for figure in objective.measure.figures:
            if not marks[figure.name]:  # no answer is in any language
                continue
            value = Measure((figure,)).value(marks)
            assert result.score(figure.name).value == pytest.approx(value, abs=1e-4), figure.name


def test_a_trial_like_an_earlier_one_is_not_asked_again(
    searched: tuple[Path, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    measure = Search.measure_recipe

    def counted(self: Search, recipe: Any, places: Any) -> Any:
        asked.append(len(places))
        return measure(self, recipe, places)

    monkeypatch.setattr(Search, "measure_recipe", counted)
    found = search(
        RECIPE, tmp_path, trials=9, limit=2, space="global", bounds=(0, 0.01), device="cpu"
    )
    assert len(found.trials) == 9  # of the three ratios that there are
    assert len({tuple(t.numbers.values()) for t in found.trials}) <= 3
    assert len(asked) <= 3 * 2 + 3
