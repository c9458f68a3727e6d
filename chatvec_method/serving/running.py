"""The server as it runs: uvicorn, of which nobody hears but what went wrong."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from chatvec_method.serving.connections import BoundedProtocol
from chatvec_method.serving.engine import Engine


def server_of(
    app: ASGIApp, engine: Engine, on_ready: Callable[[], None] = lambda: None
) -> uvicorn.Server:
    """Return a server: `run(sockets=[place])` serves until Ctrl-C, a signal or `should_exit`.

    Then answers under way break off, and the engine and the socket are closed.

    Args:
        app: What is served, with its guard.
        engine: Answers.
        on_ready: Is called once somebody can be heard.
    """
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",  # what fails is told by the app; the rest is of no use to anybody
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=0,
    )
    return _Server(config, engine, on_ready)


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, engine: Engine, on_ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._engine = engine
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Whoever waits is told first; uvicorn then gives them a tenth of a second, and ends them.
        await asyncio.to_thread(self._engine.close, 0.0)
        await super().shutdown(sockets)
