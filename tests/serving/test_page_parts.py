"""What the page is made of, without a browser."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
from conftest import ROOT
from fastapi.testclient import TestClient
from live_server import live_world

from chatvec_method import ChatVecError, LiveMerge
from chatvec_method.evaluation import suite
from chatvec_method.recipe.file import parse_recipe
from chatvec_method.serving.app import api
from chatvec_method.serving.engine import Engine
from chatvec_method.serving.page import words as page_words
from chatvec_method.serving.page.curves import curves_svg
from chatvec_method.serving.page.handlers import new_folder
from chatvec_method.serving.page.knobs import KNOTS, RECIPE, Board, Knobs, checked_shape, knobs_of
from chatvec_method.serving.page.measure import AXES, Measurement, Share, suite_exam, world_exam
from chatvec_method.serving.page.mounting import mount_page
from chatvec_method.serving.page.picture import schedule_svg
from chatvec_method.serving.page.session import Session, Turn, wins
from chatvec_method.serving.page.told import as_said, as_text, turn_at
from chatvec_method.serving.page.words import words, words_for
from chatvec_method.serving.settings import Settings

LANGUAGES = sorted(set(page_words.LOCALES.values()))


@pytest.fixture(scope="module")
def live() -> LiveMerge:
    return live_world()


@pytest.fixture(scope="module")
def board(live: LiveMerge) -> Board:
    return Board(live.recipe, live.plan)


@pytest.fixture(scope="module")
def client(live: LiveMerge) -> Iterator[TestClient]:
    engine = Engine(live, device="cpu")
    app = mount_page(api(engine), engine, live, world=True)
    with TestClient(app) as client:
        yield client
    engine.close()


# --- Words -----------------------------------------------------------------------------------


def test_every_language_has_every_text_with_the_same_blanks() -> None:
    def blanks(text: str) -> set[str | None]:
        return {name for _, name, _, _ in Formatter().parse(text)} - {None}

    english = words("en")
    for language in LANGUAGES:
        texts = words(language)
        assert texts.keys() == english.keys()
        assert all(text.strip() for text in texts.values())
        assert {n: blanks(t) for n, t in texts.items()} == {
            n: blanks(t) for n, t in english.items()
        }


def test_every_text_is_used_and_every_one_that_is_used_is_there() -> None:
    page = ROOT / "chatvec_method" / "serving" / "page"
    code = "\n".join(file.read_text(encoding="utf-8") for file in page.glob("*.py"))
    for name in words("en").keys() - set(AXES):
        stem = re.sub(r"_?\d$", "", name)
        assert re.search(rf"[\"']{re.escape(name)}[\"']|[\"']{re.escape(stem)}_", code) or (
            name == "final_norm"  # the pictures' name, with a blank
        ), name


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("ko-KR,ko;q=0.9,en;q=0.8", "ko"),
        ("ja", "ja"),
        ("zh-TW,zh;q=0.9", "zh-Hant"),
        ("zh-HK", "zh-Hant"),
        ("zh-Hant-US", "zh-Hant"),
        ("zh-CN", "zh-Hans"),
        ("zh", "zh-Hans"),
        ("fr-FR,ko", "en"),
        ("", "en"),
        (None, "en"),
    ],
)
def test_the_server_speaks_the_browsers_first_language(accepted: str | None, language: str) -> None:
    assert words_for(accepted) == words(language)


# --- Sliders ---------------------------------------------------------------------------------


def ratios(board: Board, knobs: Knobs) -> dict[str, list[float]]:
    plan = board.plan(board.reworded((knobs,)))
    (chat,) = board.chats
    kinds: dict[str, list[float]] = {}
    for tensor in plan.tensors:
        kinds.setdefault(tensor.kind, []).append(tensor.ratios[chat])
    return kinds


def test_the_first_setting_is_the_recipe_as_it_is_written(board: Board, live: LiveMerge) -> None:
    assert board.first == (Knobs(0.625),)
    assert board.reworded(board.first).recipe.text == live.recipe.text


def test_a_typed_ratio_is_exact_and_alone_in_the_recipe(board: Board) -> None:
    reworded = board.reworded((Knobs(0.1234567890123),))
    assert "ratio: 0.1234567890123" in reworded.recipe.text
    assert set().union(*ratios(board, Knobs(0.1234567890123)).values()) == {0.1234567890123}


def test_sliders_that_change_nothing_make_no_other_setting(board: Board) -> None:
    ones = dict.fromkeys(board.parts, 1.0)
    assert knobs_of(0.625, "constant:1", ones, (2.0,) * 5) == board.first[0]


def test_ratio_part_and_depth_are_multiplied(board: Board) -> None:
    kinds = ratios(board, Knobs(0.5, "linear:1:0.5", {"attention": 0.5, "embeddings": 0.0}))
    assert sorted(set(kinds["MLP"])) == [0.25, 0.375, 0.5]
    assert sorted(set(kinds["attention"])) == [0.125, 0.1875, 0.25]
    assert set(kinds["embeddings"]) == {0.0}


def test_knots_are_joined_by_straight_lines(board: Board) -> None:
    kinds = ratios(board, Knobs(1.0, KNOTS, {}, (1.0, 1.0, 0.5, 0.0, 0.0)))
    assert sorted(set(kinds["MLP"])) == [0.0, 0.5, 1.0]


def test_no_noise_of_arithmetic_comes_into_a_recipe(board: Board) -> None:
    parts = dict.fromkeys(board.parts, 3.0)
    assert "ratio: 0.3}" in board.reworded((Knobs(0.1, parts=parts),)).recipe.text


def test_a_recipes_own_schedule_is_scaled(live: LiveMerge) -> None:
    text = live.recipe.text.replace("ratio: 0.625", "ratio: [1, 0.5, 0.2]")
    recipe = parse_recipe(text, "recipe.yaml")
    board = Board(recipe, live.plan.with_ratios(recipe.config))
    assert board.first == (Knobs(1.0, RECIPE),)
    assert sorted(set(ratios(board, Knobs(0.5, RECIPE))["MLP"])) == [0.1, 0.25, 0.5]
    assert sorted(set(ratios(board, Knobs(1.0, RECIPE, {"MLP": 2.0}))["MLP"])) == [0.4, 1.0, 2.0]


def test_parts_of_a_layer_that_differ_have_no_slider(live: LiveMerge) -> None:
    text = live.recipe.text.replace(
        "ratio: 0.625", "ratio: [{filter: q_proj, value: 0.2}, {value: 1}]"
    )
    recipe = parse_recipe(text, "recipe.yaml")
    board = Board(recipe, live.plan.with_ratios(recipe.config))
    assert board.reworded(board.first).recipe.text == text  # untouched, it is as written
    with pytest.raises(ChatVecError, match="several ratios, and a slider has one"):
        board.reworded((Knobs(0.5, RECIPE),))


@pytest.mark.parametrize(
    "shape",
    [
        "per-layer:/etc/passwd",
        "per-layer:ratios.csv",
        "per-layer:nan",
        "wave",
        "linear:x",
        "step:" + "0" * 3000,
    ],
)
def test_a_shape_that_is_none_or_reads_a_file_is_refused(shape: str) -> None:
    with pytest.raises(ChatVecError):
        checked_shape(shape)


@pytest.mark.parametrize(
    "named",
    [
        {"name": "merge@per-layer:/etc/passwd"},
        {"schedule": "per-layer:ratios.csv"},
        {"schedule": {"chat": "per-layer ratios.csv"}},
    ],
)
def test_the_api_reads_no_file_either(live: LiveMerge, named: dict[str, Any]) -> None:
    with pytest.raises(ChatVecError, match="no files are read here"):
        Settings(live.recipe, live.plan).named(**named)


# --- What one visitor tried ------------------------------------------------------------------


def asked(session: Session, *answers: str) -> None:
    for side, answer in zip(session.sides, answers, strict=False):
        side.ask("?")
        side.turns[-1] = Turn("?", answer, answer, answer)
        side.due = False


def test_the_history_has_each_setting_once_for_what_was_asked() -> None:
    session, board = Session(), (Knobs(0.5),)
    asked(session, "a", "b")
    session.note(board, ("cp", "merge", "nobody"))
    session.sides[0].turns[-1] = replace(session.sides[0].turns[-1], answer="a a")
    session.note(board, ("cp", "merge", "nobody"))
    assert len(session.entries) == 1
    session.note((Knobs(1.0),), ("cp", "merge", "nobody"))
    session.forget()
    assert session.go_back(0).board == board
    assert session.sides[0].turns[-1].answer == "a a"


def test_sides_are_swapped_at_random_and_counted_by_who_they_were() -> None:
    session, lefts = Session(), set()
    for _ in range(40):
        session.shuffle()
        left, right, _ = session.who_at(("cp", "merge", "chat"), blind=True)
        lefts.add(left)
        asked(session, left, right)
        verdict = session.vote("left" if left == "merge" else "right")
        assert verdict is not None
        assert session.vote("left") is None  # once is enough
    assert lefts == {"cp", "merge"}
    assert wins(session.verdicts) == {"merge": (40, 0, 0), "cp": (0, 40, 0)}


# --- Pictures and texts ----------------------------------------------------------------------


def test_the_picture_says_in_words_what_it_shows(board: Board) -> None:
    plan = board.plan(board.reworded((Knobs(1.0, "linear:1:0.5", {"MLP": 0.5}),)))
    picture = schedule_svg(plan, board.chats[0], words("en"))
    (told,) = re.findall(r'aria-label="([^"]*)"', picture)
    assert "Attention 1 0.75 0.5; MLP 0.5 0.375 0.25" in told
    assert "Embeddings 1" in told


def test_the_curves_join_what_differs_in_the_ratio_alone() -> None:
    share = Share(0.5, 0.2, 0.8, 10)
    measured = [
        Measurement(str(ratio), ratio, line, "en", {"follows": share})
        for ratio, line in [(0.0, "a"), (1.0, "a"), (0.5, "b")]
    ]
    panel = curves_svg(measured, words("ko"))
    assert panel.count("<polyline") == 2
    assert "지시를 따름: 0: 50 %, 1: 50 %, 0.5: 50 %" in panel


@pytest.mark.parametrize("language", suite.LANGUAGES)
def test_the_quick_exam_has_ten_prompts_of_each_axis_at_most(language: str) -> None:
    exam = suite_exam(language)
    assert 30 <= len(exam.questions) <= 60
    answers = [("", True)] * len(exam.questions)
    assert exam.shares(answers)["follows"].value == 0


def test_the_worlds_exam_has_ten_questions_of_four_axes() -> None:
    exam = world_exam()
    assert len(exam.questions) == 40
    assert {axis: share.prompts for axis, share in exam.shares([("", True)] * 40).items()} == {
        "follows": 10,
        "knows": 10,
        "recalls": 10,
        "refuses": 10,
    }


@pytest.mark.parametrize(
    "text",
    ["a < b && c > d", "<b>x</b>", "&lt; &copy &amp;lt;", "R&D", "<!-- -->", "<think>", "\\n  x"],
)
def test_a_message_is_shown_as_text_and_comes_back_from_editing_as_it_was(text: str) -> None:
    shown = as_text(text)
    assert not re.search(r"<[a-zA-Z/!?]", shown)
    assert as_said(shown) == text


def test_a_message_is_of_its_turn_also_where_an_answer_is_missing() -> None:
    turns = [Turn("a", "b"), Turn("stopped"), Turn("c", "d")]
    assert [turn_at(turns, bubble) for bubble in range(-1, 6)] == [3, 0, 0, 1, 2, 2, 3]


# --- The disk and the doors ------------------------------------------------------------------


def test_a_merge_goes_only_into_a_new_folder_below_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "way-out").symlink_to(tmp_path)
    (here / "there").mkdir()
    assert new_folder("a/b") == here / "a" / "b"
    for name in ("", " ", "/tmp/x", "../x", "a/../../x", "~/x", "way-out/x", "there", "."):
        with pytest.raises(ChatVecError):
            new_folder(name)


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=%2Fetc%2Fpasswd",
        "/gradio_api/file/etc/passwd",
        "/file=/etc/passwd",
        "/gradio_api/proxy=http://127.0.0.1/",
        "/gradio_api/stream/x/y/0/playlist-file",
        "/gradio_api/custom_component/x/client/component/index.js",
        "/gradio_api/vibe-code",
        "/gradio_api/runs",
        "/gradio_api/run-history/buckets",
        "/gradio_api/call/ask",
        "/monitoring",
        "/monitoring/summary",
        "/assets/../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/%2e%2e/__init__.py",
        "/docs",
        "/openapi.json",
        "/gradio_api/openapi.json",
        "/login",
    ],
)
def test_no_file_of_the_machine_is_behind_any_of_gradios_routes(
    client: TestClient, path: str
) -> None:
    response = client.get(path)
    assert response.status_code in (403, 404)
    assert "root:" not in response.text


@pytest.mark.parametrize(
    "path", ["/gradio_api/upload", "/gradio_api/component_server", "/gradio_api/run/ask"]
)
def test_nothing_can_be_uploaded_or_called_by_name(client: TestClient, path: str) -> None:
    assert client.post(path, files={"files": b"x"}).status_code == 404


def test_the_page_and_the_api_are_there_and_nothing_is_told_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.text.index("zh-TW") < page.text.index("gradio_config")  # before gradio's own
    config = client.get("/config").json()
    assert config["analytics_enabled"] is False
    assert client.get("/v1/models").status_code == 200


def test_gradios_settings_do_not_stay_in_the_environment(client: TestClient) -> None:
    assert "GRADIO_TEMP_DIR" not in os.environ
    assert "GRADIO_ANALYTICS_ENABLED" not in os.environ


def test_names_and_titles_are_escaped(live: LiveMerge) -> None:
    from chatvec_method.serving.page.layout import Content, lay_out

    evil: Any = "<script>window.hacked=1</script>${alert(1)}{{alert(2)}}"
    import gradio as gr

    with gr.Blocks(analytics_enabled=False) as blocks:
        lay_out(Content(evil, Board(live.recipe, live.plan), ("cp", "merge"), (), (), None))
    (title,) = (b for b in blocks.blocks.values() if getattr(b, "elem_id", None) == "title")
    assert "<script>" not in title.value
    assert "${value}" in title.html_template
