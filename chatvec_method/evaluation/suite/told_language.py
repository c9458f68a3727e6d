"""In which language an answer is: by script, by character sets, and by lingua.

Scripts tell Korean, and Japanese with kana. Ideographs alone are told by what the national
character sets hold, all of which Python has: one that is in Big5 and not in GB 2312 is Traditional,
the other way round it is Simplified, and one that is in JIS X 0208 (`cp932` with some characters of
names) and in neither of them is Japanese. Latin prose may be English or not: that lingua tells. Of
ideographs lingua 2.1 says Chinese, whatever they are, and it has one Chinese alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Literal

from chatvec_method.errors import ChatVecError

if TYPE_CHECKING:
    from lingua import Language, LanguageDetector

AnswerLanguage = Literal["target", "english", "mixed", "other", "none"]
SHARE = 0.8
"""The least part of an answer that must be in one language; less is mixed."""
RUNNING_WORDS = 5
"""Latin words in a row that are prose, and not terms within another language."""
LETTERS_A_WORD = 2
"""How many syllables or ideographs a Latin word counts for."""
COMMON = frozenset(
    "the and of are to you that it with for this not have i my your can be from they which".split()
)
"""Words that English has at every turn, and few other languages have at all."""
FEWEST_WORDS = 4
"""Words of which a language can be told; fewer are taken for English."""
COMMON_SHARE = 0.1
"""How much of a text must be such words to be English without asking lingua, which loads slowly."""
NOT_ENGLISH = 0.1
"""lingua's confidence in English below which Latin prose is in another language."""
NOT_PROSE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|\S{1,64}@\S+|<[^<>\n]+>|\$[^$\n]+\$", re.DOTALL
)
PIECE = re.compile(r"[^\n。！？!?]+")
ASIDE = re.compile(
    r"\([^()\n]{1,80}\)|「[^」\n]{1,80}」|『[^』\n]{1,80}』|《[^》\n]{1,80}》|〈[^〉\n]{1,80}〉|"
    r"“[^”\n]{1,80}”|\"[^\"\n]{1,80}\"|(?<!\w)'[^'\n]{1,80}'(?!\w)|‘[^’\n]{1,80}’"
)
HANGUL = re.compile("[가-힣ㄱ-ㆎ]")
KANA = re.compile("[ぁ-ゖァ-ヺー]")
HIRAGANA_BUT_NO = re.compile("[ぁ-ねは-ゖ]")  # の stands in Chinese names of shops and goods
HAN = re.compile("[㐀-䶿一-鿿]")
LATIN_WORD = r"[A-Za-zÀ-ÖØ-öø-ɏ]+(?:['’-][A-Za-zÀ-ÖØ-öø-ɏ]+)*"
RUN = re.compile(rf"{LATIN_WORD}(?:[\s\d,;:.…()\"“”/&*%-]+{LATIN_WORD})*")
HANJA = re.compile("(?<=[가-힣])[㐀-䶿一-鿿]+|[㐀-䶿一-鿿]+(?=[가-힣])")
"""Ideographs with a Korean ending or particle, as in 大韓民國의."""
DESIGNATION = re.compile(r"(?<![A-Za-z\d])(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z\d]+|[°][CF]\b")
"""H2O, S24, 256GB, °C: the same in every language."""
CHINESE_GRAMMAR = re.compile(
    r"[这這们們你您妳她很吗嗎呢吧哪怎么麼还還让讓给給把没沒谁跟對从從]|"
    r"(?<![国國社校党店県如])是(?![非正認々])|(?<![終完修魅校満投読未議])了(?![承解見知然])|"
    r"(?<![存現滞不健所駐潜自実偏混介散内点])在(?![住日籍庫学職宅留位来任京勤外中米韓野])|"
    r"也[是不有在都能会會要可]|可以|因[为為]|如果|但是|已[经經]|一[个個]|[我他它]的|[和在][我他]|我[想会會要不]"
)
"""What Chinese says and Japanese does not, whatever the characters: 是 as "is", not as in 是非."""

FORMER_FORMS = frozenset(
    "亞惡壓圍爲醫隱歐毆奧溫假價畫會壞擴殼覺樂勸卷歡關觀氣歸戲犧舊據擧峽挾狹曉區驅勳徑揭攜溪經繼莖螢輕鷄擊"
    "缺儉圈檢權獻縣險顯驗嚴效黑濟碎劑參慘棧蠶贊殘絲辭濕實寫釋收從獸縱肅處敘獎將燒稱證條狀乘淨剩疊壤孃讓釀"
    "觸囑寢盡粹醉隨髓數樞聲竊攝專戰淺潛纖踐錢禪雙壯搜插爭總莊裝騷臟藏屬續墮體對帶滯臺擇擔單團彈斷癡遲晝蟲"
    "廳聽遞轉點傳黨盜燈當鬪獨讀屆貳惱腦霸廢拜賣麥發髮拔蠻祕拂變辨辯瓣沒滿默譯藥與豫餘譽搖樣謠來賴亂覽兩獵"
    "綠壘禮靈隸齡戀爐勞樓錄灣圖號歲歷黃雜"
)
"""Characters that Japan has written otherwise since 1946, but for those that names still have."""


def answer_language(answer: str, language: str) -> AnswerLanguage:
    """Tell the language of an answer.

    Code, addresses, markup and what is the same everywhere (H2O, °C) count for nothing. Latin words
    are terms of the language around them, unless five or more stand in a row or nothing else is
    there. The answer is "target", "english" or "other" if at least 80 % of its letters are so (a
    Latin word counts for two), else "mixed", and "none" without letters.

    Ideographs that more than one language writes so count for the target if it is one of these.

    Args:
        answer: What the model said.
        language: The target, one of `LANGUAGES`.

    Raises:
        ChatVecError: lingua-language-detector is needed (for Latin prose) and not installed.
    """
    amounts: Counter[AnswerLanguage] = Counter()
    runs: list[list[str]] = []
    text = unicodedata.normalize("NFKC", NOT_PROSE.sub(" ", answer))
    text = DESIGNATION.sub(" ", text)
    for piece in PIECE.findall(_without_asides(text)):
        for told, amount in _told(piece, language):
            amounts["target" if told == language else "other"] += amount
        runs += [re.findall(LATIN_WORD, run) for run in RUN.findall(piece)]
    prose = [run for run in runs if len(run) >= RUNNING_WORDS]
    if language == "en" or not amounts:
        prose = runs
    if words := [word for run in prose for word in run]:
        in_english: AnswerLanguage = "target" if language == "en" else "english"
        amounts[in_english if _is_english(words) else "other"] += len(words) * LETTERS_A_WORD
    if not amounts.total():
        return "none"
    told_most, amount = amounts.most_common(1)[0]
    return told_most if amount >= SHARE * amounts.total() else "mixed"


def _without_asides(text: str) -> str:
    """Return a text without its short quotations and what is in brackets, if anything is left."""
    if text.lstrip().startswith(("{", "[")):  # JSON, of which the quotations are all there is
        return text.replace('"', " ")
    left = ASIDE.sub(" ", text)
    return left if any(map(str.isalpha, left)) else text


def _told(piece: str, target: str) -> Iterator[tuple[str, int]]:
    """Yield the languages of a piece's letters that are not Latin, with their amounts."""
    hangul, kana = len(HANGUL.findall(piece)), len(KANA.findall(piece))
    if hangul:
        hanja = "".join(HANJA.findall(piece))
        if _in("euc_kr", hanja) and not _in("gb2312", hanja):  # or it is Chinese that slipped in
            hangul += len(hanja)
            piece = HANJA.sub("", piece)
        yield "ko", hangul
    han = HAN.findall(piece)
    if hangul:
        if kana:
            yield "ja", kana
    elif kana and (kana > len(han) or HIRAGANA_BUT_NO.search(piece)):
        foreign = [each for each in han if not _in("cp932", each)]
        yield "ja", kana + len(han) - len(foreign)
        if foreign:
            yield "zh", len(foreign)
        han = []
    if han:
        yield from _ideographs(han, piece, target)
    others = sum(letter.isalpha() and _is_foreign(letter) for letter in piece)
    if others:
        yield "other", others


def _ideographs(han: list[str], piece: str, target: str) -> Iterator[tuple[str, int]]:
    traditional = sum(_in("big5", each) and not _in("gb2312", each) for each in han)
    simplified = sum(_in("gb2312", each) and not _in("big5", each) for each in han)
    japans_own = sum(not _in("gb2312", each) and not _in("big5", each) for each in han)
    grammar = CHINESE_GRAMMAR.search(piece)
    written_in_japan = (
        not grammar and FORMER_FORMS.isdisjoint(han) and all(_in("cp932", each) for each in han)
    )
    if written_in_japan and (japans_own or (traditional and simplified) or target == "ja"):
        yield "ja", len(han)
    elif traditional or simplified:
        part = round(len(han) * traditional / (traditional + simplified))
        yield "zh-Hant", part
        yield "zh-Hans", len(han) - part
    else:
        yield (target if target.startswith("zh") else "zh"), len(han)


@cache
def _in(encoding: str, letters: str) -> bool:
    try:
        letters.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


@cache
def _is_foreign(letter: str) -> bool:
    script = unicodedata.name(letter, "").split(" ")[0]
    return script not in {"LATIN", "HANGUL", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "CJK"} | {
        "GREEK",  # in formulas
        "BOPOMOFO",
        "IDEOGRAPHIC",
        "MICRO",
        "FEMININE",
        "MASCULINE",
    }


def _is_english(words: list[str]) -> bool:
    """Tell whether words are English: by the commonest of its own, else by lingua."""
    common = sum(word.casefold() in COMMON for word in words)
    if len(words) < FEWEST_WORDS or common >= COMMON_SHARE * len(words):
        return True
    detector, english = _detector()
    return detector.compute_language_confidence(" ".join(words), english) >= NOT_ENGLISH


@cache
def _detector() -> tuple[LanguageDetector, Language]:
    try:
        from lingua import Language, LanguageDetectorBuilder
    except ModuleNotFoundError as error:
        raise ChatVecError(
            "the language of an answer in Latin letters is told by lingua-language-detector, which "
            "is not installed.",
            "Write pip install 'chatvec-method[evaluate]'.",
        ) from error
    others = Language.FRENCH, Language.GERMAN, Language.SPANISH, Language.INDONESIAN
    builder = LanguageDetectorBuilder.from_languages(Language.ENGLISH, *others)
    return builder.build(), Language.ENGLISH
