"""An OpenAI-compatible server on this machine, which answers as a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

Messages: TypeAlias = list[dict[str, str]]
Answer: TypeAlias = Callable[[Messages], "tuple[str, str]"]
"""Gives the answer to a conversation, and why it ends: "stop" or "length"."""


@dataclass
class Loopback:
    """The server, and what came to it."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    """What was posted."""
    keys: set[str | None] = field(default_factory=set)
    """The Authorization headers."""
    failing: list[int] = field(default_factory=list)
    """HTTP errors that come first, one a request."""


@contextmanager
def loopback(answer: Answer, models: Sequence[str] = ("small",)) -> Iterator[Loopback]:
    """Serve a model until the test is through."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/v1/models"
            self._send(200, {"object": "list", "data": [{"id": name} for name in models]})

        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            length = int(self.headers["Content-Length"])
            request = json.loads(self.rfile.read(length))
            with lock:
                server.requests.append(request)
                server.keys.add(self.headers.get("Authorization"))
                failure = server.failing.pop(0) if server.failing else None
            if failure is not None:
                self._send(failure, {"error": {"message": "not now"}})
                return
            text, reason = answer(request["messages"])
            message = {"role": "assistant", "content": text}
            self._send(200, {"choices": [{"message": message, "finish_reason": reason}]})

        def _send(self, status: int, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the tests' output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server = Loopback(f"http://127.0.0.1:{http.server_port}/v1")
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
