"""The page as gradio's blocks: the layout, and which handler follows what."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from chatvec_method.serving.page.handlers import Handlers
from chatvec_method.serving.page.layout import Content, Layout, lay_out
from chatvec_method.serving.page.session import Choice

TITLE = "chatvec live"
QUIET: dict[str, Any] = {
    "show_progress": "hidden",
    "queue": True,
    "api_visibility": "private",
    "concurrency_limit": None,
}
"""Of every event: answers are their own progress, and programs have an API of their own."""
MOST_WAITING = 128
"""Events of all visitors that gradio takes before it refuses more."""
SAVE = """({name, text}) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type: "application/yaml"}));
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
}"""


def build(content: Content, handlers: Handlers) -> gr.Blocks:
    """Return the page, to be mounted.

    Args:
        content: What it is about.
        handlers: What it does.
    """
    blocks = gr.Blocks(title=TITLE, analytics_enabled=False)
    with blocks:
        layout = lay_out(content)
        _connect(blocks, layout, handlers)
    blocks.queue(default_concurrency_limit=None, max_size=MOST_WAITING, api_open=False)
    return blocks


def _connect(blocks: gr.Blocks, layout: Layout, handlers: Handlers) -> None:
    state = layout.session
    chosen = [*layout.who, layout.blind, *layout.manner, *layout.sliders]
    said = [*layout.chats, *layout.who]
    pictures, columns = [*layout.pictures], [*layout.columns]
    shapes = [vector.shape for vector in layout.vectors]
    history = [layout.history, layout.history_note]
    blocks.load(handlers.start, None, [*layout.who, *shapes, *pictures, *layout.chats], **QUIET)

    def then_answers(event: Any) -> None:
        for place, chat in enumerate(layout.chats):
            event.success(
                handlers.answer(place),
                [state, *chosen],
                [chat, *history, *layout.who],
                trigger_mode="multiple",
                **QUIET,
            )

    sent = gr.on(
        [layout.request.submit, layout.send.click],
        handlers.ask,
        [layout.request, state, *chosen],
        [layout.request, layout.revealed, *said],
        **QUIET,
    )
    then_answers(sent)
    let_go = [slider.release for vector in layout.vectors for slider in vector.moved]
    let_go += [shape.change for shape in shapes]
    gr.on(let_go, handlers.moved, [*chosen], pictures, trigger_mode="always_last", **QUIET)
    for place, chat in enumerate(layout.chats):  # beside it, as every way to and fro takes time
        gr.on(
            let_go,
            handlers.turned(place),
            [layout.follow, state, *chosen],
            [chat, *history, *layout.who],
            trigger_mode="multiple",
            **QUIET,
        )
    then_answers(layout.again.click(handlers.again, [state, *chosen], said, **QUIET))
    layout.stop.click(handlers.stop, [state], None, **QUIET)
    cleared = [chat.clear for chat in layout.chats]
    gr.on([layout.new.click, *cleared], handlers.new, [state, *chosen], said, **QUIET)
    for place, (chat, who) in enumerate(zip(layout.chats, layout.who, strict=True)):
        then_answers(chat.retry(handlers.retried(place), [state, *chosen], said, **QUIET))
        then_answers(chat.edit(handlers.edited(place), [state, *chosen], said, **QUIET))
        then_answers(who.input(handlers.chose(place), [state, *chosen], [*columns, *said], **QUIET))
    for button, request in layout.examples:
        button.click(partial(_text, request), None, layout.request, **QUIET)
    layout.history.input(
        handlers.back,
        [layout.history, state, *chosen],
        [*layout.sliders, *pictures, layout.blind, *columns, *layout.who, *layout.chats],
        **QUIET,
    )
    layout.blind.input(
        handlers.blinded, [state, *chosen], [layout.revealed, *columns, *said], **QUIET
    )
    choices: tuple[Choice, ...] = ("left", "tie", "right")
    for choice, button in zip(choices, layout.better, strict=True):
        button.click(
            handlers.vote(choice),
            [state, *chosen],
            [layout.revealed, *history],
            **QUIET,
        )
    layout.measure.click(
        handlers.measure,
        [layout.language, state, *chosen],
        [layout.measuring, layout.curves],
        **QUIET,
    )
    layout.download.click(handlers.download, [state, *chosen], layout.recipe, **QUIET).success(
        None, layout.recipe, None, js=SAVE
    )
    layout.disk.click(handlers.write, [layout.folder, state, *chosen], layout.merging, **QUIET)


def _text(text: str) -> str:
    return text
