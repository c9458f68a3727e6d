"""How answers end."""

from __future__ import annotations

import pytest

from chatvec_method.evaluation.suite import (
    LANGUAGES,
    ends,
    loops,
    prompts,
    speaks_for_the_user,
    spoken,
)
from chatvec_method.evaluation.suite import text as text_of


@pytest.mark.parametrize(
    "answer",
    [
        "I like hamburgers. " * 50,
        "저는 햄버거를 좋아합니다. " * 20,
        "我喜欢漢堡" * 20,
        "はい。\nはい、わかりました。\n" * 10,
        "The answer is this: ha" + "ha" * 200,
        "1. apples\n2. pears\n" + "3. plums and cherries\n" * 12,
        "A good start. " + "It is a very long sentence that says the same, word for word. " * 4,
        "- same line\n- other line\n" * 8,
    ],
)
def test_saying_the_same_over_and_over_is_a_loop(answer: str) -> None:
    assert loops(answer)
    assert not ends(answer, stopped=True)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "하하하하하",
        "No, no, no, no!",
        "-" * 200,
        "| a | b |\n|---|---|\n" + "".join(f"| {n} | {n * n} |\n" for n in range(30)),
        "\n".join(f"{n}. item number {n}" for n in range(1, 30)),
        "```\n" + "    " * 40 + "\n```",
    ],
)
def test_repetition_in_good_measure_is_no_loop(answer: str) -> None:
    assert not loops(answer)


@pytest.mark.parametrize("language", LANGUAGES)
def test_neither_texts_nor_good_answers_loop_or_speak_for_the_user(language: str) -> None:
    answers = [answer for prompt in prompts(language) for answer in prompt.passing]
    for answer in [*answers, *text_of(language).split("\n\n")]:
        assert ends(answer, stopped=True), answer


@pytest.mark.parametrize(
    "answer",
    [
        "Sure.\nUSER: And what about tea?",
        "네.\n### 사용자: 그럼 내일은요?",
        "はい。\nユーザー：ありがとう",
        "好的。\n用户：谢谢",
        "Done.</s><|im_start|>user",
        "Paris. [INST] And Rome? [/INST] Rome",
    ],
)
def test_an_answer_that_goes_on_as_the_user_did_not_end(answer: str) -> None:
    assert speaks_for_the_user(answer)
    assert not ends(answer, stopped=True)


def test_a_user_within_code_is_no_turn() -> None:
    assert not speaks_for_the_user("Write this:\n```yaml\nuser: anna\n```\nThat is all.")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("<think>\nWhat is asked?\n</think>\n\n서울입니다.", "서울입니다."),
        ("They ask for Seoul.</think>서울입니다.", "서울입니다."),
        ("<think>It is", ""),
        ("I think so.", "I think so."),
    ],
)
def test_what_is_thought_aloud_is_not_said(answer: str, said: str) -> None:
    assert spoken(answer) == said


def test_an_answer_that_was_cut_off_did_not_end() -> None:
    assert not ends("It is Paris.", stopped=False)
