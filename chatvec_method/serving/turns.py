"""Whose turn it is: those who wait, at most so many, in an order that is fair and saves work.

The oldest comes first. But a model takes a while to become another one, so those who want what it
is now may go before it, a few of them.
"""

from __future__ import annotations

import threading
from typing import Generic, Protocol, TypeVar

from chatvec_method.errors import ChatVecError

BUSY, CLOSED = "busy", "closed"
"""The codes of the errors that too many wait, and that nobody is served any more."""
OVERTAKING = 8
"""So many may go before the oldest."""


class Keyed(Protocol):
    """Someone who waits."""

    @property
    def key(self) -> str:
        """What the model is to be."""


Waiting = TypeVar("Waiting", bound=Keyed)


class Turns(Generic[Waiting]):
    """Those who wait; any thread may add or remove one, and one thread takes them."""

    def __init__(self, room: int) -> None:
        """Let some wait.

        Args:
            room: How many.
        """
        self.room = room
        self._waiting: list[Waiting] = []
        self._overtaken = 0
        self._open = True
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def closed(self) -> bool:
        """Whether nobody is served any more."""
        return not self._open

    def add(self, one: Waiting) -> None:
        """Let one more wait.

        Raises:
            ChatVecError: Too many wait (`BUSY`), or nobody is served any more (`CLOSED`).
        """
        with self._changed:
            if not self._open:
                raise ChatVecError("the model is being closed.", "Start it again.", CLOSED)
            if len(self._waiting) >= self.room:
                raise ChatVecError(
                    f"{self.room} requests wait already.", "Ask again in a while.", BUSY
                )
            self._waiting.append(one)
            self._changed.notify()

    def remove(self, one: Waiting) -> bool:
        """Let one go who waits no longer; False if it does not wait."""
        with self._changed:
            for place, each in enumerate(self._waiting):
                if each is one:
                    self._take(place)
                    return True
            return False

    def next(self, key: str | None) -> Waiting | None:
        """Wait for the next and return it; None once nobody is served any more.

        Args:
            key: What the model is now.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._open)
            if not self._open:
                return None
            place = next((i for i, one in enumerate(self._waiting) if one.key == key), 0)
            if place and self._overtaken >= OVERTAKING:
                place = 0
            if place:
                self._overtaken += 1
            return self._take(place)

    def close(self) -> list[Waiting]:
        """Serve nobody any more, and return those who waited."""
        with self._changed:
            self._open = False
            left, self._waiting = self._waiting, []
            self._changed.notify_all()
            return left

    def _take(self, place: int) -> Waiting:
        if place == 0:
            self._overtaken = 0
        return self._waiting.pop(place)
