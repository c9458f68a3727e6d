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
"""So long a new connection may take to say what it wants."""


class BoundedProtocol(H11Protocol):
    """uvicorn's own protocol, for some connections at a time."""

    _refused = False
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or refuse it in a sentence."""
        if len(self.connections) >= MOST_CONNECTIONS:
            self._refused = True
            transport.write(_REFUSAL)
            transport.close()
            return
        super().connection_made(transport)
        self._patience = self.loop.call_later(SILENT_SECONDS, self._lose_patience)

    def data_received(self, data: bytes) -> None:
        """Take what comes, but of a connection that is refused."""
        if not self._refused:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection that has ended."""
        if self._patience is not None:
            self._patience.cancel()
        if not self._refused:
            super().connection_lost(exc)

    def _lose_patience(self) -> None:
        """Close a connection on which there has been no request yet."""
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


def _refusal() -> bytes:
    form: dict[str, Any] = error("too many connections; close some.", 429, "rate_limit_exceeded")
    body = json.dumps(form).encode()
    head = (
        "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


_REFUSAL = _refusal()
