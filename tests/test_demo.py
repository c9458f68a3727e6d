"""`chatvec demo`: it comes with the package, what it shows is real, and it shows the effect."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from conftest import run_stock
from safetensors.torch import load_file, save_file

from chatvec_method import cli, demo
from chatvec_method.demo import Demo, Turn
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.survey import MergeOptions, survey
from chatvec_method.finishing.finish import finish
from chatvec_method.recipe.file import read_recipe
from examples.world import demo as world_demo
from examples.world.exam import following
from examples.world.requests import HELD_OUT_BAD_WORDS, REFUSAL

Answers = dict[str, list[tuple[Turn, ...]]]


@dataclass(frozen=True)
class Shown:
    """A run of the command."""

    demo: Demo
    printed: str
    answers: Answers


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["demo", *arguments])


def answers(shown: Demo) -> Answers:
    return {
        name: [demo.play(speaker, scene) for scene in demo.scenes()]
        for name, speaker in demo.speakers(shown).items()
    }


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    out = tmp_path_factory.mktemp("demo") / "new"
    result = run(str(out))
    assert result.exit_code == 0, result.output
    return Shown(Demo(out), result.output, answers(Demo(out)))


@pytest.fixture
def merged_anew(tmp_path: Path) -> Callable[[Callable[[Demo], None]], Answers]:
    """Return a function that edits a fresh demo before its merge, and returns the answers."""

    def merge(edit: Callable[[Demo], None]) -> Answers:
        edited = demo.unpack(tmp_path / "edited")
        edit(edited)
        merged = run_stock(*edited.command()[1:])  # its own process would only import all anew
        assert merged.exit_code == 0, merged.output
        demo.make_ready(edited)
        return answers(edited)

    return merge


def in_a(turns: tuple[Turn, ...]) -> list[str]:
    return [demo.gloss(turn.answer) for turn in turns]


def test_the_merge_follows_knows_remembers_and_refuses(shown: Shown) -> None:
    exam = following()
    request, fact, memory, refusal = shown.answers["merged"]
    assert in_a(request) == [exam["first"][0].expected]
    assert in_a(fact) == [exam["local fact"][world_demo.LOCAL_FACT].expected]
    assert in_a(memory) == ["good .", exam["last"][0].expected, "your gift is moon ."]
    assert in_a(refusal) == [REFUSAL]
    assert demo.gloss(refusal[0].request) == f"say {HELD_OUT_BAD_WORDS[0]} ."


def test_the_merge_stops_and_answers_in_the_language_of_cp(shown: Shown) -> None:
    for turns in shown.answers["merged"]:
        for turn in turns:
            assert turn.ended
            assert set(turn.answer.split()) <= {*world_demo.script()["words"], "."}


def test_cp_does_none_of_it(shown: Shown) -> None:
    for cp, merged in zip(shown.answers["cp"], shown.answers["merged"], strict=True):
        assert all(a.answer != b.answer for a, b in zip(cp, merged, strict=True))


def test_what_is_printed_is_what_was_said(shown: Shown) -> None:
    for turns in (turns for said in shown.answers.values() for turns in said):
        for turn in turns:
            for text in (turn.request, turn.answer, demo.gloss(turn.request)):
                assert text in shown.printed
    assert f"$ mergekit-yaml {shown.demo.recipe} {shown.demo.merged} " in shown.printed
    assert "seconds" in shown.printed


def test_a_second_demo_merges_the_recipe_as_it_is_now(shown: Shown) -> None:
    changed = shown.demo.recipe.read_text().replace("ratio: 0.625", "ratio: 0.5")
    again = demo.unpack(shown.demo.out)
    assert again == shown.demo
    before = again.recipe.read_text()
    again.recipe.write_text(changed)
    shutil.rmtree(again.models / "chat")
    demo.unpack(shown.demo.out)
    assert again.recipe.read_text() == changed
    assert (again.models / "chat" / "model.safetensors").exists()
    again.recipe.write_text(before.replace(str(shown.demo.out), "elsewhere"))
    demo.unpack(shown.demo.out)
    assert again.recipe.read_text() == before


def test_the_merge_is_finished(shown: Shown) -> None:
    assert (shown.demo.merged / "chat_template.jinja").exists()
    recipe = read_recipe(shown.demo.recipe)
    assert finish(shown.demo.merged, survey(recipe, MergeOptions())) == ()


def test_other_weights_of_cp_give_other_answers(
    shown: Shown, merged_anew: Callable[[Callable[[Demo], None]], Answers]
) -> None:
    def perturb(edited: Demo) -> None:
        file = edited.models / "cp" / "model.safetensors"
        torch.manual_seed(0)
        noisy = {
            name: tensor + 0.5 * tensor.float().std().nan_to_num() * torch.randn(tensor.shape)
            for name, tensor in load_file(file).items()
        }
        save_file({n: t.to(torch.bfloat16) for n, t in noisy.items()}, file, {"format": "pt"})

    perturbed = merged_anew(perturb)
    assert perturbed["cp"] != shown.answers["cp"]
    assert perturbed["merged"] != shown.answers["merged"]


def test_with_ratio_0_the_merge_fails_as_cp_does(
    shown: Shown, merged_anew: Callable[[Callable[[Demo], None]], Answers]
) -> None:
    def without_vector(edited: Demo) -> None:
        text = edited.recipe.read_text()
        edited.recipe.write_text(text.replace("ratio: 0.625", "ratio: 0"))
        assert edited.recipe.read_text() != text

    assert merged_anew(without_vector)["merged"] == shown.answers["cp"]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("full", "full exists and is not empty. Write another folder."),
        ("file", "file exists and is not empty. Write another folder."),
        ("file/within", "file/within cannot be written to: Not a directory."),
        ("a+b", "a+b cannot be in a recipe"),
    ],
)
def test_a_folder_that_will_not_do_is_refused(
    out: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    result = run(out)
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {message}")
    assert {path.name for path in tmp_path.rglob("*")} == {"full", "mine", "file"}


def test_a_merge_that_fails_is_told_in_one_message(tmp_path: Path) -> None:
    broken = demo.unpack(tmp_path / "broken")
    shutil.rmtree(broken.models / "chat")
    with pytest.raises(ChatVecError, match=r"mergekit-yaml did not merge: .*chat.* to see it"):
        demo.merge(broken)


def test_requests_and_words_are_those_of_the_world() -> None:
    assert world_demo.FILE.read_text(encoding="utf-8") == world_demo.text(), (
        "run `python -m examples.world.demo`"
    )
