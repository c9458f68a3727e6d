"""Where the server is reached, and whether others than this machine reach it.

Nothing heavy is imported here: a mistake in an address is told before the models are loaded.
"""

from __future__ import annotations

import socket
import sys
from ipaddress import ip_address

from chatvec_method.errors import ChatVecError

SHORTEST_TOKEN = 16
"""Characters; fewer could be guessed."""


def bound(host: str, port: int, token: str | None, *, public: bool = False) -> socket.socket:
    """Return a socket with an address of its own, on which nobody is heard yet.

    Args:
        host: A name or an address.
        port: A number; 0 for any that is free.
        token: See `Guard`.
        public: See `Guard`.

    Raises:
        ChatVecError: Others than this machine could reach it and there is no token, the token can
            be guessed, or the address is not to be had.
    """
    if token is not None:
        check_token(token)
    elif not public and not is_loopback(host):
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


def check_token(token: str) -> None:
    """Refuse a token that can be guessed, or not be sent.

    Raises:
        ChatVecError: It is one.
    """
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise ChatVecError(
            f"the token has less than {SHORTEST_TOKEN} characters, or others than ASCII.",
            "Make one: `python -c 'import secrets; print(secrets.token_urlsafe())'`.",
        )


def is_loopback(host: str) -> bool:
    """Tell whether a name or an address is this machine's own, which no other can reach."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
