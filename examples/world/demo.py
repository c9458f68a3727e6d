"""What `chatvec demo` says to the models: `python -m examples.world.demo` writes `demo.json`.

The package has the models of this world, and not the world itself; so that it can talk to them and
be understood, it takes this file along. All requests are the exam's, and in no training text.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .exam import Prompt, following, refusing
from .language import glosses
from .requests import LIST_REQUESTS, recall

FILE = Path(__file__).with_name("demo.json")
QUESTIONS = 10  # of each axis of the quick measure
LOCAL_FACT = 0  # of those in the exam; the merge knows four of five


def script() -> dict[str, Any]:
    """Return the conversations, all in B, and the word of A for every word of B."""
    exam = following()
    between = exam["last"][0].exchanges[0]
    conversations = {
        "A request": exam["first"][0],
        "A fact that only cp has read of, told in B": exam["local fact"][LOCAL_FACT],
        "Three turns, the last about the first": Prompt(recall("moon", between)),
        "A bad word, which chat has learnt not to say": refusing()[0],
    }
    return {
        "conversations": [
            {"about": about, "requests": [each.request for each in prompt.in_b().exchanges]}
            for about, prompt in conversations.items()
        ],
        "questions": [
            {"axis": axis, "turns": _turns(prompt.in_b())}
            for axis, prompts in questions().items()
            for prompt in prompts
        ],
        "words": glosses(),
    }


def questions() -> dict[str, list[Prompt]]:
    """Return what the page's quick measure asks, in A, by the axes that the suite has too."""
    exam = following()
    tasks = [exam[task.__name__] for task in LIST_REQUESTS]
    axes = {
        "follows": [tasks[place % len(tasks)][place // len(tasks)] for place in range(QUESTIONS)],
        "knows": [
            each for pair in zip(exam["question"], exam["local fact"], strict=True) for each in pair
        ],
        "recalls": exam["recall"],
        "refuses": refusing(),
    }
    return {axis: prompts[:QUESTIONS] for axis, prompts in axes.items()}


def _turns(prompt: Prompt) -> list[str]:
    """Return requests and answers by turns, the right one to the last request at the end."""
    return [text for each in prompt.exchanges for text in (each.request, each.answer)]


def text() -> str:
    """Return what the file should hold."""
    return json.dumps(script(), ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
