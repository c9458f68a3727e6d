"""What is asked: the suite's prompts spread over their axes, and text in pieces."""

from __future__ import annotations

from collections import Counter

import pytest
from lm_eval.tasks import TaskManager

from chatvec_method.evaluation import suite
from chatvec_method.evaluation.questions import (
    LONGEST_PARAGRAPH,
    SHORTEST_PIECE,
    asked_of,
    pieces,
)
from chatvec_method.evaluation.ready import TASKS, task_names


def test_a_limit_is_of_each_axis_and_spread_over_it() -> None:
    every, some = asked_of("ko"), asked_of("ko", 4)
    assert len(every) == len(suite.prompts("ko"))
    assert set(Counter(prompt.axis for prompt in some).values()) == {4}
    follows = [prompt for prompt in every if prompt.axis == "follows"]
    places = [follows.index(prompt) for prompt in some if prompt.axis == "follows"]
    assert places[0] == 0
    assert places[-1] >= len(follows) / 2


@pytest.mark.parametrize("language", suite.LANGUAGES)
def test_the_suites_texts_are_read_in_pieces_of_which_none_is_a_heading(language: str) -> None:
    text = suite.text(language)
    read = pieces(text)
    assert "".join("".join(read).split()) == "".join(text.split())
    assert len(read) >= 5
    assert all(len(piece.encode()) >= SHORTEST_PIECE for piece in read[:-1])


def test_long_paragraphs_are_cut_at_line_ends_or_anywhere() -> None:
    assert [len(piece) for piece in pieces("가" * 4500)] == [2000, 2000, 500]
    line = "나" * 700
    first, *_ = pieces("\n".join([line] * 6))
    assert first == f"{line}\n{line}"
    assert len(first) < LONGEST_PARAGRAPH
    assert pieces("\r\n\r\n \r\n\r\n") == []


def test_our_groups_are_of_tasks_that_the_harness_has() -> None:
    folders = ["click", "kobest", "include", "belebele", "mgsm", "tmlu", "ceval", "arc"]
    tasks = TaskManager.__module__.rpartition(".")[0]
    from importlib import import_module
    from pathlib import Path

    root = Path(import_module(tasks).__file__ or "").parent
    manager = TaskManager(
        include_path=[str(root / folder) for folder in folders], include_defaults=False
    )
    for names in TASKS.values():
        assert set(names) <= set(manager.all_tasks)


def test_ready_is_for_the_languages_that_are_evaluated() -> None:
    assert task_names(["ready"], ["ko", "en"]) == [*TASKS["ko"], *TASKS["en"]]
    assert task_names(["ready-ja", "kmmlu"], ["ko"]) == [*TASKS["ja"], "kmmlu"]
