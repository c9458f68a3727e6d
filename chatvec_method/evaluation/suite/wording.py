"""Text as the rules see it: sentences, lines, items, words, scripts, and one spelling for many."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from itertools import pairwise

FENCE = re.compile(r"```[^\n]*\n?(.*?)(?:```|\Z)", re.DOTALL)
QUOTED = re.compile(r"「[^」]*」|『[^』]*』|“[^”]*”|\"[^\"\n]*\"|《[^》]*》|\([^)\n]*\)|（[^）]*）")
ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|etc|e\.g|i\.e|[A-Z])\.(?=\s)")
END_OF_SENTENCE = re.compile(r"[.!?…]+(?:\*\*|[*_])?(?=\s|$)|[。！？]+(?:\*\*|[*_])?|\n+")
BULLET = r"(?:\*(?!\*)|-(?!-)|[–—](?=\s)|[+•·‧・▪●○◦■□◆◇★☆✓✔✅➤▶►※❖])"
CIRCLED = {
    chr(start + place): str(place + 1)
    for start, signs in ((0x2460, 20), (0x2474, 20), (0x2776, 10))
    for place in range(signs)
}
NUMERALS = {
    **dict(zip("一二三四五六七八九", "123456789", strict=True)),
    **{"十" + one: str(10 + place) for place, one in enumerate(["", *"一二三四五六七八九"])},
}
NUMBER = (
    r"(?:#{1,6}\s+)?(?:\*\*)?(?:"
    r"(?:step |ステップ|手順|步骤|步驟|第)?[(（]?(\d{1,3})(?:번|단계|步)?\s?"
    r"(?:[.．:：](?!\d)|[)）、])|"
    rf"([{''.join(CIRCLED)}])|(\d)\ufe0f?\u20e3|((?:{'|'.join(NUMERALS)}))、)"
)
"""1. 1) (1) 1、 １． ① ⑴ 1️⃣ 一、 "Step 1:" 1단계: 第1步： with or without "###" or "**" before."""
MARKER = rf"(?:{NUMBER}|{BULLET})"
ITEM = re.compile(rf"^([^\S\n]*){MARKER}\s*(\S.*)$", re.MULTILINE | re.IGNORECASE)
NUMBERED = re.compile(rf"^([^\S\n]*){NUMBER}\s*\S", re.MULTILINE | re.IGNORECASE)
EDGES = " \t\n\"'`*“”‘’「」『』《》.。!！"
MARKUP = " \t\n\"'`*_“”‘’「」『』"
EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff]\ufe0f?")
DECORATION = re.compile(rf"(?:{EMOJI.pattern}|[\s~～♪♡\u200d])+$")
YEAR = re.compile("[〇零一二三四五六七八九]{4}(?=年)")
YEAR_DIGITS = str.maketrans("〇零一二三四五六七八九", "00123456789")
SCRIPTS = {
    "HANGUL": "hangul",
    "HIRAGANA": "hiragana",
    "KATAKANA": "katakana",
    "CJK": "han",
    "LATIN": "latin",
    "FULLWIDTH": "latin",
}
PROLONGED = "ー"  # KATAKANA-HIRAGANA PROLONGED SOUND MARK: of either script


def sentences(answer: str) -> list[str]:
    """Return the sentences of an answer, each with its final mark.

    A sentence ends with ". ! ? …" before a space, with "。！？" anywhere, or with its line; marks
    within quotation marks and brackets, and those of "Dr." and the like, end none.
    """
    hidden = QUOTED.sub(lambda quote: "x" * len(quote[0]), answer)
    hidden = ABBREVIATION.sub(lambda short: "x" * len(short[0]), hidden)
    hidden = re.sub(rf"(?mi)^[^\S\n]*{MARKER}\s", lambda mark: "x" * len(mark[0]), hidden)
    ends = [end.end() for end in END_OF_SENTENCE.finditer(hidden)]
    pieces = [answer[start:end].strip() for start, end in pairwise([0, *ends, len(answer)])]
    return [piece for piece in pieces if any(map(str.isalnum, piece))]


def lines(answer: str) -> list[str]:
    """Return the lines of an answer that are not empty."""
    return [line.strip() for line in answer.splitlines() if line.strip()]


def paragraphs(answer: str) -> list[str]:
    """Return what is set apart by empty lines."""
    return [each.strip() for each in re.split(r"\n\s*\n", answer) if each.strip()]


def items(answer: str) -> list[str]:
    """Return the items of a list, bulleted or numbered, without their markers.

    What is indented deeper than another item belongs to it.
    """
    return [item[item.lastindex or 0].strip() for item in _outermost(ITEM, answer)]


def numbers_of_items(answer: str) -> list[int]:
    """Return the numbers of a numbered list."""
    written = (next(filter(None, item.groups()[1:])) for item in _outermost(NUMBERED, answer))
    return [int(CIRCLED.get(sign, NUMERALS.get(sign, sign))) for sign in written]


def _outermost(pattern: re.Pattern[str], answer: str) -> list[re.Match[str]]:
    matches = list(pattern.finditer(answer))
    least = min((len(match[1]) for match in matches), default=0)
    return [match for match in matches if len(match[1]) == least]


def words(answer: str) -> list[str]:
    """Return what spaces and dashes part, if there is a letter or digit in it."""
    return [word for word in re.split(r"[\s—–]+|--+", answer) if any(map(str.isalnum, word))]


def emoji(answer: str) -> list[str]:
    """Return the emoji of an answer."""
    return EMOJI.findall(answer)


def announced(answer: str) -> str:
    """Return an answer without a first line that announces it: "Here is a sentence:"."""
    head, line_end, rest = answer.strip().partition("\n")
    return rest if line_end and head.rstrip(" *").endswith((":", "：")) and rest.strip() else answer


def bare(answer: str) -> str:
    """Return an answer without a fence, quotation marks or emphasis around all of it."""
    return unfenced(answer).strip(MARKUP)


def undecorated(answer: str) -> str:
    """Return a `bare` answer without emoji and the like at its end."""
    return DECORATION.sub("", bare(answer)).strip(MARKUP)


def unfenced(answer: str) -> str:
    """Return what a Markdown code fence encloses, if the answer is one fence and nothing else."""
    fence = FENCE.fullmatch(answer.strip())
    return (fence[1] if fence else answer).strip()


def scripts(answer: str) -> set[str]:
    """Return the scripts of an answer's letters; those of none that is named here are "other"."""
    letters = {letter for letter in answer if letter.isalpha() and letter != PROLONGED}
    names = {unicodedata.name(letter, "").split()[0] for letter in letters}
    return {SCRIPTS.get(name, "other") for name in names}


def plain(answer: str) -> str:
    """Return an answer in one spelling: width, case, hyphens, commas in numbers, 一九四五年."""
    one_width = unicodedata.normalize("NFKC", answer).casefold().replace("’", "'")
    one_width = YEAR.sub(lambda year: year[0].translate(YEAR_DIGITS), one_width)
    without_commas = re.sub(r"(?<=\d),(?=\d{3})", "", one_width)
    return re.sub(r"[*_]|(?<=\w)[-‐–](?=\w)", "", without_commas)


def narrow(text: str) -> str:
    """Return a text with full-width letters and marks as those of ASCII."""
    return unicodedata.normalize("NFKC", text)


def trimmed(answer: str) -> str:
    """Return an answer without fence, quotation marks and final marks, and with single spaces."""
    one_width = unicodedata.normalize("NFKC", unfenced(answer)).strip()
    return re.sub(r"\s+", " ", one_width.strip(EDGES)).strip()


@cache
def as_word(needle: str, whole: bool = False, part: bool = False) -> re.Pattern[str]:
    """Return a pattern that finds a word in a `plain` text, as the word's script sets words apart.

    - Latin letters and digits: no other letter of theirs before or after.
    - Hangul: no syllable before; after it may come particles and endings. Where the `whole` word
      is meant, a single syllable stands alone or before a particle. Where it may be `part` of
      another (고양이 of 길고양이), syllables may stand before two or more.
    - Katakana: no katakana before or after.
    - Kanji and hiragana: anywhere, as nothing sets words apart.

    Spaces and middle dots within a word do not count.
    """
    letters = plain(needle)
    body = r"[\s·・=]*".join(re.escape(each) for each in letters if each not in " ·・=")
    if re.search("[a-z0-9]", letters) and " " in letters:
        body = r"\s+".join(map(re.escape, letters.split()))
    compound = part and re.match("[가-힣]{2}", letters)
    before = "" if compound else _edge(letters[0], before=True)
    return re.compile(before + body + _after(letters, whole))


def where(needle: str, text: str, whole: bool = False, part: bool = False) -> int | None:
    """Return where a word first stands in a text, in characters of the `plain` text; or None."""
    match = as_word(needle, whole, part).search(plain(text))
    return match.start() if match else None


def first(needles: Iterable[str], text: str, whole: bool = False, part: bool = False) -> int | None:
    """Return where the first of several words stands in a text; None if none does."""
    places = (where(needle, text, whole, part) for needle in needles)
    return min((place for place in places if place is not None), default=None)


PARTICLES = (
    "은|는|이|가|을|를|의|에|도|만|과|와|로|으로|에서|에게|부터|까지|라고|이라고|란|이란|입니다|"
    "이에요|예요|이다|다|이며|이고|인|였|이었|죠|이죠|야|이야|요|이요|라는|이라는|나|이나|일"
)


def _edge(letter: str, before: bool) -> str:
    look = "(?<!" if before else "(?!"
    if re.match(r"[0-9]", letter):
        return look + (r"[0-9.])" if before else r"[0-9]|\.[0-9])")
    if re.match(r"[a-zà-ÿ]", letter):
        return look + r"[a-zà-ÿ0-9])"
    if re.match("[가-힣]", letter):
        return look + "[가-힣])"
    return look + r"[ァ-ヶー])" if re.match("[ァ-ヶー]", letter) else ""


def _after(letters: str, whole: bool) -> str:
    if whole and re.fullmatch("[가-힣]", letters):
        return rf"(?=(?:{PARTICLES})|[^가-힣]|$)"
    return "" if re.match("[가-힣]", letters[-1]) else _edge(letters[-1], before=False)
