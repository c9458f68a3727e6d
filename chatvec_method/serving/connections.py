"""As many connections as there may be, and none that says nothing.

uvicorn keeps every connection that is opened, and waits for its request for ever: whoever opens a
thousand would have them all, and nobody else one.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from chatvec_method.serving.replies import error

MOST_CONNECTIONS = 200
"""Less than the files that a process may open on any system."""
SILENT_SECONDS = 10.0
"""So long a connection may take to say what it wants."""


class BoundedProtocol(H11Protocol):
    """uvicorn's own protocol, for some connections at a time."""

    _refused = False
    _patience: asyncio.TimerHandle | None = None
    """Runs while a request is awaited of which nothing, or not all of its head, has come."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or refuse it in a sentence."""
        if len(self.connections) >= MOST_CONNECTIONS:
            self._refused = True
            transport.write(_REFUSAL)
            transport.close()
            return
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take what comes, but of a connection that is refused."""
        if self._refused:
            return
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_no_longer()
        elif self._patience is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection that has ended."""
        self._wait_no_longer()
        if not self._refused:
            super().connection_lost(exc)

    def _wait(self) -> None:
        self._patience = self.loop.call_later(SILENT_SECONDS, self.transport.close)

    def _wait_no_longer(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def _refusal() -> bytes:
    form: dict[str, Any] = error("too many connections; close some.", 429, "rate_limit_exceeded")
    body = json.dumps(form).encode()
    head = (
        "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


_REFUSAL = _refusal()
