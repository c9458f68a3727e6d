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
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urldefrag
from urllib.request import Request, urlopen

from chatvec_method.errors import ChatVecError, first_line

KEY = "OPENAI_API_KEY"
"""The environment variable with the key, for servers that want one."""
SECONDS = 600
"""For one answer; a large model on a slow server, with others waiting, takes its time."""
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
            return str(choice["message"]["content"] or ""), choice["finish_reason"] == "stop"
        except (LookupError, TypeError) as error:
            raise _strange(self.url) from error


def server_at(url: str, model: str | None = None) -> Server:
    """Return the model that a server has.

    Args:
        url: Up to /v1; behind a # the model may be named.
        model: The model; None for the only one that there is.

    Raises:
        ChatVecError: The server cannot be reached, or has several models.
    """
    address, named = urldefrag(url.rstrip("/"))
    address, model = address.rstrip("/"), model or named
    if model:
        return Server(address, model)
    answer = _exchange(f"{address}/models")
    try:
        names = [str(each["id"]) for each in answer["data"]]
    except (LookupError, TypeError) as error:
        raise _strange(address) from error
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
            with urlopen(Request(url, payload, headers), timeout=SECONDS) as answer:
                return json.load(answer)
        except HTTPError as error:
            if error.code in AGAIN and left:
                _wait(left)
                continue
            said = error.read(2000).decode(errors="replace")
            raise ChatVecError(
                f"{url} refuses (HTTP {error.code}): {_reason(said)}.",
                f"Set {KEY} to your key."
                if error.code in (401, 403)
                else "Look at the model's name, and at what the server says itself.",
            ) from error
        except (URLError, OSError, HTTPException) as error:
            if left and not isinstance(getattr(error, "reason", None), ConnectionRefusedError):
                _wait(left)
                continue
            raise ChatVecError(
                f"{url} cannot be reached ({first_line(error)}).",
                "Start the server first, and write its address up to /v1.",
            ) from error
        except ValueError as error:
            raise _strange(url) from error
    raise AssertionError


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


def _strange(url: str) -> ChatVecError:
    return ChatVecError(
        f"{url} answers something that no OpenAI-compatible server does.",
        "Write its address up to /v1.",
    )
