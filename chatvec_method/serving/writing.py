"""An answer that is being written, seen by whoever asked for it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from chatvec_method.errors import ChatVecError
from chatvec_method.serving.settings import Setting
from chatvec_method.talk.speaker import Answer

Finish: TypeAlias = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Account:
    """What an answer was, once it is there."""

    setting: Setting
    """With which it was made: `setting.name`, `setting.ratio`."""
    finish: Finish
    """Whether the model came to an end or to a text to stop at, was cut off, or was cancelled."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """With the token that ended it."""
    forgotten: int = 0
    """The oldest turns that the model's context did not hold."""
    seed: int | None = None
    """With it, the same request gets the same answer; None where nothing is left to chance."""


Event: TypeAlias = "str | Account | ChatVecError"
"""A piece of text; and as the last one, what the answer was, or why there is none."""


class Writing:
    """An answer that is being written, or waits for its turn.

    Iterate over it, with `for` in a thread or with `async for`, once: its pieces come as they are
    written, and a ChatVecError where it goes wrong. Closing the iterator cancels it.

    Attributes:
        text: What has been read of it so far.
        account: What it was, once all is read; None before.
        cancelled: Whether nobody wants it any longer.
    """

    def __init__(self, setting: Setting, leave: Callable[[], bool]) -> None:
        """Begin with nothing.

        Args:
            setting: With which it is to be made.
            leave: Gives up the place among those who wait; False if it has none any more.
        """
        self.text = ""
        self.account: Account | None = None
        self.cancelled = False
        self._setting = setting
        self._leave = leave
        self._answer: Answer | None = None
        self._lock = threading.Lock()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._wake: Callable[[], None] = lambda: None

    def cancel(self) -> None:
        """Have no more of it written: from the next token on. Any thread may say so, repeatedly."""
        with self._lock:
            self.cancelled = True
            if self._answer is not None:
                self._answer.halt()
        if self._leave():
            self.tell(Account(self._setting, "cancelled"))

    def __iter__(self) -> Generator[str]:
        """Yield the pieces, and wait for each."""
        try:
            while (piece := self._read(self._events.get())) is not None:
                yield piece
        finally:
            self.cancel()

    async def __aiter__(self) -> AsyncGenerator[str]:
        """Yield the pieces; others run meanwhile."""
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
                loop.call_soon_threadsafe(news.set)

        self._wake = wake
        news.set()  # of what came before
        try:
            while True:
                await news.wait()
                news.clear()
                with contextlib.suppress(queue.Empty):
                    while True:
                        if (piece := self._read(self._events.get_nowait())) is None:
                            return
                        yield piece
        finally:
            self.cancel()

    def follow(self, answer: Answer) -> None:
        """Have the engine's answer halted, once this one is cancelled."""
        with self._lock:
            self._answer = answer
            if self.cancelled:
                answer.halt()

    def tell(self, event: Event) -> None:
        """Hand the next piece, or the end, to whoever reads."""
        self._events.put(event)
        self._wake()

    def _read(self, event: Event) -> str | None:
        """Return a piece; None at the end."""
        if isinstance(event, ChatVecError):
            raise event
        if isinstance(event, Account):
            self.account = event
            return None
        self.text += event
        return event
