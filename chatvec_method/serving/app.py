"""The server's app: the API of OpenAI, and room for a page.

app = api(engine)
# whoever has a page mounts it here, at "/"
guarded = Guard(app, token)  # see `guard`; this is what is served
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

import chatvec_method
from chatvec_method.errors import ChatVecError
from chatvec_method.serving import replies
from chatvec_method.serving.engine import Engine
from chatvec_method.serving.replies import Form, Reply
from chatvec_method.serving.requests import ChatRequest
from chatvec_method.serving.settings import Setting
from chatvec_method.serving.turns import CLOSED
from chatvec_method.serving.writing import Account, Writing

Result = TypeVar("Result")
GONE = Response(status_code=499)
"""For a client that has gone away, and does not read it."""


def api(engine: Engine) -> FastAPI:
    """Return the app with the API's routes.

    Args:
        engine: Answers.
    """
    # No page that describes the API: it would load its scripts from elsewhere.
    app = FastAPI(
        title="chatvec live",
        version=chatvec_method.__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    _explain_errors(app)
    created = int(time.time())

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "waiting": engine.waiting}

    @app.get("/v1/models")
    async def models() -> Response:
        return Form(replies.models(engine.settings, created))

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        return Form(replies.model(await _setting(engine, name), created))

    @app.post("/v1/chat/completions")
    async def complete(asked: ChatRequest, request: Request) -> Response:
        messages, stops = asked.plain_messages(), asked.stops()
        setting = await _setting(engine, asked.model, asked.ratio, asked.schedule)
        writing = engine.answer(
            messages, setting, asked.sampling(), max_tokens=asked.longest(), stop=stops
        )
        try:
            if not asked.stream:
                return await _whole(request, writing, setting)
            pieces = aiter(writing)
            # An error that comes before the first piece has a status of its own.
            first = await _until_gone(request, _first(pieces))
        except _GoneError:
            writing.cancel()
            return GONE
        with_usage = asked.stream_options is not None and asked.stream_options.include_usage
        return _Stream(_events(writing, first, pieces, setting, with_usage), writing)

    return app


async def _setting(engine: Engine, name: str, ratio: Any = None, schedule: Any = None) -> Setting:
    """Return a setting; a schedule over many layers takes a while, and others run meanwhile."""
    return await asyncio.to_thread(engine.settings.named, name, ratio=ratio, schedule=schedule)


async def _whole(request: Request, writing: Writing, setting: Setting) -> Response:
    async def read() -> None:
        async for _ in writing:
            pass

    await _until_gone(request, read())
    return Form(Reply(setting).whole(writing.text, _account(writing)))


def _account(writing: Writing) -> Account:
    """Return what an answer was.

    Raises:
        ChatVecError: It has broken off: the engine is being closed.
    """
    if writing.account is None or writing.account.finish == "cancelled":
        raise ChatVecError("the server is being closed.", "Start it again.", CLOSED)
    return writing.account


async def _first(pieces: AsyncGenerator[str]) -> str | None:
    """Return the first piece; None if there is none. The others can be had after it."""
    async for piece in pieces:
        return piece
    return None


async def _events(
    writing: Writing,
    first: str | None,
    pieces: AsyncGenerator[str],
    setting: Setting,
    with_usage: bool,
) -> AsyncGenerator[str]:
    """Yield the events of a stream."""
    reply = Reply(setting)
    yield replies.event(reply.opening())
    try:
        if first is not None:
            yield replies.event(reply.piece(first))
        async for piece in pieces:
            yield replies.event(reply.piece(piece))
        account = _account(writing)
    except ChatVecError as problem:
        _, form = replies.error_of(problem)
        yield replies.event(form)
        return
    yield replies.event(reply.closing(account))
    if with_usage:
        yield replies.event(reply.usage(account))
    yield replies.event("[DONE]")


class _Stream(StreamingResponse):
    """Events as they come; the model stops once nobody reads them."""

    def __init__(self, events: AsyncGenerator[str], writing: Writing) -> None:
        super().__init__(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )
        self._writing = writing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._writing.cancel()


class _GoneError(Exception):
    """The client has gone away."""


async def _until_gone(request: Request, work: Awaitable[Result]) -> Result:
    """Return what comes of some work.

    Raises:
        _GoneError: The client goes away before; then the work is cancelled.
    """

    async def leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(leave())
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise _GoneError
    finally:
        working.cancel()
        leaving.cancel()


def _explain_errors(app: FastAPI) -> None:
    """Have every error told in OpenAI's form, and nothing of a traceback."""

    @app.exception_handler(ChatVecError)
    async def refused(request: Request, problem: ChatVecError) -> Form:
        return replies.refusal(*replies.error_of(problem))

    @app.exception_handler(RequestValidationError)
    async def not_understood(request: Request, problem: RequestValidationError) -> Form:
        told = "; ".join(_told(each) for each in problem.errors()[:3])
        return replies.refusal(400, replies.error(told, 400, "invalid_value"))

    @app.exception_handler(HTTPException)
    async def no_such_route(request: Request, problem: HTTPException) -> Form:
        form = replies.error(f"{problem.detail}: {request.url.path}.", problem.status_code)
        return Form(form, problem.status_code, problem.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, problem: Exception) -> Form:
        logging.getLogger(__name__).error("a request failed", exc_info=problem)
        message = "the server could not do this; its own output says more."
        return replies.refusal(500, replies.error(message, 500, "failed"))


def _told(problem: Any) -> str:
    """Return in a sentence what is wrong with a field."""
    if problem["type"] == "json_invalid":
        return "the request is no JSON"
    # Of a field that may have several forms, pydantic names the form too: `str`, `list[Part]`.
    where = ".".join(str(each) for each in problem["loc"][1:] if _names(each))
    if problem["type"] == "extra_forbidden":
        return f"there is no field {where}; a ratio is `ratio` or `schedule`"
    return f"{where or 'the request'}: {problem['msg']}"


def _names(part: Any) -> bool:
    return isinstance(part, int) or (part != "str" and "[" not in part and "-" not in part)
