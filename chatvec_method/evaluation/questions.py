"""What a model is asked, as tasks of the harness: the suite of a language, plain text, and others.

The suite's answers are marked elsewhere, by its own rules; to the harness they are a task whose
documents are conversations. Text is read piece by piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from chatvec_method.errors import ChatVecError
from chatvec_method.evaluation.adapter import ConversationTask
from chatvec_method.evaluation.asked import LONGEST_ANSWER, asked_of, spread, suite_name
from chatvec_method.intake import read_bytes

LARGEST_TEXT_BYTES = 1 << 28
SHORTEST_PIECE, LONGEST_PARAGRAPH = 1500, 2000
"""Of text that is read at once: in bytes, and in characters. A heading alone says little."""


def suite_task(language: str, limit: int | None = None) -> dict[str, Any]:
    """Return the suite's prompts of a language as a task, whose documents are in their order.

    Args:
        language: One of the suite's.
        limit: So many prompts an axis at most.
    """
    return {
        "task": suite_name(language),
        "class": ConversationTask,
        "custom_dataset": partial(_conversations, language, limit),
        "test_split": "test",
        "doc_to_text": "{{messages[-1].content}}",
        "doc_to_target": "",
        "output_type": "generate_until",
        "generation_kwargs": {
            "until": [],
            "do_sample": False,
            "max_gen_toks": LONGEST_ANSWER,
        },
        "process_results": _nothing,
        "metric_list": [{"metric": "answers", "aggregation": "mean", "higher_is_better": True}],
    }


def text_task(name: str, text: str, limit: int | None = None) -> dict[str, Any]:
    """Return a text as a task: its perplexity a byte.

    Args:
        name: Of the task.
        text: Paragraphs, with empty lines between them.
        limit: So many pieces at most, spread evenly over the text.
    """
    return {
        "task": name,
        "custom_dataset": partial(_texts, spread(pieces(text), limit)),
        "test_split": "test",
        "doc_to_text": "",
        "doc_to_target": "text",
        "output_type": "loglikelihood_rolling",
        "metric_list": [{"metric": "byte_perplexity", "higher_is_better": False}],
    }


def text_of(file: Path) -> str:
    """Return the text in a file.

    Raises:
        ChatVecError: It cannot be read, or is empty.
    """
    try:
        text = read_bytes(file, LARGEST_TEXT_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ChatVecError(
            f"the text {file} cannot be read ({reason}).", "Write the path of a UTF-8 text file."
        ) from error
    if not text.strip():
        raise ChatVecError(f"the text {file} is empty.", "Write the path of another file.")
    return text


def pieces(text: str) -> list[str]:
    """Return a text in pieces: paragraphs in a row, until these are long enough."""
    whole: list[str] = []
    for paragraph in _paragraphs(text):
        if whole and len(whole[-1].encode()) < SHORTEST_PIECE:
            whole[-1] += f"\n\n{paragraph}"
        else:
            whole.append(paragraph)
    return whole


def _paragraphs(text: str) -> Iterator[str]:
    """Yield a text's paragraphs; those that are too long are cut at line ends, or anywhere."""
    for paragraph in text.replace("\r\n", "\n").split("\n\n"):
        rest = paragraph.strip()
        while len(rest) > LONGEST_PARAGRAPH:
            cut = rest.rfind("\n", 1, LONGEST_PARAGRAPH)
            cut = cut if cut > 0 else LONGEST_PARAGRAPH
            yield rest[:cut]
            rest = rest[cut:].strip()
        if rest:
            yield rest


def _conversations(language: str, limit: int | None, **_: Any) -> dict[str, Any]:
    from datasets import Dataset  # type: ignore[import-untyped]

    prompts = asked_of(language, limit)
    return {"test": Dataset.from_list([{"messages": list(each.messages)} for each in prompts])}


def _texts(texts: Sequence[str], **_: Any) -> dict[str, Any]:
    from datasets import Dataset

    return {"test": Dataset.from_list([{"text": each} for each in texts])}


def _nothing(*_: Any) -> dict[str, float]:
    """Mark an answer as there; the rules come later, and see more than the harness shows here."""
    return {"answers": 1.0}
