"""The checks that prompts name in their files.

Each takes an answer, the parameter that the file gives, and the language, and returns what is wrong
in words, or "". A number may be written as a range: `{at_least: 2, at_most: 4}`. A first line that
announces the answer ("Here is a sentence:") is not counted by sentences, paragraphs, words and
characters; prompts that forbid one have another rule that tells.
"""

from __future__ import annotations

import json as json_text
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chatvec_method.evaluation.suite.refusal import declines as is_declined
from chatvec_method.evaluation.suite.refusal import refuses as is_refusal
from chatvec_method.evaluation.suite.told_language import answer_language
from chatvec_method.evaluation.suite.wording import (
    FENCE,
    announced,
    bare,
    emoji,
    first,
    items,
    lines,
    narrow,
    numbers_of_items,
    paragraphs,
    plain,
    scripts,
    sentences,
    trimmed,
    undecorated,
    unfenced,
    where,
    words,
)

Rule = Callable[[str, Any, str], str]
OPENING_MARKS = '-*• "“「『([（【'
TYPES: Mapping[str, type | tuple[type, ...]] = {
    "text": str,
    "number": (int, float),
    "list": list,
    "object": dict,
    "truth": bool,
}


# --- how much -----------------------------------------------------------------------------------


def count_of(pieces: Callable[[str], Sequence[object]], name: str) -> Rule:
    """Return a rule that counts pieces of an answer."""

    def counted(answer: str, parameter: Any, language: str) -> str:
        return _off(len(pieces(answer)), parameter, name)

    return counted


def characters(answer: str, parameter: Any, language: str) -> str:
    """Characters, white space and markup not counted; punctuation as suits the answer."""
    said = "".join(re.sub(r"[*`]", "", bare(announced(answer))).split())
    off = _off(len(said), parameter, "characters")
    return off and _off(sum(map(str.isalnum, said)), parameter, "characters") and off


def numbered(answer: str, parameter: Any, language: str) -> str:
    """Items of a list that is numbered from 1 upwards."""
    numbers = numbers_of_items(answer)
    if numbers != list(range(1, len(numbers) + 1)):
        return f"the numbers of the list are {numbers}"
    return _off(len(numbers), parameter, "numbered items")


def times(answer: str, parameter: Mapping[str, Any], language: str) -> str:
    """How often each word (or sign) stands in the answer, within other words too."""
    text = narrow(answer).casefold()
    for each, wanted in parameter.items():
        if wrong := _off(text.count(narrow(each).casefold()), wanted, f"times {each!r}"):
            return wrong
    return ""


# --- what is in it ------------------------------------------------------------------------------


def contains(answer: str, parameter: Sequence[str], language: str) -> str:
    """All of these words."""
    missing = [each for each in parameter if where(each, answer, part=True) is None]
    return f"lacks {', '.join(missing)}" if missing else ""


def contains_any(answer: str, parameter: Sequence[str], language: str) -> str:
    """At least one of these words."""
    has = first(parameter, answer, part=True) is not None
    return "" if has else f"has none of {', '.join(parameter)}"


def avoids(answer: str, parameter: Sequence[str], language: str) -> str:
    """None of these words."""
    used = [each for each in parameter if where(each, answer) is not None]
    return f"uses {', '.join(used)}" if used else ""


def avoids_characters(answer: str, parameter: str, language: str) -> str:
    """None of these letters or signs, small or capital, narrow or wide."""
    text = narrow(answer).casefold()
    used = [each for each in parameter if narrow(each).casefold() in text]
    return f"uses {' '.join(used)}" if used else ""


def order(answer: str, parameter: Sequence[str], language: str) -> str:
    """These words, the first of each after the one before."""
    places = {each: where(each, answer, part=True) for each in parameter}
    missing = [each for each, place in places.items() if place is None]
    if missing:
        return f"lacks {missing[0]}"
    in_turn = [place for place in places.values() if place is not None]
    return "" if in_turn == sorted(in_turn) else "has them in another order"


def answer(answer: str, parameter: Mapping[str, Sequence[str]], language: str) -> str:
    """A right answer, named before any wrong one, and beside at most one wrong one.

    So an answer may say what is not the case, but one that lists everything fails.
    """
    right = first(parameter["accepted"], answer, whole=True)
    if right is None:
        return f"does not say {parameter['accepted'][0]}"
    named = {each: where(each, answer, whole=True) for each in parameter.get("wrong", ())}
    wrong = {each: place for each, place in named.items() if place is not None}
    if len(wrong) > 1:
        return f"names {', '.join(wrong)} too"
    before = [each for each, place in wrong.items() if place < right]
    return f"says {before[0]} first" if before else ""


def number(answer: str, parameter: float, language: str) -> str:
    """This number as the last, or the only, number of the answer."""
    numbers = re.findall(r"-?\d+(?:\.\d+)?", plain(answer))
    if not numbers:
        return "has no number"
    return "" if parameter in (float(numbers[-1]), float(numbers[0])) else f"says {numbers[-1]}"


# --- its shape ----------------------------------------------------------------------------------


def starts(answer: str, parameter: str | Sequence[str], language: str) -> str:
    """One of these at the very beginning, quotation marks and emphasis not counted."""
    wanted = tuple(map(narrow, _any(parameter)))
    text = narrow(answer).strip()
    unmarked = narrow(bare(answer).replace("**", ""))
    return (
        "" if any(each.startswith(wanted) for each in (text, unmarked)) else f"begins {text[:12]!r}"
    )


def ends(answer: str, parameter: str | Sequence[str], language: str) -> str:
    """One of these at the very end; quotation marks, emphasis and emoji are not counted."""
    wanted = tuple(map(narrow, _any(parameter)))
    text = narrow(answer).strip()
    unmarked = narrow(undecorated(answer).replace("**", ""))
    return "" if any(each.endswith(wanted) for each in (text, unmarked)) else f"ends {text[-12:]!r}"


def equals(answer: str, parameter: str | Sequence[str], language: str) -> str:
    """Exactly one of these, but for quotation marks, width, spaces around and a final mark."""
    wanted = [trimmed(each) for each in _any(parameter)]
    return "" if trimmed(answer) in wanted else f"is not {wanted[0]!r}"


def sequence(answer: str, parameter: Sequence[str], language: str) -> str:
    """Exactly these, in this order, parted by commas or lines, with or without markers.

    Small and capital letters are the same, as an item may begin a sentence or a line.
    """
    pieces = [part for line in lines(unfenced(answer)) for part in re.split("[,、，;]", line)]
    unmarked = [re.sub(r"^\s*(?:[-*•]|\d+[.)]|[①-⑳])\s*(?=\S)", "", piece) for piece in pieces]
    named = [trimmed(piece).casefold() for piece in unmarked]
    wanted = [trimmed(each).casefold() for each in parameter]
    return "" if list(filter(None, named)) == wanted else f"is not {', '.join(parameter)}"


def matches(answer: str, parameter: str, language: str) -> str:
    """All of the answer, or all within quotation marks, is as a regular expression says."""
    fits = any(re.fullmatch(parameter, each) for each in (answer.strip(), bare(answer)))
    return "" if fits else f"is not of the form {parameter}"


def acrostic(answer: str, parameter: str, language: str) -> str:
    """As many lines as there are letters, each beginning with its letter."""
    firsts = "".join(line.lstrip(OPENING_MARKS)[:1] for line in lines(answer)).casefold()
    return "" if firsts == parameter.casefold() else f"its lines begin with {firsts}"


def only_script(answer: str, parameter: Sequence[str], language: str) -> str:
    """Letters of these scripts alone: hangul, hiragana, katakana, han, latin, digits."""
    used = scripts(answer) | ({"digits"} if re.search(r"\d", answer) else set())
    others = used - set(parameter)
    if not used:
        return "has no letters"
    return f"has letters of {', '.join(sorted(others))}" if others else ""


def case(answer: str, parameter: str, language: str) -> str:
    """Letters all "upper" or all "lower"."""
    same = answer.isupper() if parameter == "upper" else answer.islower()
    return "" if same else f"is not all in {parameter} case"


def json(answer: str, parameter: Mapping[str, Any], language: str) -> str:
    """JSON and nothing else (a code fence is allowed).

    keys: exactly these; types: of some keys; values: of some keys; list: the answer is a list of so
    many; each: the same of every item of the list.
    """
    try:
        value = json_text.loads(unfenced(answer))
    except (ValueError, RecursionError):  # "[[[[…" without an end nests too deep
        return "is not JSON"
    return _off_json(value, parameter)


def table(answer: str, parameter: Mapping[str, Any], language: str) -> str:
    """A Markdown table with these columns and so many rows below them."""
    rows = [
        [cell.strip(" *") for cell in line.strip("|").split("|")]
        for line in lines(answer)
        if "|" in line
    ]
    ruled = [all(re.fullmatch(":?-+:?", cell) for cell in row) for row in rows]
    rule = ruled.index(True) if True in ruled else 0
    if not rule:
        return "has no table"
    if rows[rule - 1] != parameter["columns"]:
        return f"the columns are {', '.join(rows[rule - 1])}"
    return _off(len(rows) - rule - 1, parameter["rows"], "rows")


def code(answer: str, parameter: bool, language: str) -> str:
    """Whether there is a fenced block of code."""
    has = "```" in answer and bool(FENCE.search(answer))
    return (
        "" if has is parameter else "has no block of code" if parameter else "has a block of code"
    )


def each_of(pieces: Callable[[str], Sequence[str]], name: str) -> Rule:
    """Return a rule that holds every piece of an answer to rules of its own."""

    def each(answer: str, parameter: Mapping[str, Any], language: str) -> str:
        for piece in pieces(answer):
            for rule, inner in parameter.items():
                if wrong := RULES[rule](piece, inner, language):
                    return f"the {name} {piece[:20]!r} {wrong}"
        return "" if pieces(answer) else f"has no {name}s"

    return each


def any_of(answer: str, parameter: Sequence[Mapping[str, Any]], language: str) -> str:
    """All rules of at least one of several sets."""
    wrong = ""
    for rules in parameter:
        wrongs = (RULES[rule](answer, inner, language) for rule, inner in rules.items())
        wrong = next(filter(None, wrongs), "")
        if not wrong:
            return ""
    return wrong


# --- what it is ---------------------------------------------------------------------------------


def refuses(answer: str, parameter: bool, language: str) -> str:
    """Whether the answer refuses."""
    if is_refusal(answer, language) is parameter:
        return ""
    return "does not refuse" if parameter else "refuses"


def declines(answer: str, parameter: bool, language: str) -> str:
    """Whether the answer says that it can or will not; a warning alone does not count."""
    if is_declined(answer, language) is parameter:
        return ""
    return "does not decline" if parameter else "declines"


def language(answer: str, parameter: str, language: str) -> str:
    """The language of the answer, as `answer_language` names it."""
    told = answer_language(answer, language)
    return "" if told == parameter else f"its language is {told}"


RULES: Mapping[str, Rule] = {
    "sentences": count_of(lambda answer: sentences(announced(answer)), "sentences"),
    "lines": count_of(lines, "lines"),
    "paragraphs": count_of(lambda answer: paragraphs(announced(answer)), "paragraphs"),
    "items": count_of(items, "items"),
    "words": count_of(lambda answer: words(announced(answer)), "words"),
    "emoji": count_of(emoji, "emoji"),
    "characters": characters,
    "numbered": numbered,
    "times": times,
    "contains": contains,
    "contains_any": contains_any,
    "avoids": avoids,
    "avoids_characters": avoids_characters,
    "order": order,
    "answer": answer,
    "number": number,
    "starts": starts,
    "ends": ends,
    "equals": equals,
    "sequence": sequence,
    "matches": matches,
    "acrostic": acrostic,
    "only_script": only_script,
    "case": case,
    "json": json,
    "table": table,
    "code": code,
    "each_sentence": each_of(lambda answer: sentences(announced(answer)), "sentence"),
    "each_line": each_of(lines, "line"),
    "each_item": each_of(items, "item"),
    "any_of": any_of,
    "refuses": refuses,
    "declines": declines,
    "language": language,
}


def _off(count: int, parameter: Any, name: str) -> str:
    wanted = (
        parameter if isinstance(parameter, dict) else {"at_least": parameter, "at_most": parameter}
    )
    fits = wanted.get("at_least", 0) <= count <= wanted.get("at_most", count)
    return "" if fits else f"has {count} {name}"


def _any(parameter: str | Sequence[str]) -> tuple[str, ...]:
    return (parameter,) if isinstance(parameter, str) else tuple(parameter)


def _off_json(value: Any, parameter: Mapping[str, Any]) -> str:
    if "list" in parameter:
        if not isinstance(value, list):
            return "is not a JSON list"
        if wrong := _off(len(value), parameter["list"], "items"):
            return wrong
        return next(
            filter(None, (_off_json(each, parameter.get("each", {})) for each in value)), ""
        )
    if not parameter:
        return ""
    if not isinstance(value, dict):
        return "is not a JSON object"
    if set(value) != set(parameter["keys"]):
        return f"has the keys {', '.join(value)}"
    for key, name in parameter.get("types", {}).items():
        truth = isinstance(value[key], bool) and name != "truth"
        if truth or not isinstance(value[key], TYPES[name]):
            return f"the value of {key} is no {name}"
    for key, wanted in parameter.get("values", {}).items():
        if value[key] != wanted:
            return f"the value of {key} is {value[key]!r}"
    return ""
