"""A model behind an OpenAI-compatible server: vLLM, llama.cpp, SGLang, or a service.

The key is read from the environment when it is needed, goes into the header of a request, and into
nothing else: no message, no file.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urldefrag
from urllib.request import HTTPRedirectHandler, Request, build_opener

from chatvec_method.errors import ChatVecError, first_line

KEY = "OPENAI_API_KEY"
"""The environment variable with the key, for servers that want one."""
SECONDS = 600
"""For one answer; a large model on a slow server, with others waiting, takes its time."""
MOST_BYTES = 1 << 23
"""Of an answer; the longest that is asked for has a thousandth of that."""
STOPPED = ("stop", "eos", "eos_token", "end_turn")
"""How servers call it that a model came to an end by itself."""
TRIES = 4
AGAIN = (408, 409, 429, 500, 502, 503, 504)
"""The answers of a server that is busy; it is asked again, after 1, 2 and 4 seconds."""


@dataclass(frozen=True)
class Server:
    """A model behind a server."""

    url: str
    """Up to and with /v1."""
    model: str
    """As the server calls it."""

    def write(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        longest: int,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
    ) -> tuple[str, bool]:
        """Return the answer to a conversation, and whether the model came to an end by itself.

        Args:
            messages: The conversation, up to a request.
            longest: Of the answer, in tokens.
            stop: Texts at which to stop; servers take four at most.
            temperature: 0 for greedy decoding.

        Raises:
            ChatVecError: The server cannot be reached, refuses, or answers something else.
        """
        answer = _exchange(
            f"{self.url}/chat/completions",
            {
                "model": self.model,
                "messages": list(messages),
                "max_tokens": longest,
                "temperature": temperature,
                "seed": 0,
                **({"stop": list(stop)[:4]} if stop else {}),
            },
        )
        try:
            choice = answer["choices"][0]
            text = _text(choice["message"].get("content"))
            return text, choice.get("finish_reason", "stop") in STOPPED
        except (LookupError, TypeError, AttributeError) as error:
            raise _strange(self.url, answer) from error


def server_at(url: str, model: str | None = None) -> Server:
    """Return the model that a server has.

    Args:
        url: Up to /v1; behind a # the model may be named.
        model: The model; None for the only one that there is.

    Raises:
        ChatVecError: The server cannot be reached, or has several models.
    """
    address, named = urldefrag(url.rstrip("/"))
    if not address.startswith(("http://", "https://")):
        raise ChatVecError(
            f"{url} is no address of a server.", "Write one as in `http://localhost:8000/v1`."
        )
    address, model = address.rstrip("/"), model or named
    if model:
        return Server(address, model)
    answer = _exchange(f"{address}/models")
    try:
        names = [str(each["id"]) for each in answer["data"]]
    except (LookupError, TypeError) as error:
        raise _strange(address, answer) from error
    if len(names) != 1:
        raise ChatVecError(
            f"{address} has {len(names)} models ({', '.join(names) or 'none'}).",
            f"Write which: `{address}#NAME`.",
        )
    return Server(address, names[0])


def _exchange(url: str, content: Any = None) -> Any:
    """Return what a server answers, as JSON has it; GET without content, else POST."""
    headers = {"Content-Type": "application/json", "User-Agent": "chatvec-method"}
    if key := os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {key}"
    payload = None if content is None else json.dumps(content).encode()
    for left in reversed(range(TRIES)):
        try:
            with _OPENER.open(Request(url, payload, headers), timeout=SECONDS) as answer:
                return json.loads(_read(answer))
        except HTTPError as error:
            if error.code in AGAIN and left:
                _wait(left)
                continue
            raise _refused(url, error) from error
        except _TooMuchError as error:
            raise ChatVecError(
                f"{url} {error}.", "Look at what the server says itself, or take another."
            ) from None
        except (URLError, OSError, HTTPException) as error:
            if left and not isinstance(getattr(error, "reason", None), ConnectionRefusedError):
                _wait(left)
                continue
            how = "breaks off" if isinstance(error, IncompleteRead) else "cannot be reached"
            raise ChatVecError(
                f"{url} {how} ({first_line(error)}).",
                "Start the server first, and write its address up to /v1.",
            ) from error
        except (ValueError, RecursionError) as error:
            raise _strange(url) from error
    raise AssertionError


class _ToNowhereElse(HTTPRedirectHandler):
    """Follows nobody who sends on to another address: the key would go there, too."""

    def redirect_request(self, *_: Any) -> None:
        """Return nothing, so that it is an error like others."""


_OPENER = build_opener(_ToNowhereElse)


class _TooMuchError(Exception):
    """An answer has no end."""


def _read(answer: HTTPResponse) -> bytes:
    """Return what a server answers.

    Raises:
        _TooMuchError: It is too long, or takes too long, with a sentence that says so.
    """
    content, begun = bytearray(), time.monotonic()
    while part := answer.read1(1 << 16):
        content += part
        if len(content) > MOST_BYTES:
            raise _TooMuchError(f"answers more than {MOST_BYTES >> 20} MB")
        if time.monotonic() - begun > SECONDS:
            raise _TooMuchError(f"does not come to an end within {SECONDS} seconds")
    if answer.length:  # it broke off
        raise IncompleteRead(bytes(content))
    return bytes(content)


def _refused(url: str, error: HTTPError) -> ChatVecError:
    if elsewhere := error.headers.get("Location"):
        return ChatVecError(
            f"{url} sends on to {elsewhere}.", "Write that address up to /v1, if you trust it."
        )
    try:
        said = error.read(2000).decode(errors="replace")
    except (OSError, HTTPException):
        said = ""
    return ChatVecError(
        f"{url} refuses (HTTP {error.code}): {_reason(said)}.",
        f"Set {KEY} to your key."
        if error.code in (401, 403)
        else "Look at the model's name, and at what the server says itself.",
    )


def _wait(left: int) -> None:
    time.sleep(2 ** (TRIES - 1 - left))


def _reason(said: str) -> str:
    try:
        told = json.loads(said)
        told = told.get("error", told)
        told = told.get("message", told) if isinstance(told, dict) else told
    except (ValueError, AttributeError):
        told = said
    return " ".join(str(told).split())[:200].rstrip(".") or "it does not say why"


def _text(content: Any) -> str:
    """Return what an answer says: a text, parts of one, or nothing."""
    if isinstance(content, list):
        content = "".join(each["text"] for each in content if each.get("type") == "text")
    # Half of a character, which JSON may hold, can be written nowhere.
    return str(content or "").encode("utf-8", "replace").decode("utf-8")


def _strange(url: str, answer: Any = None) -> ChatVecError:
    told = isinstance(answer, dict) and answer.get("error")
    return ChatVecError(
        f"{url} answers with an error: {_reason(json.dumps(answer))}."
        if told
        else f"{url} answers something that no OpenAI-compatible server does.",
        "Write its address up to /v1.",
    )
