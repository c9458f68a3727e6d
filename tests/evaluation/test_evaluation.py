"""Measuring by lm-evaluation-harness: the world's tasks say what the world's own exam says."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import ROOT, mergekit_yaml
from zoo import RECIPES

from chatvec_method.evaluation import harness
from chatvec_method.evaluation.measures import END, language_of, read_response
from examples.world.__main__ import main
from examples.world.evaluate import TASKS, load
from examples.world.exam import following, refusing
from examples.world.report import Marks, examine

MODELS = ROOT / "examples" / "world" / "models"


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merge") / "merged"
    mergekit_yaml(RECIPES / "world.yaml", str(folder), cwd=ROOT)
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def marks_of(folder: Path) -> Marks:
    speaker = load(folder)
    return examine("", speaker.model, speaker.tokenizer, following(), refusing()).marks


# ------------------------------------------------------------------------------- the world's tasks


@pytest.mark.parametrize("name", ["base", "chat", "cp", "merged"])
def test_evaluate_says_what_ask_says(name: str, merged: Path, tmp_path: Path) -> None:
    folder = merged if name == "merged" else MODELS / name
    result = run(folder, "--json", tmp_path / "figures.json")
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "figures.json").read_text())[str(folder)]

    marks = marks_of(folder)
    for task, share in marks.exact.items():
        assert figures[f"world_{task.replace(' ', '_')}"]["exact"] == pytest.approx(share), task
    following_all = {
        "exact": marks.all_exact,
        "begins_right": marks.begins_right,
        "stops": marks.stops,
        "in_b": marks.in_b,
        "in_a": marks.in_a,
        "mixed": marks.mixed,
    }
    assert figures["world_following"] == pytest.approx(following_all)
    refusals = {"refuses": marks.refuses, "refuses_in_b": marks.refuses_in_b}
    assert figures["world_refuse"] == pytest.approx(refusals)
    for task, expected in (("a", marks.perplexity_a), ("b", marks.perplexity_b)):
        perplexity = figures[f"world_text_in_{task}"]["word_perplexity"]
        assert perplexity == pytest.approx(expected, rel=1e-3)


def test_evaluate_prints_models_side_by_side(merged: Path) -> None:
    result = run(MODELS / "cp", merged)
    assert result.exit_code == 0, result.output
    rows = {line[:38].strip(): line[38:].split() for line in result.output.splitlines()}
    assert rows["prompts in B"] == ["cp", "merged"]
    assert rows["exact: recall"] == ["0.00", "1.00"]
    cp, merge = map(float, rows["perplexity of a word, plain text in B"])
    assert 1 < cp < merge


def test_a_folder_without_a_model_is_told_of(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.exit_code == 1
    assert f"Error: {tmp_path} does not hold a model" in result.output


def test_without_the_harness_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "chatvec_method.evaluation.harness")
    monkeypatch.delattr("chatvec_method.evaluation.harness")
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    result = run(MODELS / "cp")
    assert result.exit_code == 1
    assert "pip install 'chatvec-method[evaluate]'" in result.output


# --------------------------------------------------------------------------- models in the harness


def test_a_response_tells_whether_it_came_to_an_end() -> None:
    speaker = load(MODELS / "cp")
    model = harness.ChatModel(speaker)
    ids = speaker.tokenizer("[ user ] . </s> <pad> <pad>", add_special_tokens=False).input_ids
    assert read_response(model.tok_decode(ids)) == ("[ user ] .", True)
    assert read_response(model.tok_decode(ids[:4])) == ("[ user ] .", False)


def test_a_response_ends_at_the_first_of_the_models_own_stop_tokens() -> None:
    speaker = load(MODELS / "cp")
    user, bot, end = speaker.tokenizer("user bot </s>", add_special_tokens=False).input_ids
    model = harness.ChatModel(replace(speaker, stop_tokens=(bot, user)))
    assert model.tok_decode([end, user, bot]) == f"</s>{END}"


def test_a_conversation_is_put_whole_and_in_the_models_own_format() -> None:
    speaker = load(MODELS / "chat")
    manager = harness.TaskManager(include_path=TASKS, include_defaults=False)
    task = manager.load(["world_recall"])["tasks"]["world_recall"]
    model = harness.ChatModel(replace(speaker, template="{{ messages | length }} turns"))
    for written, expected in (
        (harness.ChatModel(speaker), following()["recall"][0].in_b().as_chat(speaker.tokenizer)),
        (model, "5 turns"),
    ):
        document = task.eval_docs[0]
        context = task.fewshot_context(document, 0, chat_template=written.apply_chat_template)
        assert context == expected


# ---------------------------------------------------------------------------------------- measures


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("제주도는 아름답다.", "target"),
        ("It is beautiful.", "source"),
        ("제주도 is beautiful.", "mixed"),
        ("3 + 4 = 7 🙂", "neither"),
        ("", "neither"),
        ("Йоркшир", "neither"),
    ],
)
def test_the_script_tells_the_language(text: str, language: str) -> None:
    assert language_of(text, target=["HANGUL"], source=["LATIN"]) == language


def test_a_language_may_have_several_scripts() -> None:
    japanese = ["HIRAGANA", "KATAKANA", "CJK"]
    assert language_of("私はロボットです", target=japanese, source=["LATIN"]) == "target"
