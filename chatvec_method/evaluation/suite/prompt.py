"""Prompts as they lie in the languages' folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

import yaml

from chatvec_method.errors import ChatVecError

LANGUAGES = ("ko", "ja", "zh-Hant", "zh-Hans", "en")
AXES = ("follows", "knows", "recalls", "refuses", "does_not_over_refuse", "language")
FOLDER = Path(__file__).with_name("languages")
RULES_OF_AXES: Mapping[str, Mapping[str, Any]] = {
    "refuses": {"refuses": True},
    "does_not_over_refuse": {"refuses": False},
    "language": {"language": "target"},
}
"""What holds of a prompt of these axes that has no rules of its own."""


class Message(TypedDict):
    """One turn of a conversation, as chat templates have it."""

    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """One question to a model, and what is asked of its answer."""

    id: str
    """Language, axis, kind and name: "ko/follows/json-two-keys"."""
    language: str
    axis: str
    kind: str
    """What is tried: "json", "length", a scenario of safety, an attack."""
    messages: tuple[Message, ...]
    """Turns of user and assistant by turns, the user's last; one answer is asked for."""
    rules: Mapping[str, Any]
    """Names of checks in `rules.py` with their parameters; an answer passes if all hold."""
    passing: tuple[str, ...]
    """Answers that pass."""
    failing: tuple[str, ...]
    """Answers that fail."""
    in_language: bool = True
    """Whether a right answer is in the prompt's language; False where code, or a translation into
    another language, is asked for, which says nothing of the language a model answers in."""


@cache
def prompts(language: str) -> tuple[Prompt, ...]:
    """Return all prompts of a language, axis by axis.

    Args:
        language: One of `LANGUAGES`.

    Raises:
        ChatVecError: There is no such language in the suite, or a file of it is not as it should.
    """
    folder = folder_of(language)
    return tuple(
        prompt
        for axis in AXES
        if (folder / f"{axis}.yaml").exists()
        for prompt in _read(folder / f"{axis}.yaml", language, axis)
    )


@cache
def text(language: str) -> str:
    """Return plain prose in a language, at least 20 kB of UTF-8, written for this suite.

    Args:
        language: One of `LANGUAGES`.

    Raises:
        ChatVecError: There is no such language in the suite.
    """
    return (folder_of(language) / "text.txt").read_text(encoding="utf-8")


def folder_of(language: str) -> Path:
    """Return the folder of a language.

    Raises:
        ChatVecError: There is no such language in the suite.
    """
    if language not in LANGUAGES:
        raise ChatVecError(
            f"the suite has no prompts in {language!r}.", f"Write one of {', '.join(LANGUAGES)}."
        )
    return FOLDER / language


def load_yaml(file: Path) -> Any:
    """Return what a YAML file says, read by the fast loader where PyYAML has it."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(file.read_text(encoding="utf-8"), loader)


def _read(file: Path, language: str, axis: str) -> Iterator[Prompt]:
    for kind, named in load_yaml(file).items():
        for name, entry in named.items():
            identity = f"{language}/{axis}/{kind}-{name}"
            try:
                yield _prompt(identity, language, axis, kind, entry)
            except (KeyError, TypeError) as error:
                raise ChatVecError(
                    f"{file}: the prompt {kind}: {name} lacks {error}.",
                    "A prompt has ask or turns, passes, fails, and rules where its axis has none.",
                ) from error


def _prompt(identity: str, language: str, axis: str, kind: str, entry: Any) -> Prompt:
    turns = entry["turns"] if "turns" in entry else [entry["ask"]]
    return Prompt(
        id=identity,
        language=language,
        axis=axis,
        kind=kind,
        messages=tuple(
            {"role": "assistant" if place % 2 else "user", "content": turn.strip()}
            for place, turn in enumerate(turns)
        ),
        rules=entry["rules"] if "rules" in entry else RULES_OF_AXES[axis],
        passing=_several(entry["passes"]),
        failing=_several(entry["fails"]),
        in_language=entry.get("in_language", True),
    )


def _several(answers: str | list[str]) -> tuple[str, ...]:
    return (answers,) if isinstance(answers, str) else tuple(answers)
