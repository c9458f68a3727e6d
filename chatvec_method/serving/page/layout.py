"""What stands where on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from chatvec_method.serving.page.knobs import DEPTHS, FLAT, KNOTS, RECIPE, SHAPES, Board, Knobs
from chatvec_method.serving.page.session import MERGE, NOBODY, SIDES, Session
from chatvec_method.serving.page.words import Words, text

MOST_RATIO, MOST_TIMES = 2.0, 2.0
"""Where sliders end; a recipe's own ratio beyond them is reached all the same."""
STEP = 0.005
LONGEST, MOST_TOKENS = 256, 4096
CHAT_HEIGHT = 340
"""Pixels."""


@dataclass(frozen=True)
class Sliders:
    """Those of one chat vector."""

    ratio: gr.Slider
    shape: gr.Dropdown
    parts: tuple[gr.Slider, ...]
    knots: tuple[gr.Slider, ...]
    picture: gr.HTML

    @property
    def inputs(self) -> tuple[Any, ...]:
        """All that can be moved."""
        return (self.ratio, self.shape, *self.parts, *self.knots)

    @property
    def moved(self) -> tuple[gr.Slider, ...]:
        """Those that are let go."""
        return (self.ratio, *self.parts, *self.knots)


@dataclass(frozen=True)
class Layout:
    """The page's components, by what they are for."""

    session: gr.State
    vectors: tuple[Sliders, ...]
    follow: gr.Checkbox
    who: tuple[gr.Dropdown, ...]
    columns: tuple[gr.Column, ...]
    chats: tuple[gr.Chatbot, ...]
    request: gr.Textbox
    send: gr.Button
    stop: gr.Button
    again: gr.Button
    new: gr.Button
    examples: tuple[tuple[gr.Button, str], ...]
    system: gr.Textbox
    temperature: gr.Slider
    longest: gr.Slider
    seed: gr.Number
    history: gr.Radio
    history_note: gr.HTML
    blind: gr.Checkbox
    better: tuple[gr.Button, ...]
    """Left, no difference, right."""
    revealed: gr.HTML
    measure: gr.Button
    language: gr.Dropdown
    measuring: gr.HTML
    curves: gr.HTML
    download: gr.Button
    recipe: gr.JSON
    folder: gr.Textbox
    disk: gr.Button
    merging: gr.HTML

    @property
    def sliders(self) -> tuple[Any, ...]:
        """All sliders and shapes of all chat vectors."""
        return tuple(each for vector in self.vectors for each in vector.inputs)

    @property
    def pictures(self) -> tuple[gr.HTML, ...]:
        """The pictures of all chat vectors."""
        return tuple(vector.picture for vector in self.vectors)

    @property
    def manner(self) -> tuple[Any, ...]:
        """How answers are to be."""
        return (self.system, self.temperature, self.longest, self.seed)


@dataclass(frozen=True)
class Content:
    """What a page is about."""

    title: str
    """The recipe, as people call it."""
    board: Board
    answerers: tuple[str, ...]
    """The names of the engine that need no ratio."""
    examples: tuple[tuple[str, str], ...]
    """Requests, each with what is written on its button."""
    languages: tuple[str, ...]
    """Of the quick measure; none where the demonstration's is asked."""
    language: str | None
    """Which of them comes first."""
    longest: int = LONGEST
    world: bool = False
    """Whether it is the demonstration's."""
    may_write: bool = False
    """Whether a merge may be written to this machine's disk."""


def lay_out(content: Content) -> Layout:
    """Put the components in their places; within `gr.Blocks`."""
    session = gr.State(Session())
    gr.HTML(
        escape(content.title),
        html_template="<h1>chatvec live <small>${value}</small></h1>",
        elem_id="title",
        elem_classes="title",
    )
    gr.HTML(text("world" if content.world else "lead"), elem_classes="note", elem_id="lead")
    with gr.Row(elem_id="all", equal_height=False):
        with gr.Column(scale=2, min_width=320, elem_id="settings"):
            board = content.board
            several = len(board.chats) > 1
            vectors = []
            for number, (name, knobs) in enumerate(zip(board.names, board.first, strict=True)):
                vectors.append(_sliders(number, name if several else "", knobs, board.parts))
            follow = gr.Checkbox(True, label=text("follow"), elem_id="follow", container=False)
        with gr.Column(scale=5, min_width=320, elem_id="talk"):
            who, columns, chats = _answers(content.answerers)
            with gr.Row(elem_id="ask", equal_height=True):
                request = gr.Textbox(
                    label=text("message"),
                    placeholder=text("message_hint"),
                    lines=1,
                    max_lines=8,
                    scale=6,
                    min_width=220,
                    max_length=20_000,
                    elem_id="request",
                )
                send = gr.Button(
                    text("send"), variant="primary", min_width=90, scale=1, elem_id="send"
                )
            with gr.Row(elem_id="buttons"):
                again = gr.Button(text("again"), size="md", min_width=90, elem_id="again")
                stop = gr.Button(text("stop"), size="md", min_width=90, elem_id="stop")
                new = gr.Button(text("new"), size="md", min_width=90, elem_id="new")
            examples = _examples(content.examples)
            with gr.Accordion(text("sampling"), open=False):
                manner = _manner(content.longest)
            with gr.Tabs(elem_id="tabs"):
                with gr.Tab(text("history")):
                    history_note = gr.HTML(
                        text("history_empty"), elem_classes="note", elem_id="history-note"
                    )
                    history = gr.Radio(
                        [], label=text("history_hint"), elem_id="history", visible=False
                    )
                with gr.Tab(text("better")):
                    blind, better, revealed = _comparison()
                with gr.Tab(text("measure")):
                    measure, language, measuring, curves = _measure(content)
                with gr.Tab(text("save")):
                    download, recipe, folder, disk, merging = _saving(content.may_write)
    gr.HTML(text("made_by"), elem_classes="note", elem_id="made-by")
    return Layout(
        session,
        tuple(vectors),
        follow,
        who,
        columns,
        chats,
        request,
        send,
        stop,
        again,
        new,
        examples,
        *manner,
        history,
        history_note,
        blind,
        better,
        revealed,
        measure,
        language,
        measuring,
        curves,
        download,
        recipe,
        folder,
        disk,
        merging,
    )


def who_choices(
    answerers: Sequence[str], session: Session, board: Board, words: Words, *, none: bool
) -> list[tuple[str, str]]:
    """Return who can answer, each with its name in the engine.

    Args:
        answerers: The names of the engine.
        session: Whose settings can be asked, too.
        board: Which says what a setting is.
        words: Of the page.
        none: Whether it may be nobody.
    """
    choices = []
    for name in answerers:
        told = words.get(name) or f"{words['chat']} {name.removeprefix('chat')}"
        choices.append((told, name))
    for number, setting in enumerate(session.settings, 1):
        told = words["setting_of"].format(number=number, label=board.label(setting))
        choices.append((told, f"setting:{number}"))
    return [*choices, (words["nobody"], NOBODY)] if none else choices


def shape_choices(knobs: Knobs, words: Words) -> list[tuple[str, str]]:
    """Return the shapes to choose from, the recipe's own first where it has one."""
    own = [(words["shape_recipe"], RECIPE)] if knobs.shape == RECIPE else []
    flat = [(words["shape_flat"], FLAT), (words["shape_knots"], KNOTS)]
    return [*own, *flat, *((shape, shape) for shape in SHAPES)]


def _sliders(number: int, name: str, knobs: Knobs, parts: Sequence[str]) -> Sliders:
    if name:
        gr.HTML(f"<h2>{escape(name)}</h2>", padding=False, elem_classes="vector")
    ratio = gr.Slider(
        min(0.0, knobs.ratio),
        max(MOST_RATIO, knobs.ratio),
        knobs.ratio,
        step=STEP,
        label=text("ratio"),
        elem_id=f"ratio-{number}",
        elem_classes="master",
    )
    picture = gr.HTML("", elem_id=f"picture-{number}", padding=False, min_height=120)
    with gr.Accordion(text("parts"), open=False, elem_classes="finer"):
        times = tuple(
            gr.Slider(
                0.0,
                MOST_TIMES,
                1.0,
                step=STEP,
                label=text(part),
                elem_id=f"{part}-{number}",
                elem_classes="times",
            )
            for part in parts
        )
    with gr.Accordion(text("depth"), open=False, elem_classes="finer"):
        shape = gr.Dropdown(
            [FLAT, KNOTS, *SHAPES, RECIPE],
            value=knobs.shape,
            allow_custom_value=True,
            label=text("shape"),
            info=text("shape_hint"),
            elem_id=f"shape-{number}",
        )
        knots = tuple(
            gr.Slider(
                0.0,
                MOST_TIMES,
                1.0,
                step=STEP,
                label=text(f"knot_{place}"),
                elem_id=f"knot-{place}-{number}",
                elem_classes="times",
            )
            for place in range(len(DEPTHS))
        )
    return Sliders(ratio, shape, times, knots, picture)


def _answers(
    answerers: Sequence[str],
) -> tuple[tuple[gr.Dropdown, ...], tuple[gr.Column, ...], tuple[gr.Chatbot, ...]]:
    who, columns, chats = [], [], []
    first = ("cp", MERGE, NOBODY)
    with gr.Row(elem_id="who"):
        for side in range(SIDES):
            choices = [*answerers, *([NOBODY] if side else [])]
            who.append(
                gr.Dropdown(
                    choices,
                    value=first[side],
                    label=text(f"who_{side + 1}"),
                    elem_id=f"who-{side + 1}",
                    filterable=False,
                    min_width=110,
                )
            )
    with gr.Row(elem_id="answers", equal_height=True):
        for side in range(SIDES):
            with gr.Column(min_width=260, visible=first[side] != NOBODY) as column:
                chats.append(
                    gr.Chatbot(
                        label=first[side],
                        height=CHAT_HEIGHT,
                        editable="user",
                        buttons=[],  # a copy would have what HTML reads, and not what was said
                        render_markdown=False,
                        sanitize_html=True,
                        allow_tags=False,
                        latex_delimiters=[],
                        feedback_options=None,
                        group_consecutive_messages=False,
                        placeholder=text("empty"),  # type: ignore[arg-type]
                        elem_id=f"chat-{side + 1}",
                        elem_classes="chat",
                    )
                )
            columns.append(column)
    return tuple(who), tuple(columns), tuple(chats)


def _examples(examples: Sequence[tuple[str, str]]) -> tuple[tuple[gr.Button, str], ...]:
    if not examples:
        return ()
    with gr.Row(elem_id="examples"):
        return tuple(
            (
                gr.Button(
                    label,
                    size="md",
                    variant="secondary",
                    min_width=140,
                    elem_classes="example",
                    elem_id=f"example-{number}",
                ),
                request,
            )
            for number, (request, label) in enumerate(examples, 1)
        )


def _manner(longest: int) -> tuple[gr.Textbox, gr.Slider, gr.Slider, gr.Number]:
    system = gr.Textbox(
        label=text("system"), lines=1, max_lines=6, max_length=20_000, elem_id="system"
    )
    with gr.Row():
        temperature = gr.Slider(
            0.0,
            2.0,
            0.0,
            step=0.05,
            label=text("temperature"),
            info=text("temperature_hint"),
            elem_id="temperature",
        )
        most = gr.Slider(
            1, MOST_TOKENS, longest, step=1, precision=0, label=text("longest"), elem_id="longest"
        )
        seed = gr.Number(0, precision=0, minimum=0, label=text("seed"), elem_id="seed")
    return system, temperature, most, seed


def _comparison() -> tuple[gr.Checkbox, tuple[gr.Button, ...], gr.HTML]:
    blind = gr.Checkbox(False, label=text("blind"), info=text("blind_hint"), elem_id="blind")
    with gr.Row():
        better = tuple(
            gr.Button(text(choice), size="md", min_width=90, elem_id=f"better-{choice}")
            for choice in ("left", "tie", "right")
        )
    return blind, better, gr.HTML("", elem_id="revealed")


def _measure(content: Content) -> tuple[gr.Button, gr.Dropdown, gr.HTML, gr.HTML]:
    hint = "measure_hint" if content.languages else "measure_world"
    gr.HTML(text(hint), elem_classes="note")
    with gr.Row(elem_classes="beside"):
        language = gr.Dropdown(
            list(content.languages) or ["world"],
            value=content.language or "world",
            label=text("measure_language"),
            visible=bool(content.languages),
            filterable=False,
            elem_id="measure-language",
        )
        measure = gr.Button(text("measure_go"), size="md", min_width=90, elem_id="measure")
    measuring = gr.HTML("", elem_id="measuring")
    return measure, language, measuring, gr.HTML("", elem_id="curves")


def _saving(
    may_write: bool,
) -> tuple[gr.Button, gr.JSON, gr.Textbox, gr.Button, gr.HTML]:
    gr.HTML(text("save_hint"), elem_classes="note")
    download = gr.Button(text("download"), size="md", elem_id="download")
    recipe = gr.JSON(visible=False)
    with gr.Row(visible=may_write, elem_classes="beside"):
        folder = gr.Textbox(
            "out",
            label=text("folder"),
            info=text("disk_hint"),
            max_length=200,
            elem_id="folder",
        )
        disk = gr.Button(text("disk"), size="md", min_width=90, elem_id="disk")
    return download, recipe, folder, disk, gr.HTML("", elem_id="merging")
