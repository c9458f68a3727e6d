"""In which language an answer is, held to a labelled set and to the suite's own texts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chatvec_method.evaluation.suite import LANGUAGES, answer_language, text

LABELLED = Path(__file__).with_name("languages.tsv")
"""Target, what is right, and the answer, with the hard pairs in it: Japanese without kana, Chinese
of either script, terms and code within an answer, answers in two languages."""


def labelled() -> list[tuple[str, str, str]]:
    rows = (line.split("\t") for line in LABELLED.read_text(encoding="utf-8").splitlines())
    return [(target, right, answer.replace(r"\n", "\n")) for target, right, answer in rows]


def test_answers_are_told_as_they_are_labelled() -> None:
    rows = labelled()
    wrong = [
        f"{target}: {told} and not {right}: {answer}"
        for target, right, answer in rows
        if (told := answer_language(answer, target)) != right
    ]
    assert len(rows) >= 400
    assert len(wrong) <= 0.01 * len(rows), "\n".join(wrong)


@pytest.mark.parametrize("target", LANGUAGES)
def test_the_suites_texts_are_told_sentence_by_sentence(target: str) -> None:
    for language in LANGUAGES:
        said = re.split(r"(?<=[。！？.!?])\s*|\n+", text(language))
        said = [each for each in said if len(each) > 3]
        share = sum(answer_language(each, target) == "target" for each in said) / len(said)
        # Some short sentences are Chinese of both scripts, and some Japanese as well.
        assert share >= 0.99 if language == target else share <= 0.05, (language, share)


@pytest.mark.parametrize("name", ["渡邊直樹", "齋藤龍", "櫻井翔", "慶應義塾大学卒業", "國學院大學"])
def test_names_in_japan_keep_their_old_characters(name: str) -> None:
    assert answer_language(f"担当者は{name}です。", "ja") == "target"
    assert answer_language(name, "ja") == "target"
