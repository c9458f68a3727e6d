"""What the page says in HTML: every text that is not the page's own is escaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape, unescape

import gradio as gr

from chatvec_method.errors import ChatVecError
from chatvec_method.serving.page.session import Entry, Session, Turn, wins
from chatvec_method.serving.page.words import Words

GLOSS = "\n↳ "
"""Before what an answer in a made-up language means."""
SHORT = 60
"""Characters of a message in the history."""

RESULTS = ("won", "lost", "tied")

Gloss = Callable[[str], str]


@contextmanager
def shown() -> Iterator[None]:
    """Have a refusal shown on the page; around a handler, or some of what it does."""
    try:
        yield
    except ChatVecError as error:
        raise hint(str(error)) from error


def hint(text: str) -> gr.Error:
    """Return what somebody should be told instead of what they asked for."""
    return gr.Error(escape(text), title="", print_exception=False)


def as_text(text: str) -> str:
    """Return a message so that gradio's chat, which reads HTML, shows it as it is.

    Only what HTML would take for a tag or a character's name is put in other words, since a person
    who edits the message sees these.
    """
    named = re.sub(r"&#?\w+;?", lambda each: _ampersand(each[0]), text)
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", named)


def as_said(shown: str) -> str:
    """Return a message as it was said, without what it means."""
    said = shown.partition(GLOSS)[0]
    return said.replace("&lt;", "<").replace("&amp;", "&")


def bubbles(turns: Sequence[Turn], gloss: Gloss | None) -> list[dict[str, str]]:
    """Return a conversation as gradio's chat has it."""
    messages = []
    for turn in turns:
        for role, text in (("user", turn.request), ("assistant", turn.answer)):
            if text:
                told = f"{text}{GLOSS}{gloss(text)}" if gloss is not None else text
                messages.append({"role": role, "content": as_text(told)})
    return messages


def turn_at(turns: Sequence[Turn], bubble: int) -> int:
    """Return which turn a message belongs to; an answer that was stopped at once has none."""
    of_bubbles = [
        place for place, turn in enumerate(turns) for text in (turn.request, turn.answer) if text
    ]
    return of_bubbles[bubble] if 0 <= bubble < len(of_bubbles) else len(turns)


def history_line(session: Session, entry: Entry) -> str:
    """Return an entry of the history in one line."""
    number = session.number(entry.board)
    last = [turns[-1] for turns in entry.conversations if turns]
    asked = _short(last[0].request) if last else ""
    answers = " | ".join(f"{turn.by}: {_short(turn.answer)}" for turn in last)
    return f"{number} · {asked} → {answers}"


def wins_table(session: Session, words: Words) -> str:
    """Return who won how often, as HTML; "" where nobody compared yet."""
    counts = wins(session.verdicts)
    if not counts:
        return ""
    best_first = sorted(counts.items(), key=lambda each: each[1][1] - each[1][0])
    head = "".join(f'<th scope="col">{escape(words[key])}</th>' for key in ("who", *RESULTS))
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{n}</td>" for n in each)}</tr>'
        for name, each in best_first
    )
    return (
        f"<table><caption>{escape(words['wins'])}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


def note(text: str) -> str:
    """Return a line of the page, as HTML."""
    return f'<p class="note">{escape(text)}</p>'


def bar(done: int, total: int | None, text: str) -> str:
    """Return how far something is, as HTML."""
    value = f'max="{total}" value="{done}"' if total else ""
    told = escape(text)
    return f'<p class="note"><progress {value} aria-label="{told}"></progress> {told}</p>'


def _ampersand(named: str) -> str:
    return named if unescape(named) == named else f"&amp;{named[1:]}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHORT else f"{line[: SHORT - 1]}…"
