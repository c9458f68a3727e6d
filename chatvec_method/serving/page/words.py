"""What people read on the page, in the language of their browser.

A language is a file in `languages/`, and all have the same texts. What stands on the page from the
start is put there in the browser, by gradio; what comes later is said by the server, which goes by
the same rule: the browser's first language, else English.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from gradio.i18n import I18n, I18nData

FOLDER = Path(__file__).with_name("languages")
LOCALES = {"en": "en", "ko": "ko", "ja": "ja", "zh-TW": "zh-Hant", "zh-CN": "zh-Hans"}
"""gradio's names of languages, and ours."""
PREFIX = "chatvec_"
"""gradio puts in its own language whatever is the name of a text: so no message may be one."""
TRADITIONAL = ("hant", "tw", "hk", "mo")

Words = Mapping[str, str]


@cache
def words(language: str) -> Words:
    """Return the texts of a language by name."""
    file = FOLDER / f"{language}.yaml"
    texts: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    return dict(texts)


def words_for(accepted: str | None) -> Words:
    """Return the texts for a browser.

    Args:
        accepted: Its header Accept-Language.
    """
    first = (accepted or "").split(",")[0].split(";")[0].strip().lower()
    tag, *rest = first.split("-")
    if tag == "zh":
        return words("zh-Hant" if set(rest) & set(TRADITIONAL) else "zh-Hans")
    return words(tag if tag in ("ko", "ja") else "en")


def text(name: str) -> I18nData:
    """Return a text that the browser puts in its own language."""
    return I18nData(PREFIX + name)


def i18n() -> I18n:
    """Return all texts as gradio takes them."""
    return I18n(
        **{
            locale: {PREFIX + name: said for name, said in words(ours).items()}
            for locale, ours in LOCALES.items()
        }
    )
