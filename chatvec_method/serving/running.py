"""The server as it runs: uvicorn on a socket that is there before the models are loaded."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from chatvec_method.errors import ChatVecError
from chatvec_method.serving.connections import BoundedProtocol
from chatvec_method.serving.engine import Engine
from chatvec_method.serving.guard import check_token, is_loopback


def bound(host: str, port: int, token: str | None) -> socket.socket:
    """Return a socket with an address of its own, on which nobody is heard yet.

    Args:
        host: A name or an address.
        port: A number; 0 for any that is free.
        token: See `Guard`.

    Raises:
        ChatVecError: Others than this machine could reach it and there is no token, the token can
            be guessed, or the address is not to be had.
    """
    if token is not None:
        check_token(token)
    elif not is_loopback(host):
        raise ChatVecError(
            f"--host {host} lets other machines in, and there is no token.",
            "Write `--token` or set CHATVEC_TOKEN, or leave out `--host`.",
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        place = socket.socket(family, kind, protocol)
        if sys.platform != "win32":  # there it would let several have one address
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(address)
    except OSError as error:
        raise ChatVecError(
            f"{host}:{port} cannot be served at: {error.strerror}.",
            "Write another `--port`, or `--port 0` for any that is free.",
        ) from error
    return place


def address_of(place: socket.socket) -> str:
    """Return where a socket is, as a browser wants it."""
    host, port = place.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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
