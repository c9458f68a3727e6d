"""From what somebody chose to what the engine answers with, and its answers piece by piece."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from chatvec_method.errors import ChatVecError
from chatvec_method.serving.engine import Engine
from chatvec_method.serving.page.knobs import Board, Knobs
from chatvec_method.serving.page.session import KEPT, MERGE, Session, Side, Turn
from chatvec_method.serving.settings import AT, Setting
from chatvec_method.talk.speaker import Message, Sampling

SECONDS = 0.04
"""Between two pictures of an answer that grows: a browser draws no more often."""


@dataclass(frozen=True)
class Manner:
    """How answers are to be."""

    system: str
    temperature: float
    """0 for the likeliest token."""
    longest: int
    """In tokens."""
    seed: int

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        if self.temperature == 0:
            return Sampling(greedy=True)
        return Sampling(temperature=self.temperature, seed=self.seed)


@dataclass(frozen=True)
class Asker:
    """Who has the engine answer."""

    engine: Engine
    board: Board

    def setting(self, who: str, board: tuple[Knobs, ...], session: Session) -> tuple[str, Setting]:
        """Return what somebody is called, and with what it answers.

        Args:
            who: `cp`, `chat`, `merge` (as the sliders are) or `setting:3`.
            board: The sliders.
            session: Which remembers the settings.

        Raises:
            ChatVecError: There is no such one, or the sliders make no recipe.
        """
        if who.startswith(KEPT):
            board = session.settings[int(who.removeprefix(KEPT)) - 1]
        elif who != MERGE:
            return who, self.engine.settings.named(who)
        label = self.board.label(board)
        return f"{MERGE} {label}", Setting(f"{MERGE}{AT}{label}", self.board.reworded(board))

    async def answers(
        self, side: Side, by: str, setting: Setting, manner: Manner
    ) -> AsyncIterator[Turn]:
        """Yield the last turn of a conversation as its answer grows, the whole at the end.

        Nothing more comes once somebody else has this side answer, or stops it.

        Raises:
            ChatVecError: It cannot be answered.
        """
        side.due = False
        request = side.turns[-1].request
        writing = self.engine.answer(
            messages(manner.system, side.turns),
            setting,
            manner.sampling,
            max_tokens=manner.longest,
            forgets=True,
        )
        side.writing = writing
        turn = Turn(request, "", by, setting.key)
        drawn = 0.0
        try:
            async with aclosing(aiter(writing)) as pieces:
                async for _ in pieces:
                    turn = replace(turn, answer=writing.text)
                    if side.writing is not writing:
                        break
                    side.turns[-1] = turn
                    if time.monotonic() - drawn > SECONDS:
                        drawn = time.monotonic()
                        yield turn
            if side.writing is writing:
                side.turns[-1] = turn
                yield turn
        finally:
            if side.writing is writing:
                side.writing = None

    async def written(
        self, side: Side, conversation: Sequence[Message], setting: Setting, longest: int
    ) -> tuple[str, bool] | None:
        """Return an answer, and whether the model came to its end; None where it was stopped."""
        writing = self.engine.answer(
            conversation, setting, Sampling(greedy=True), max_tokens=longest, forgets=True
        )
        side.writing = writing
        async with aclosing(aiter(writing)) as pieces:
            async for _ in pieces:
                pass
        account = writing.account
        if side.writing is not writing or account is None or account.finish == "cancelled":
            return None
        return writing.text, account.finish == "stop"


def messages(system: str, turns: Sequence[Turn]) -> list[Message]:
    """Return a conversation up to its last request, as chat templates have it."""
    said: list[Message] = []
    if system.strip():
        said.append({"role": "system", "content": system.strip()})
    for turn in turns[:-1]:
        if not turn.answer:  # it was stopped before it began
            continue
        said.append({"role": "user", "content": turn.request})
        said.append({"role": "assistant", "content": turn.answer})
    if not turns:
        raise ChatVecError("nothing was asked.", "Ask something first.")
    return [*said, {"role": "user", "content": turns[-1].request}]
