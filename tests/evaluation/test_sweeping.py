"""A recipe at many ratios: the world's figures, nothing asked twice, and the same after a kill."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT

from chatvec_method import ChatVecError, Results, evaluate
from chatvec_method.evaluation import questions, targets
from chatvec_method.evaluation.adapter import ChatModel
from chatvec_method.evaluation.sweep import STEPS, Line, Step

WORLD = ROOT / "examples" / "world"
MODELS = WORLD / "models"
RECIPE = "recipes/world.yaml"
OUR_SEED = "seed 1"
"""Of the models in the repository, in the experiment's table."""
MEASURES = {
    "follows": "world_following exact",
    "stops": "world_following stops",
    "in B": "world_following in_b",
    "in A": "world_following in_a",
    "mixed": "world_following mixed",
    "refuses": "world_refuse refuses",
    "refuses in B": "world_refuse refuses_in_b",
    "perplexity A": "world_text_in_a word_perplexity",
    "perplexity B": "world_text_in_b word_perplexity",
}
"""What the experiment's table calls a figure, and what the evaluation does."""


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(questions, "LONGEST_ANSWER", 6)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Put four requests at once, and note how many each batch had."""
    monkeypatch.setattr(targets, "batch_size", lambda _: 4)
    sizes: list[int] = []
    generate = ChatModel._model_generate

    def watched(self: ChatModel, context: torch.Tensor, **settings: Any) -> Any:
        sizes.append(len(context))
        return generate(self, context=context, **settings)

    monkeypatch.setattr(ChatModel, "_model_generate", watched)
    return sizes


def experiment() -> Iterator[dict[str, str]]:
    """Yield the rows of the experiment's table."""
    with (ROOT / "docs" / "world" / "results.csv").open(newline="") as file:
        yield from csv.DictReader(file)


def small(state: Path, **settings: Any) -> Results:
    """Evaluate the world's recipe at two ratios, on a few Korean prompts that it cannot read."""
    return evaluate(
        RECIPE, ratio="0,0.5", language="ko", limit=2, state=state, device="cpu", **settings
    )


# ------------------------------------------------------------------------------------ right figures


def test_the_worlds_models_have_the_figures_of_the_experiment(tmp_path: Path) -> None:
    named = {"chat": str(MODELS / "chat"), "cp": str(MODELS / "cp")}
    results = evaluate(
        [RECIPE, *named.values()],
        ratio=0.625,
        tasks=str(WORLD / "tasks"),
        state=tmp_path,
        device="cpu",
    )
    by_point = {(each.point.target, each.point.ratio): each for each in results}
    compared = 0
    for row in experiment():
        if row["vector"] == "" and row["model"] in named:
            result = by_point[named[row["model"]], None]
        elif (row["model"], row["vector"], row["schedule"]) == ("cp", "chat", "constant"):
            result = by_point.get((RECIPE, float(row["ratio"])))
        else:
            continue
        if result is not None and row["measure"] in MEASURES:
            measured = result.score(MEASURES[row["measure"]]).value
            tolerance = 2e-3 if "perplexity" in row["measure"] else 6e-5  # rows are rounded
            assert measured == pytest.approx(float(row[OUR_SEED]), abs=tolerance), row
            compared += 1
    assert compared == 3 * len(MEASURES)
    assert results.moved == {RECIPE: {"examples/world/models/chat": pytest.approx(3.657, abs=1e-3)}}
    (one,) = [s for s in by_point[RECIPE, 0.625].scores if s.axis == "world_following exact"]
    assert one.interval is not None
    assert one.interval[0] < one.value < one.interval[1]
    assert one.prompts == 192


def test_ratio_0_is_cp_and_schedules_stand_beside_ratios(tmp_path: Path) -> None:
    results = evaluate(
        [RECIPE, str(MODELS / "chat"), str(MODELS / "cp")],
        ratio=0,
        schedule=["constant:0", "linear:1:0"],
        language="ko",
        limit=2,
        state=tmp_path,
        device="cpu",
    )
    cp, constant, line, _, model = results
    assert [each.point.label for each in results][:3] == ["0", "constant:0", "linear:1:0"]
    assert cp.scores == constant.scores == model.scores
    assert line.scores != cp.scores


# ------------------------------------------------------------------------------ nothing asked twice


def test_a_second_evaluation_asks_the_model_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: list[int]
) -> None:
    first = small(tmp_path)
    assert batches

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was opened")

    monkeypatch.setattr(targets.RecipeTarget, "_opened_live", refuse)
    again = small(tmp_path)
    assert again.results[0].scores == first.results[0].scores
    assert [each.scores for each in again] == [each.scores for each in first]
    assert [each.line for each in again] == [each.line for each in first]
    assert list(again.answers()) == list(first.answers())


def test_a_killed_evaluation_goes_on_and_says_the_same(tmp_path: Path, batches: list[int]) -> None:
    whole = small(tmp_path / "whole")
    of_whole = sum(batches)
    batches.clear()

    def kill(after: int) -> Callable[[Step], None]:
        answered = 0

        def count(step: Step) -> None:
            nonlocal answered
            answered += step.kind == "generate_until" and step.done > 0
            if answered > after:
                raise KeyboardInterrupt

        return count

    for after in (1, 16):  # in the first batch, and at the second ratio
        with pytest.raises(KeyboardInterrupt):
            small(tmp_path / "killed", on_step=kill(after))
    resumed = small(tmp_path / "killed")
    assert list(resumed.answers()) == list(whole.answers())
    assert [each.scores for each in resumed] == [each.scores for each in whole]
    assert [each.line for each in resumed] == [each.line for each in whole]
    # Only the batches that were cut short are asked again.
    assert of_whole <= sum(batches) <= of_whole + 2 * 4


def test_other_ratios_in_the_recipe_and_other_comments_ask_nothing_anew(
    tmp_path: Path, batches: list[int]
) -> None:
    small(tmp_path / "state")
    batches.clear()
    text = (ROOT / RECIPE).read_text(encoding="utf-8").replace("ratio: 0.625", "ratio: 0.5")
    text += "# mine\n"
    copy = tmp_path / "copy.yaml"
    copy.write_text(text, encoding="utf-8")
    settings: dict[str, Any] = {"language": "ko", "limit": 2, "state": tmp_path / "state"}
    results = evaluate(copy, own_ratio=True, ratio=0, device="cpu", **settings)
    assert [each.point.ratio for each in results] == [0.5, 0]
    assert [each.point.own for each in results] == [True, False]
    assert not batches

    copy.write_text(text.replace("out_dtype: bfloat16", "out_dtype: float32"), encoding="utf-8")
    evaluate(copy, ratio=0.5, device="cpu", **settings)
    assert batches


def test_smaller_batches_are_put_where_memory_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "batch_size", lambda _: 4)
    sizes = []
    generate = ChatModel._model_generate

    def scarce(self: ChatModel, context: torch.Tensor, **settings: Any) -> Any:
        sizes.append(len(context))
        if len(context) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(self, context=context, **settings)

    monkeypatch.setattr(ChatModel, "_model_generate", scarce)
    small(tmp_path)
    assert sizes[:2] == [4, 2]
    assert 4 not in sizes[1:]

    monkeypatch.setattr(targets, "batch_size", lambda _: 1)
    monkeypatch.setattr(
        ChatModel, "_model_generate", lambda *_, **__: scarce(None, torch.empty(9, 1))
    )
    with pytest.raises(ChatVecError, match="even for one request at a time"):
        small(tmp_path / "other")


# --------------------------------------------------------------------------------- the line from cp


def test_the_line_from_cp_goes_through_the_ratios_between(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text(
        "누출 손본굼 브시 증선 미린 .\n\n늠숭란 몬론멀 건옴 고시문 ?\n", encoding="utf-8"
    )
    results = evaluate(
        RECIPE, ratio=[0, 0.5, 1], schedule="constant:1", text=file, state=tmp_path, device="cpu"
    )
    zero, half, one, spread = (each.line for each in results)
    assert zero is not None
    assert half is not None
    assert one is not None
    assert spread is not None
    assert len(set(zero.perplexities)) == 1
    assert one.perplexities[0] == half.perplexities[0] == zero.perplexities[0]
    assert one.perplexities[2] == half.perplexities[4]
    assert spread.perplexities == one.perplexities
    assert results.results[2].score("reads text.txt").value == one.perplexities[4]


def test_a_barrier_is_what_lies_above_the_straight_line() -> None:
    def line(*losses: float) -> Line:
        return Line(tuple(map(math.exp, losses)))

    assert len(STEPS) == 5
    assert line(1, 1.1, 1.2, 1.3, 1.4).barrier == pytest.approx(0)
    assert line(1, 0.9, 0.8, 0.9, 1).barrier == 0
    assert line(1, 1.1, 1.7, 1.3, 1.4).barrier == pytest.approx(0.5)


# ------------------------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    ("targets", "settings", "message"),
    [
        ("nowhere", {"language": "ko"}, "there is no folder nowhere"),
        (RECIPE, {}, "nothing is to be found out. Write `--language`"),
        (RECIPE, {"language": "fr"}, "no prompts in 'fr'"),
        (RECIPE, {"language": "ko", "ratio": "0:1"}, "`0:1` lists no ratios"),
        (RECIPE, {"language": "ko", "schedule": "line"}, "`line` is no shape"),
        (RECIPE, {"text": "nowhere.txt"}, "the text nowhere.txt cannot be read"),
        (RECIPE, {"tasks": "realtoxicityprompts"}, "counts an answer as not toxic whenever"),
        (RECIPE, {"tasks": "ready"}, "no tasks `ready` without a language"),
        (str(MODELS / "chat"), {"language": "ko", "ratio": 1}, "is for a recipe, and no target is"),
        (str(MODELS / "cp"), {"language": "ko"}, "beside a model that has one"),
        ([], {"language": "ko"}, "there is nothing to evaluate"),
    ],
)
def test_what_cannot_be_evaluated_is_told_in_one_line(
    targets: Any, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ChatVecError, match=message.replace("(", r"\(")) as told:
        evaluate(targets, state=tmp_path, device="cpu", **settings)
    assert "\n" not in str(told.value)


def test_a_recipe_may_be_a_dict(tmp_path: Path) -> None:
    recipe = yaml.safe_load((ROOT / RECIPE).read_text(encoding="utf-8"))
    results = evaluate(recipe, language="ko", limit=1, state=tmp_path, device="cpu")
    assert [each.point.ratio for each in results] == [0.625]


def test_a_recipe_with_a_chat_vector_as_a_file_says_the_same(tmp_path: Path) -> None:
    from chatvec_method import extract_vector

    extract_vector(str(MODELS / "base"), str(MODELS / "chat"), tmp_path / "vector", bits=16)
    recipe = yaml.safe_load((ROOT / RECIPE).read_text(encoding="utf-8"))
    *_, cp = recipe["models"]
    vector = {"model": str(tmp_path / "vector"), "parameters": {"role": "vector", "ratio": 0.5}}
    text = tmp_path / "text.txt"
    text.write_text("누출 손본굼 브시 증선 미린 .", encoding="utf-8")
    settings: dict[str, Any] = {"ratio": 0.5, "text": text, "state": tmp_path, "device": "cpu"}
    by_file = evaluate({**recipe, "models": [cp, vector]}, **settings)
    by_pair = evaluate(recipe, **settings)
    assert by_file.moved == {"the recipe": {}}
    assert by_file.results[0].score("reads text.txt").value == pytest.approx(
        by_pair.results[0].score("reads text.txt").value, rel=1e-3
    )
