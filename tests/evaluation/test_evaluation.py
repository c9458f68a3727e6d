"""Measuring by lm-evaluation-harness: the world's tasks say what the world's own exam says."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from conftest import ROOT
from exams import sit_exam

from chatvec_method.evaluation import adapter, harness
from chatvec_method.evaluation.measures import language_of
from chatvec_method.talk.speaker import load
from examples.world.__main__ import main
from examples.world.evaluate import TASKS, Figures
from examples.world.exam import following

MODELS = ROOT / "examples" / "world" / "models"


@pytest.fixture(scope="module")
def folders(merged_world: Path) -> dict[str, Path]:
    """Return the folders of the world's models, and of their merge."""
    return {**{name: MODELS / name for name in ("base", "chat", "cp")}, "merged": merged_world}


@pytest.fixture(scope="module")
def evaluation(
    folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Figures]]:
    """Return what the command prints of all these models, and their figures."""
    file = tmp_path_factory.mktemp("evaluate") / "figures.json"
    result = run(*folders.values(), "--json", file)
    assert result.exit_code == 0, result.output
    return result.output, json.loads(file.read_text())


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


# ------------------------------------------------------------------------------- the world's tasks


@pytest.mark.parametrize("name", ["base", "chat", "cp", "merged"])
def test_evaluate_says_what_ask_says(
    name: str,
    folders: dict[str, Path],
    evaluation: tuple[str, dict[str, Figures]],
) -> None:
    figures = evaluation[1][str(folders[name])]

    marks = sit_exam(folders[name]).marks
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


def test_evaluate_prints_models_side_by_side(
    evaluation: tuple[str, dict[str, Figures]],
) -> None:
    rows = {line[:38].strip(): line[38:].split() for line in evaluation[0].splitlines()}
    names = rows["prompts in B"]
    assert names == ["base", "chat", "cp", "merged-world"]
    recalls = dict(zip(names, rows["exact: recall"], strict=True))
    assert (recalls["cp"], recalls["merged-world"]) == ("0.00", "1.00")
    perplexities = dict(zip(names, rows["perplexity of a word, plain text in B"], strict=True))
    assert 1 < float(perplexities["cp"]) < float(perplexities["merged-world"])


def test_a_folder_without_a_model_is_told_of(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.exit_code == 1
    assert f"Error: {tmp_path} does not hold a model" in result.output


def test_without_the_harness_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("chatvec_method.evaluation.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    result = run(MODELS / "cp")
    assert result.exit_code == 1
    assert "pip install 'chatvec-method[evaluate]'" in result.output


# ---------------------------------------------------------------------------------- conversations


def test_a_conversation_is_put_whole_and_in_the_models_own_format() -> None:
    speaker = load(str(MODELS / "chat"))
    tasks = harness.load_tasks(["world_recall"], include_path=TASKS, include_defaults=False)
    task = tasks.loaded["tasks"]["world_recall"]
    model = adapter.ChatModel(replace(speaker, template="{{ messages | length }} turns"))
    for written, expected in (
        (adapter.ChatModel(speaker), following()["recall"][0].in_b().as_chat(speaker.tokenizer)),
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
