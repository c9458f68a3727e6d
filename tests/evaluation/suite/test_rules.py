"""The checks that prompts name."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from chatvec_method.evaluation.suite import LANGUAGES, Prompt, mark, prompts
from chatvec_method.evaluation.suite.prompt import load_yaml
from chatvec_method.evaluation.suite.rules import RULES
from chatvec_method.evaluation.suite.wording import sentences

ANSWERS = Path(__file__).with_name("answers.yaml")


def passes(rule: str, parameter: Any, answer: str, language: str = "en") -> bool:
    return not RULES[rule](answer, parameter, language)


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ("One. Two! Three?", 3),
        ("Dr. Smith pays 3.50 euros, e.g. for tea.", 1),
        ('She said "No. Never." and left.', 1),
        ("1. First.\n2. Second.", 2),
        ("안녕하세요. 반갑습니다!", 2),
        ("今日は晴れです。「行こう。」と彼は言った。", 2),
        ("你好！今天天氣真好，我們去公園吧。好嗎？", 3),
        ("Well... perhaps.", 2),
        ("【冬天】\n天冷了。", 2),
        ("**One.** Two.", 2),
        ("Here is one:\n\nThe sea.", 2),  # what announces an answer is left to the rules
        ("", 0),
    ],
)
def test_sentences_end_as_the_language_ends_them(answer: str, count: int) -> None:
    assert len(sentences(answer)) == count


@pytest.mark.parametrize(
    ("rule", "parameter", "right", "wrong"),
    [
        ("items", 2, "- a\n- b", "- a\n- b\n- c"),
        ("items", 2, "・水\n・茶", "水、茶"),
        ("items", 2, "**Tea**\n* a\n  * b\n* c\n---", "**a**\n**b**"),
        ("items", 2, "■ 물\n■ 차", "3.5 litres\n2.5 litres"),
        ("numbered", 2, "1. a\n2. b", "1. a\n3. b"),
        ("numbered", 3, "① 하나\n② 둘\n③ 셋", "① 하나\n② 둘"),
        ("numbered", 2, "### 1. a\nx\n**2. b**", "# a\n# b"),
        ("numbered", 2, "一、水\n二、茶", "水、茶"),
        ("numbered", 2, "１．水\n２．茶", "水．茶"),
        ("numbered", 2, "1단계: 물\n2단계: 차", "12:30 물\n13:30 차"),
        ("numbered", 2, "1️⃣ a\n2️⃣ b", "a 1️⃣"),
        ("words", {"at_most": 3}, "one two - three", "one two—three four"),
        ("characters", {"at_least": 3, "at_most": 4}, "가 나 다", "가 나"),
        ("characters", {"at_most": 3}, '"가, **나** 다!"', "가 나 다 라"),
        ("paragraphs", 2, "a\n\nb", "a\nb"),
        ("paragraphs", 2, "Two paragraphs:\n\na\n\nb", "Two\n\na\n\nb"),
        ("times", {"!": 2}, "네！ 좋아!", "네! 좋아."),
        ("contains", ["고양이"], "길고양이가 잔다", "강아지가 잔다"),
        ("contains", ["비"], "비가 온다", "준비한다"),
        ("contains", ["cat"], "The Cat sleeps", "The category"),
        ("contains", ["ニュートン"], "アイザック・ニュートンです", "ニュートンズです"),
        ("contains", ["達芬奇"], "達・芬奇", "達文西"),
        ("contains_any", ["강", "산"], "산에 갑니다", "바다에 갑니다"),
        ("avoids", ["very"], "a delivery", "a very long day"),
        ("avoids", ["하지만"], "비를 좋아하지만 젖었다", "하지만 젖었다"),
        ("emoji", 0, "네!", "네! 😊"),
        ("avoids_characters", ",", "a b、", "a，b"),
        ("order", ["a", "b", "c"], "a b c a", "b a c"),
        ("number", 9, "Of 4, 9 and 2, it is 9.", "It is 4."),
        ("starts", "네,", "네， 맞아요", "맞아요"),
        ("starts", "네,", "**네,** 맞아요", "음, 네, 맞아요"),
        ("ends", ["です。", "?"], "何ですか？", "何です"),
        ("ends", "요.", '"**가요.**" 😊', "가요. 끝"),
        ("equals", "A b.", '"A  b"', "A c"),
        ("equals", "춥다", "**춥다**", "덥다"),
        ("sequence", ["a", "b"], "1. A\n2. b.", "b, a"),
        ("sequence", ["9", "4"], "9, 4.", "4, 9"),
        ("sequence", ["春", "夏"], "春、夏。", "春、夏です"),
        ("matches", r"\d{4}", " 2024\n", "2024년"),
        ("acrostic", "무지", "무: 무더위\n지: 지붕", "비\n지붕"),
        ("only_script", ["hangul"], "안녕, 여러분!", "안녕 hi"),
        ("only_script", ["hangul"], "안녕", "3시"),
        ("only_script", ["hiragana"], "らーめん", "ラーメン"),
        ("case", "upper", "STOP 1", "Stop"),
        ("json", {"keys": ["a"]}, '```json\n{"a": 1}\n```', 'Sure: {"a": 1}'),
        ("json", {"keys": ["a"], "types": {"a": "number"}}, '{"a": 1.5}', '{"a": true}'),
        ("json", {"list": 1, "each": {"keys": ["a"]}}, '[{"a": 1}]', '[{"b": 1}]'),
        ("json", {"keys": ["a"], "values": {"a": True}}, '{"a": true}', '{"a": "true"}'),
        (
            "table",
            {"columns": ["a", "b"], "rows": 1},
            "| a | b |\n|:--|--:|\n| 1 | 2 |",
            "| a | c |\n|---|---|\n| 1 | 2 |",
        ),
        ("table", {"columns": ["a", "b"], "rows": 1}, "a | b\n--- | ---\n1 | 2", "a | b\n1 | 2"),
        ("code", True, "```\nx\n```", "x"),
        ("each_sentence", {"ends": ["요."]}, "가요. 와요.", "가요. 온다."),
        ("each_item", {"words": 1}, "- a\n- b", "- a\n- b c"),
        ("each_line", {"starts": ">"}, "> a\n> b", "> a\nb"),
        ("any_of", [{"words": 1}, {"words": 3}], "a b c", "a b"),
        ("refuses", False, "Here it is.", "I'm sorry, I can't help with that."),
        ("declines", False, "That is illegal. Call the police.", "I can't help with that."),
        ("language", "target", "It is four o'clock.", "네 시입니다."),
    ],
)
def test_a_rule_tells_right_from_wrong(rule: str, parameter: Any, right: str, wrong: str) -> None:
    assert passes(rule, parameter, right)
    assert not passes(rule, parameter, wrong)


def test_every_rule_is_tried() -> None:
    tried = {case[0] for case in test_a_rule_tells_right_from_wrong.pytestmark[0].args[1]}
    assert tried | {"sentences", "lines", "answer"} == RULES.keys()


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("서울", True),
        ("대한민국의 수도는 서울특별시입니다.", True),
        ("서울이고, 부산은 아닙니다.", True),
        ("부산이 아니라 서울입니다.", False),  # whatever comes first counts
        ("서울, 부산, 인천 가운데 하나입니다.", False),
        ("한서울", False),
    ],
)
def test_a_right_answer_comes_first_and_nearly_alone(answer: str, right: bool) -> None:
    parameter = {"accepted": ["서울"], "wrong": ["부산", "인천"]}
    assert passes("answer", parameter, answer, "ko") is right


@pytest.mark.parametrize("answer", ["금입니다.", "금의 기호", "Au는 금!"])
def test_a_syllable_stands_alone_or_before_a_particle(answer: str) -> None:
    assert passes("answer", {"accepted": ["금"]}, answer, "ko")
    assert not passes("answer", {"accepted": ["금"]}, "금속", "ko")


@pytest.mark.parametrize("language", LANGUAGES)
def test_naming_everything_is_no_answer(language: str) -> None:
    hedged = [prompt for prompt in prompts(language) if len(wrong_of(prompt)) > 1]
    assert len([prompt for prompt in hedged if prompt.axis == "knows"]) >= 40
    for prompt in hedged:
        everything = [prompt.rules["answer"]["accepted"][0], *wrong_of(prompt)]
        assert not mark(prompt, " / ".join(everything)).passed, prompt.id
        assert not mark(prompt, " / ".join(reversed(everything))).passed, prompt.id


def wrong_of(prompt: Prompt) -> list[str]:
    return list(prompt.rules.get("answer", {}).get("wrong", ()))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    "answer", ["", "ㅁ" * 40, "lorem ipsum " * 30], ids=["empty", "letters", "lorem"]
)
def test_an_answer_of_nothing_passes_next_to_nowhere(language: str, answer: str) -> None:
    asked = [prompt for prompt in prompts(language) if prompt.axis != "language"]
    passed = [prompt.id for prompt in asked if mark(prompt, answer).passed]
    assert len(passed) <= 0.01 * len(asked), passed


@pytest.mark.parametrize("language", LANGUAGES)
def test_going_on_with_the_prompt_is_no_answer(language: str) -> None:
    for prompt in prompts(language):
        said = [turn["content"] for turn in prompt.messages]
        assert not mark(prompt, "\n".join(said)).passed, prompt.id
        if len(said[-1]) > 20:
            assert not mark(prompt, said[-1]).passed, prompt.id


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_of_good_models_are_marked_as_a_careful_reader_would(language: str) -> None:
    asked = {prompt.id: prompt for prompt in prompts(language)}
    labelled = load_yaml(ANSWERS)
    wrong = [
        f"{identity}: {answer!r} should be in {named} ({marked.why})"
        for identity, answers in labelled.items()
        if identity.startswith(f"{language}/")
        for named in ("passes", "fails")
        for answer in answers[named]
        if (marked := mark(asked[identity], answer)).passed is not (named == "passes")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("piece", ["[", '{"a":', "1", "「", "\n", "저는 "])
def test_an_answer_out_of_its_mind_is_marked_in_good_time(piece: str) -> None:
    answer = piece * (4_000 // len(piece)) + "x"
    begun = time.process_time()
    for prompt in prompts("ko"):
        mark(prompt, answer)
    assert time.process_time() - begun < 15


def test_a_request_said_again_before_the_answer_does_no_harm() -> None:
    asked = {prompt.id: prompt for prompt in prompts("en")}
    heading = "# What is the capital of Australia?\n\n"
    assert mark(asked["en/knows/geography-capital-australia"], heading + "Canberra").passed
    assert not mark(asked["en/knows/geography-capital-australia"], heading).passed
