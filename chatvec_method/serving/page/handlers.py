"""What happens when somebody does something on the page."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from chatvec_method.errors import ChatVecError
from chatvec_method.progress import Progress
from chatvec_method.recipe.file import Recipe
from chatvec_method.serving.page.asking import Asker, Manner
from chatvec_method.serving.page.curves import curves_svg
from chatvec_method.serving.page.knobs import DEPTHS, Board, Knobs, checked_shape, knobs_of
from chatvec_method.serving.page.layout import Content, shape_choices, who_choices
from chatvec_method.serving.page.measure import Exam, Measurement
from chatvec_method.serving.page.picture import schedule_svg
from chatvec_method.serving.page.session import MERGE, NOBODY, SIDES, Choice, Session, Side
from chatvec_method.serving.page.told import (
    Gloss,
    as_said,
    bar,
    bubbles,
    hint,
    history_line,
    note,
    shown,
    turn_at,
    wins_table,
)
from chatvec_method.serving.page.words import Words, words_for
from chatvec_method.serving.settings import Setting

Handler = Callable[..., Any]
"""What gradio calls; it looks at the annotations, which a partial function has not."""
Merge = Callable[[Recipe, Path, Callable[[Progress], None]], None]
"""Writes a recipe's merge into a folder."""


@dataclass(frozen=True)
class Chosen:
    """What stands on the page when something is done: who answers, and how."""

    who: tuple[str, ...]
    """In their places, whether they are hidden or not."""
    blind: bool
    manner: Manner
    board: tuple[Knobs, ...]


class Handlers:
    """What the page does; each is given the components that `build` names."""

    def __init__(
        self,
        asker: Asker,
        content: Content,
        exam: Callable[[str], Exam],
        merge: Merge,
        gloss: Gloss | None,
    ) -> None:
        """Serve a page.

        Args:
            asker: Who has the engine answer.
            content: What the page is about.
            exam: Gives the quick exam in a language.
            merge: Writes a merge to disk.
            gloss: Says what a text in a made-up language means.
        """
        self._asker = asker
        self._content = content
        self._exam = exam
        self._merge = merge
        self._gloss = gloss

    @property
    def _board(self) -> Board:
        return self._asker.board

    def start(self, request: gr.Request) -> list[Any]:
        """Return who can answer, the shapes and the pictures, in the browser's language."""
        words = _words(request)
        first = self._board.first
        names = [gr.update(choices=choices) for choices in self._who_choices(Session(), words)]
        shapes = [gr.update(choices=shape_choices(knobs, words)) for knobs in first]
        chats = [gr.update(label=self._named(who, words)) for who in ("cp", MERGE, NOBODY)]
        return [*names, *shapes, *self._pictures(first, words), *chats]

    @shown()
    def ask(self, request: gr.Request, text: str, session: Session, *values: Any) -> list[Any]:
        """Put a message to all who answer."""
        chosen = self._chosen(values)
        if not text.strip():
            raise hint(_words(request)["ask_first"])
        if chosen.blind and session.revealed:
            if NOBODY in chosen.who[:2] or chosen.who[0] == chosen.who[1]:
                raise hint(_words(request)["two_first"])
            session.shuffle()
        self._check(chosen, session)
        for who, side in self._answering(chosen, session):
            if who != NOBODY:
                side.ask(text.strip())
        return ["", "", *self._after_asking(request, session, chosen)]

    @shown()
    def again(self, request: gr.Request, session: Session, *values: Any) -> list[Any]:
        """Have all answer the last message anew."""
        chosen = self._chosen(values)
        self._check(chosen, session)
        for who, side in self._answering(chosen, session):
            if who != NOBODY:
                side.ask_again()
        return self._after_asking(request, session, chosen)

    @shown()
    def moved(self, request: gr.Request, *values: Any) -> list[Any]:
        """Draw the schedule."""
        return self._pictures(self._chosen(values).board, _words(request))

    def turned(self, place: int) -> Handler:
        """Have the merge answer anew at once, if it is another one now."""

        async def handler(
            request: gr.Request, follow: bool, session: Session, *values: Any
        ) -> AsyncIterator[Any]:
            side = session.sides[place]
            if follow and not values[SIDES] and values[place] == MERGE and side.turns:
                with suppress(ChatVecError):  # which `moved` tells
                    _, setting = await self._setting(MERGE, self._chosen(values), session)
                    if side.turns[-1].key != setting.key:
                        side.ask_again()
            async for update in self._answers(place, request, session, values):
                yield update

        return handler

    def retried(self, place: int) -> Handler:
        """Have one answer the last message anew."""

        @shown()
        def handler(request: gr.Request, session: Session, *values: Any) -> list[Any]:
            chosen = self._chosen(values)
            self._check(chosen, session)
            session.sides[place].ask_again()
            return self._after_asking(request, session, chosen)

        return handler

    def edited(self, place: int) -> Handler:
        """Put a message in other words: all go back to it and answer."""

        @shown()
        def handler(
            edit: gr.EditData, request: gr.Request, session: Session, *values: Any
        ) -> list[Any]:
            chosen = self._chosen(values)
            self._check(chosen, session)
            bubble = edit.index[0] if isinstance(edit.index, tuple | list) else edit.index
            turn = turn_at(session.sides[place].turns, int(bubble))
            for who, side in self._answering(chosen, session):
                if who != NOBODY and turn < len(side.turns):
                    side.stop()
                    side.turns = side.turns[:turn]
                    side.ask(as_said(str(edit.value)).strip())
            return self._after_asking(request, session, chosen)

        return handler

    def chose(self, place: int) -> Handler:
        """Have somebody else answer in a place: the last message first."""

        @shown()
        def handler(request: gr.Request, session: Session, *values: Any) -> list[Any]:
            chosen = self._chosen(values)
            self._check(chosen, session)
            side = session.sides[place]
            side.stop()
            last = next((s.turns[-1].request for s in session.sides if s.turns), None)
            if chosen.blind:
                session.forget()
                session.revealed = True
            elif chosen.who[place] == NOBODY:
                side.turns = []
            elif side.turns:
                side.ask_again()
            elif last is not None:
                side.ask(last)
            columns = [gr.update(visible=who != NOBODY) for who in chosen.who]
            return [*columns, *self._after_asking(request, session, chosen)]

        return handler

    def answer(self, place: int) -> Handler:
        """Yield a conversation as its last answer grows, if one is due."""

        async def handler(
            request: gr.Request, session: Session, *values: Any
        ) -> AsyncIterator[Any]:
            async for update in self._answers(place, request, session, values):
                yield update

        return handler

    async def _answers(
        self, place: int, request: gr.Request, session: Session, values: Sequence[Any]
    ) -> AsyncIterator[Any]:
        """Yield a conversation as its answer grows; at the end the history, and who can answer."""
        side, words = session.sides[place], _words(request)
        skipped = [gr.skip()] * (2 + SIDES)
        if not side.due:
            yield gr.skip(), *skipped
            return
        with shown():
            chosen = self._chosen(values)
            who = session.who_at(chosen.who, blind=chosen.blind)
            by, setting = await self._setting(who[place], chosen, session)
            session.number(chosen.board)
            async for _ in self._asker.answers(side, by, setting, chosen.manner):
                yield self._chat(place, session, chosen, words), *skipped
        if not chosen.blind:
            session.note(chosen.board, who)
        names = [gr.update(choices=choices) for choices in self._who_choices(session, words)]
        yield self._chat(place, session, chosen, words), *self._history(session), *names

    async def _setting(self, who: str, chosen: Chosen, session: Session) -> tuple[str, Setting]:
        """Return who answers and with what; a schedule over many layers takes a while."""
        return await asyncio.to_thread(self._asker.setting, who, chosen.board, session)

    def stop(self, session: Session) -> None:
        """Let all answers end here."""
        session.stop()

    def new(self, request: gr.Request, session: Session, *values: Any) -> list[Any]:
        """Begin a new conversation."""
        session.forget()
        session.revealed = True
        return self._after_asking(request, session, self._chosen(values))

    @shown()
    def back(
        self, request: gr.Request, place: int | None, session: Session, *values: Any
    ) -> list[Any]:
        """Go back to a setting of the history, and to what was said with it."""
        if place is None or not 0 <= place < len(session.entries):
            raise hint(_words(request)["history_empty"])
        entry = session.go_back(place)
        chosen = self._chosen(values)
        chosen = Chosen(entry.who, False, chosen.manner, entry.board)
        words = _words(request)
        flat: list[Any] = []
        for knobs in entry.board:
            parts = [knobs.parts.get(part, 1.0) for part in self._board.parts]
            flat += [knobs.ratio, knobs.shape, *parts, *knobs.knots]
        columns = [gr.update(visible=who != NOBODY) for who in entry.who]
        who = [
            gr.update(choices=choices, value=value)
            for choices, value in zip(self._who_choices(session, words), entry.who, strict=True)
        ]
        return [
            *flat,
            *self._pictures(entry.board, words),
            False,
            *columns,
            *who,
            *self._chats(session, chosen, words),
        ]

    def blinded(self, request: gr.Request, session: Session, *values: Any) -> list[Any]:
        """Hide who answers, or show it again: a new conversation."""
        chosen = self._chosen(values)
        session.forget()
        session.revealed = True
        third = NOBODY if chosen.blind else chosen.who[2]
        columns = [True, True, third != NOBODY]
        return [
            "",
            *(gr.update(visible=each) for each in columns),
            *self._after_asking(request, session, chosen),
        ]

    def vote(self, choice: Choice) -> Handler:
        """Remember which was better, and tell who they were."""

        @shown()
        def handler(request: gr.Request, session: Session, *values: Any) -> list[Any]:
            words = _words(request)
            verdict = session.vote(choice)
            if verdict is None:
                raise hint(words["ask_first"])
            chosen = self._chosen(values)
            session.note(chosen.board, session.who_at(chosen.who, blind=chosen.blind))
            told = words["revealed"].format(left=verdict.left, right=verdict.right)
            return [note(told) + wins_table(session, words), *self._history(session)]

        return handler

    async def measure(
        self, request: gr.Request, language: str, session: Session, *values: Any
    ) -> AsyncIterator[Any]:
        """Ask the quick exam of the merge as the sliders are, and draw what was measured so far."""
        words, side = _words(request), Side()
        answers: list[tuple[str, bool]] = []
        session.probes.append(side)
        try:
            with shown():
                chosen = self._chosen(values)
                by, setting = await self._setting(MERGE, chosen, session)
                exam = self._exam(language)
                for question in exam.questions:
                    done, total = len(answers), len(exam.questions)
                    told = words["measuring"].format(done=done, total=total)
                    yield bar(done, total, told), gr.skip()
                    answer = await self._asker.written(side, question, setting, exam.longest)
                    if answer is None:
                        yield "", gr.skip()
                        return
                    answers.append(answer)
                shares = await asyncio.to_thread(exam.shares, answers)
        finally:
            side.stop()
            session.probes.remove(side)
        first = chosen.board[0]
        line = self._board.label([Knobs(1.0, first.shape, first.parts, first.knots)])
        line = " + ".join([line, *(knobs.label for knobs in chosen.board[1:])])
        session.measured.append(Measurement(by, first.ratio, line, language, shares))
        measured = note(words["measured"].format(label=by))
        yield measured, curves_svg(session.measured, words)

    @shown()
    def download(self, session: Session, *values: Any) -> dict[str, str]:
        """Return the recipe with the ratios of the sliders, to be saved by the browser."""
        recipe = self._board.reworded(self._chosen(values).board).recipe
        stem = Path(recipe.name).stem or "recipe"
        return {"name": f"{stem}.yaml", "text": recipe.text}

    async def write(
        self, request: gr.Request, folder: str, session: Session, *values: Any
    ) -> AsyncIterator[str]:
        """Write the merge to disk, and tell how far it is."""
        words = _words(request)
        with shown():
            out = new_folder(folder)
            reworded = self._board.reworded(self._chosen(values).board)
            recipe = await asyncio.to_thread(getattr, reworded, "recipe")
            told: queue.SimpleQueue[Progress] = queue.SimpleQueue()
            writing = _Thread(partial(self._merge, recipe, out, told.put))
            while not writing.done.is_set():
                await asyncio.sleep(0.2)
                progress = None
                while not told.empty():
                    progress = told.get()
                if progress is not None and progress.total:
                    done, total = progress.done / 1e6, progress.total / 1e6
                    amount = {"done": f"{done:,.0f}", "total": f"{total:,.0f}", "unit": "MB"}
                    text = words["merging"].format(**amount)
                    yield bar(progress.done, progress.total, text)
            writing.result()
        yield note(words["written"].format(out=out))

    def _chosen(self, values: Sequence[Any]) -> Chosen:
        """Return what stands on the page.

        Raises:
            ChatVecError: A shape is none.
        """
        who, blind, (system, temperature, longest, seed) = (
            tuple(values[:SIDES]),
            bool(values[SIDES]),
            values[SIDES + 1 : SIDES + 5],
        )
        manner = Manner(system or "", float(temperature), int(longest), int(seed or 0))
        rest = list(values[SIDES + 5 :])
        parts, board = self._board.parts, []
        for _ in self._board.chats:
            size = 2 + len(parts) + len(DEPTHS)
            (ratio, shape, *others), rest = rest[:size], rest[size:]
            times = tuple(float(each) for each in others)
            board.append(
                knobs_of(
                    float(ratio),
                    checked_shape(str(shape)),
                    dict(zip(parts, times, strict=False)),
                    times[len(parts) :],
                )
            )
        return Chosen(who, blind, manner, tuple(board))

    def _check(self, chosen: Chosen, session: Session) -> None:
        """Let what cannot be asked be refused before anything is."""
        for who in chosen.who:
            if who != NOBODY:
                self._asker.setting(who, chosen.board, session)

    def _answering(self, chosen: Chosen, session: Session) -> list[tuple[str, Side]]:
        who = session.who_at(chosen.who, blind=chosen.blind)
        return list(zip(who, session.sides, strict=True))

    def _after_asking(self, request: gr.Request, session: Session, chosen: Chosen) -> list[Any]:
        """Return the chats, and who can answer now."""
        words = _words(request)
        if any(side.due for side in session.sides):
            session.number(chosen.board)
        who = [gr.update(choices=choices) for choices in self._who_choices(session, words)]
        return [*self._chats(session, chosen, words), *who]

    def _who_choices(self, session: Session, words: Words) -> list[list[tuple[str, str]]]:
        answerers = self._content.answerers
        return [
            who_choices(answerers, session, self._board, words, none=place > 0)
            for place in range(SIDES)
        ]

    def _chats(self, session: Session, chosen: Chosen, words: Words) -> list[Any]:
        return [self._chat(place, session, chosen, words) for place in range(SIDES)]

    def _chat(self, place: int, session: Session, chosen: Chosen, words: Words) -> Any:
        said = bubbles(session.sides[place].turns, self._gloss)
        return gr.update(value=said, label=self._label(place, session, chosen, words))

    def _label(self, place: int, session: Session, chosen: Chosen, words: Words) -> str:
        if chosen.blind:
            return words["hidden"].format(number=place + 1)
        who = chosen.who[place]
        if who == NOBODY:
            return words["nobody"]
        if who == MERGE:
            return f"{MERGE} {self._board.label(chosen.board)}"
        return self._named(who, words) if ":" not in who else self._of_setting(who, session, words)

    def _of_setting(self, who: str, session: Session, words: Words) -> str:
        number = int(who.partition(":")[2])
        label = self._board.label(session.settings[number - 1])
        return words["setting_of"].format(number=number, label=label)

    def _named(self, who: str, words: Words) -> str:
        return words.get(who) or f"{words['chat']} {who.removeprefix('chat')}"

    def _pictures(self, board: Sequence[Knobs], words: Words) -> list[str]:
        plan = self._board.plan(self._board.reworded(board))
        return [schedule_svg(plan, chat, words) for chat in self._board.chats]

    def _history(self, session: Session) -> list[Any]:
        lines = [(history_line(session, each), i) for i, each in enumerate(session.entries)]
        return [
            gr.update(choices=lines[::-1], value=None, visible=bool(lines)),
            gr.update(visible=not lines),
        ]


class _Thread:
    """Work in a thread of its own, which is not ended halfway."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.done = threading.Event()
        self._error: BaseException | None = None
        self._work = work
        threading.Thread(target=self._run, name="chatvec-merge", daemon=True).start()

    def result(self) -> None:
        """Raise what the work raised."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # told to whoever waits
            self._error = error
        finally:
            self.done.set()


def new_folder(name: str) -> Path:
    """Return a folder below this one that is not there yet.

    Whoever can see the page names it, so it can neither be elsewhere nor replace anything.

    Raises:
        ChatVecError: It is elsewhere, or there already.
    """
    folder = Path(name.strip())
    if not name.strip() or folder.is_absolute() or ".." in folder.parts or "~" in name:
        raise ChatVecError(
            f"`{name}` is not a folder below the one in which chatvec live was started.",
            "Write a name, as in `out`.",
        )
    here = Path.cwd().resolve()
    out = (here / folder).resolve()
    if here not in out.parents:
        raise ChatVecError(f"`{name}` leads out of {here}.", "Write a name, as in `out`.")
    if out.exists():
        raise ChatVecError(f"{out} exists.", "Write the name of a new folder.")
    return out


def _words(request: gr.Request) -> Words:
    return words_for(request.headers.get("accept-language"))
