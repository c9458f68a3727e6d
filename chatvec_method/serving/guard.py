"""Who may ask, and how much: it stands before every route, the page's too.

Without a token, only programs and browsers of this machine may ask, and no web page but our own:

- `Host` must be a name of this machine's loopback. A foreign name that somebody has let point to
  127.0.0.1 (DNS rebinding) is refused.
- `Origin`, where a browser says it, must be the server's own; and what a page of another site loads
  without saying so, as a picture or a script, is refused too.

With a token, every request must bring it: programs in `Authorization: Bearer`, as they do with
OpenAI's API; browsers in a cookie, which they get for the token once, from a form or for `?token=`
behind the address. As no foreign page can have either, any `Host` will do: machines have several.

For everybody: requests have a size and a time in which to come, a path goes nowhere but down, and
no response may be read, framed or taken for something else by another site.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from urllib.parse import parse_qs, urlsplit

from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chatvec_method.serving.address import check_token, is_loopback
from chatvec_method.serving.replies import error, refusal

MOST_BYTES = 2_000_000
"""Of a request: a long conversation, or a page's state."""
MOST_LOGIN_BYTES = 10_000
BODY_SECONDS = 30.0
HOST = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?")
LOGIN, HEALTH = "/login", "/health"
FORM = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>chatvec live</title>
<style>
  body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 22rem; margin: 20vh auto 0; }}
  body {{ padding: 0 1rem; }}
  input, button {{ font: inherit; padding: .5rem; width: 100%; box-sizing: border-box; }}
  button {{ margin-top: .75rem; }}
</style>
<main>
<h1>chatvec live</h1>
<form method="post" action="{login}">
  <label>Token <input type="password" name="token" autocomplete="current-password" required
    autofocus></label>
  <button>OK</button>
</form>
<p role="alert">{said}</p>
</main>
</html>
"""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """An app, and before it who may ask."""

    def __init__(self, app: ASGIApp, token: str | None = None, *, public: bool = False) -> None:
        """Stand before an app.

        Args:
            app: The app.
            token: What everybody must bring; None for this machine alone.
            public: Whether everybody may ask, from anywhere, and frame what comes, as in a Space;
                only the size of requests counts then.

        Raises:
            ChatVecError: The token can be guessed, or not be sent.
        """
        if token is not None:
            check_token(token)
        self._app = app
        self._token = token
        self._public = public
        self._session = secrets.token_urlsafe(32)
        """What the cookie holds: not the token, and another one after every start."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on what may be asked, and refuse the rest."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send if self._public else _with_headers(send))
        else:  # nothing here speaks it
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        login = (scope["path"], scope["method"]) == (LOGIN, "POST")
        most = MOST_LOGIN_BYTES if login else MOST_BYTES
        refused = self._foreign(headers) or _strays(scope["path"])
        if refused is None and not login:
            refused = self._without_token(scope, headers)
        if refused is None and _announced(headers) > most:
            refused = _too_large(most)
        body = b""
        if refused is None:
            try:
                body = await asyncio.wait_for(_body(receive, most), BODY_SECONDS)
            except _TooLargeError:
                refused = _too_large(most)
            except asyncio.TimeoutError:
                refused = _refused(408, f"the request has not come in {BODY_SECONDS:g} seconds.")
            except _GoneError:
                return
        if refused is None and login:
            refused = self._without_token(scope, headers, body)
        await (refused or self._app)(scope, _again(body, receive), send)

    def _foreign(self, headers: Headers) -> Response | None:
        """Refuse what another site has sent, or what has come by a foreign name."""
        if self._public:
            return None
        host = headers.get("host", "")
        if self._token is None and not _is_loopback(host):
            return _refused(
                403,
                "this server is for programs of its own machine, at 127.0.0.1 or localhost. Start "
                "it with `--token` to reach it by other names.",
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return _refused(403, "a page of another site may not ask.")
        site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
        if site in ("cross-site", "same-site") and mode != "navigate":
            return _refused(403, "a page of another site may not ask.")
        return None

    def _without_token(
        self, scope: Scope, headers: Headers, login: bytes | None = None
    ) -> Response | None:
        """Refuse who has no token, and let in who shows it for the first time.

        Args:
            scope: The request.
            headers: Its headers.
            login: What the form sends; None where it does not.
        """
        path, method = scope["path"], scope["method"]
        if self._token is None or path == HEALTH:
            return None
        cookie = f"chatvec_live_{(scope.get('server') or ('', ''))[1]}"  # cookies know no ports
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(bearer.strip()):
            return None
        if _same(cookie_parser(headers.get("cookie", "")).get(cookie, ""), self._session):
            return None
        fields = scope["query_string"] if login is None else login
        shown = next(iter(parse_qs(fields.decode("latin-1")).get("token", [])), None)
        if shown is not None and self._is_token(shown) and (login is not None or method == "GET"):
            response = RedirectResponse("/", 303)
            secure = scope.get("scheme") == "https"
            response.set_cookie(cookie, self._session, httponly=True, samesite="lax", secure=secure)
            return response
        if "text/html" in headers.get("accept", ""):
            said = "" if shown is None else "This is not the token."
            return HTMLResponse(FORM.format(login=LOGIN, said=said), 401)
        return _refused(401, "the token is missing or wrong; send `Authorization: Bearer TOKEN`.")

    def _is_token(self, shown: str) -> bool:
        return _same(shown, self._token or "")


def _is_loopback(header: str) -> bool:
    """Tell the same of a `Host` header, which may have a port."""
    named = HOST.fullmatch(header)
    return named is not None and is_loopback(named[1].strip("[]"))


def _same(shown: str, wanted: str) -> bool:
    """Compare in a time that tells nothing, neither of letters nor of lengths."""
    digests = [hashlib.sha256(each.encode()).digest() for each in (shown, wanted)]
    return hmac.compare_digest(*digests)


def _strays(path: str) -> Response | None:
    """Refuse a path that goes up, in any spelling."""
    spelt = path.lower().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/")
    parts = spelt.replace("\\", "/").split("/")
    if ".." in parts or "\0" in spelt or "%00" in spelt:
        return _refused(400, "there is no such path.")
    return None


def _announced(headers: Headers) -> int:
    length = headers.get("content-length", "0")
    return int(length) if length.isdecimal() else 0


async def _body(receive: Receive, most: int) -> bytes:
    """Return what a request brings, at most so many bytes.

    Raises:
        _TooLargeError: It is more than it may be.
        _GoneError: The client goes away before it is complete.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError
        body += message.get("body", b"")
        if len(body) > most:
            raise _TooLargeError
        if not message.get("more_body", False):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives an app the body that has been read, and then all that comes behind it."""
    first = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return first.pop() if first else await receive()

    return receive_again


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers


def _too_large(most: int) -> Response:
    return _refused(413, f"the request is larger than {most / 1e6:g} MB.")


def _refused(status: int, message: str) -> Response:
    codes = {401: "invalid_api_key", 413: "too_large"}
    return refusal(status, error(message, status, codes.get(status)))


class _TooLargeError(Exception):
    """A request is larger than it may be."""


class _GoneError(Exception):
    """The client has gone away."""
