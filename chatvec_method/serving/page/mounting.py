"""The page on the server's app, with all of gradio's doors shut that it does not need.

gradio can serve files, take uploads, fetch from elsewhere, record runs and tell of itself. Here a
request passes only if it is one that the page itself makes; there is no file of this machine behind
any of these. What the browser may load or connect to is this server alone.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chatvec_method.demo import gloss, scenes
from chatvec_method.errors import ChatVecError
from chatvec_method.evaluation import suite
from chatvec_method.evaluation.asked import asked_of
from chatvec_method.live_merge.model import LiveMerge
from chatvec_method.merging.merge import merge
from chatvec_method.progress import Progress
from chatvec_method.recipe.file import Recipe
from chatvec_method.serving.engine import Engine

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

DOORS = re.compile(
    r"/(?:"
    r"|config/?|theme\.css|favicon\.ico|manifest\.json|robots\.txt"
    r"|(?:assets|static|svelte)/[\w./@+-]+"
    r"|gradio_api/(?:queue/join/?|queue/data|cancel|reset/?|startup-events|app_id/?|info/?"
    r"|heartbeat/\w+|login_check/?|theme\.css)"
    r")"
)
"""The paths of all requests that the page makes."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors {frames}"
)
"""gradio evaluates templates of its own components, and has scripts within the page."""
EARLY = b"<script>" + Path(__file__).with_name("early.js").read_bytes() + b"</script>"
MOST_EXAMPLES = 6
LONGEST_IN_WORLD = 24
"""Tokens, of which each is a word; cp would go on for long."""


def mount_page(
    app: FastAPI,
    engine: Engine,
    live: LiveMerge,
    *,
    world: bool = False,
    may_write: bool = False,
    frames: str = "'self'",
) -> FastAPI:
    """Put the page at the root of an app, below all routes that it has.

    Args:
        app: The server's.
        engine: Which answers.
        live: The merge that it serves.
        world: Whether it is the demonstration's, whose language is made up.
        may_write: Whether visitors may write merges to this machine's disk.
        frames: What pages may show this one in a frame, in the words of a Content-Security-Policy.
    """
    from starlette.routing import Route

    own = [route.path_regex for route in app.routes if isinstance(route, Route)]
    folder = Path(tempfile.mkdtemp(prefix="chatvec-page-"))
    weakref.finalize(app, shutil.rmtree, folder, ignore_errors=True)
    with _environment(GRADIO_TEMP_DIR=str(folder), GRADIO_ANALYTICS_ENABLED="False"):
        import gradio as gr

        from chatvec_method.serving.page.look import STYLE, head, theme
        from chatvec_method.serving.page.words import i18n

        gr.mount_gradio_app(
            app,
            _page(engine, live, world, may_write),
            "/",
            footer_links=[],
            run_history=False,
            app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
            allowed_paths=[],
            blocked_paths=["/"],
            show_error=False,
            max_file_size=1,
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            i18n=i18n(),
            theme=theme(),
            css_paths=STYLE,
            head=head(),
        )
    app.add_middleware(Doors, own=own, policy=POLICY.format(frames=frames))
    return app


class Doors:
    """Lets through the requests that the page makes, and those to the app's own paths."""

    def __init__(self, app: ASGIApp, own: Sequence[re.Pattern[str]], policy: str) -> None:
        """Stand before an app.

        Args:
            app: The app.
            own: The paths that are not the page's.
            policy: The Content-Security-Policy of the page.
        """
        self._app = app
        self._own = own
        self._policy = policy.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        path = scope.get("path", "")
        if scope["type"] == "lifespan" or any(own.match(path) for own in self._own):
            await self._app(scope, receive, send)
        elif scope["type"] != "http" or not DOORS.fullmatch(path):
            await _not_found(scope, receive, send)
        elif path == "/" and scope["method"] == "GET":
            await self._page(scope, receive, send)
        else:
            await self._app(scope, receive, self._guarded(send))

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the page, and in it what has to run before gradio's own scripts."""
        parts: list[Message] = []

        async def keep(message: Message) -> None:
            parts.append(message)

        plain = [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]
        await self._app({**scope, "headers": plain}, receive, keep)
        start = next(part for part in parts if part["type"] == "http.response.start")
        body = b"".join(part.get("body", b"") for part in parts)
        body = body.replace(b"<head>", b"<head>" + EARLY, 1)
        kept = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
        start["headers"] = [*kept, (b"content-length", str(len(body)).encode())]
        guarded = self._guarded(send)
        await guarded(start)
        await guarded({"type": "http.response.body", "body": body})

    def _guarded(self, send: Send) -> Send:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", self._policy),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        return guarded


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    from starlette.responses import PlainTextResponse

    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await PlainTextResponse("Not found", 404)(scope, receive, send)


def _page(engine: Engine, live: LiveMerge, world: bool, may_write: bool) -> Any:
    from chatvec_method.serving.page.asking import Asker
    from chatvec_method.serving.page.build import build
    from chatvec_method.serving.page.handlers import Handlers
    from chatvec_method.serving.page.knobs import Board
    from chatvec_method.serving.page.layout import LONGEST, Content
    from chatvec_method.serving.page.measure import suite_exam, world_exam

    board = Board(live.recipe, live.plan)
    language = suite_language(live.recipe)
    content = Content(
        title="" if world else _title(live.recipe),
        board=board,
        answerers=("cp", "merge", *(n for n in engine.settings.names if n.startswith("chat"))),
        examples=_world_examples() if world else _examples(language),
        languages=() if world else suite.LANGUAGES,
        language=None if world else language or "en",
        longest=LONGEST_IN_WORLD if world else LONGEST,
        world=world,
        may_write=may_write,
    )

    def exam(name: str) -> Any:
        return world_exam() if world else suite_exam(name)

    def write(recipe: Recipe, out: Path, on_progress: Callable[[Progress], None]) -> None:
        if not may_write:
            raise ChatVecError(
                "merges are not written to disk from here.", "Download the recipe, and merge it."
            )
        merge(live.survey_of(recipe), out, on_progress=on_progress)

    handlers = Handlers(Asker(engine, board), content, exam, write, gloss if world else None)
    return build(content, handlers)


def suite_language(recipe: Recipe) -> str | None:
    """Return the language of a recipe, if the suite has it."""
    stated = recipe.metadata.get("language")
    return stated if isinstance(stated, str) and stated in suite.LANGUAGES else None


def _title(recipe: Recipe) -> str:
    stated = recipe.metadata.get("title")
    return stated if isinstance(stated, str) else Path(recipe.name).name


def _examples(language: str | None) -> tuple[tuple[str, str], ...]:
    """Return a request of each axis of the suite, short ones."""
    if language is None:
        return ()
    shortest: dict[str, str] = {}
    for prompt in asked_of(language):
        request = prompt.messages[-1]["content"]
        single = len(prompt.messages) == 1
        if single and len(request) < len(shortest.get(prompt.axis, request + " ")):
            shortest[prompt.axis] = request
    return tuple((request, request) for request in shortest.values())[:MOST_EXAMPLES]


def _world_examples() -> tuple[tuple[str, str], ...]:
    requests = [request for scene in scenes() for request in scene.requests]
    return tuple((each, f"{each} ({gloss(each)})") for each in requests[:MOST_EXAMPLES])


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Have what gradio reads of the environment as it is built, and put back what was there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
