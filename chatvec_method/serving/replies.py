"""What the API answers, in the forms of OpenAI's."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi.responses import JSONResponse

from chatvec_method.errors import ChatVecError
from chatvec_method.serving.chats import NO_ROOM
from chatvec_method.serving.engine import FAILED
from chatvec_method.serving.settings import NO_SUCH_MODEL, Setting, Settings
from chatvec_method.serving.turns import BUSY, CLOSED
from chatvec_method.serving.writing import Account
from chatvec_method.talk.speaker import TOO_LONG

RETRY_SECONDS = 1
STATUSES = {
    NO_SUCH_MODEL: (404, "model_not_found"),
    TOO_LONG: (400, "context_length_exceeded"),
    BUSY: (429, "rate_limit_exceeded"),
    CLOSED: (503, "closing"),
    NO_ROOM: (503, "no_memory"),
    FAILED: (500, "failed"),
}
"""Of the errors that are no bad request: the HTTP status, and what OpenAI calls them."""
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def written(form: dict[str, Any]) -> str:
    """Return a form as JSON: in letters as they are, unless UTF-8 cannot have one of them."""
    text = json.dumps(form, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character, in what a request said
        return json.dumps(form)
    return text


class Form(JSONResponse):
    """A form as a response."""

    def render(self, content: Any) -> bytes:
        """Return what is sent."""
        return written(content).encode()


def error(message: str, status: int, code: str | None = None) -> dict[str, Any]:
    """Return an error in OpenAI's form."""
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def error_of(problem: ChatVecError) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status of an error of ours, and its form."""
    status, code = STATUSES.get(problem.code, (400, problem.code.replace("-", "_")))
    return status, error(f"{problem.problem} {problem.fix}", status, code)


def refusal(status: int, form: dict[str, Any]) -> Form:
    """Return an error as a response; who is to come again is told when."""
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == 429 else None
    return Form(form, status, headers)


def models(settings: Settings, created: int) -> dict[str, Any]:
    """Return the list of models."""
    return {
        "object": "list",
        "data": [model(settings.named(name), created) for name in settings.names],
    }


def model(setting: Setting, created: int) -> dict[str, Any]:
    """Return what is told of one model."""
    return {
        "id": setting.name,
        "object": "model",
        "created": created,
        "owned_by": "chatvec",
        "ratio": setting.ratio,
    }


@dataclass(frozen=True)
class Reply:
    """The answer to a request, whole or in chunks."""

    setting: Setting
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, account: Account) -> dict[str, Any]:
        """Return a whole answer."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": None,
            "finish_reason": account.finish,
        }
        return self._form("chat.completion", [choice], account, usage=_usage(account))

    def opening(self) -> dict[str, Any]:
        """Return the first chunk, before the first piece of text."""
        return self._chunk({"role": "assistant", "content": ""}) | {"ratio": self.setting.ratio}

    def piece(self, text: str) -> dict[str, Any]:
        """Return the chunk of a piece of text."""
        return self._chunk({"content": text})

    def closing(self, account: Account) -> dict[str, Any]:
        """Return the chunk that says why no more comes."""
        return self._chunk({}, account)

    def usage(self, account: Account) -> dict[str, Any]:
        """Return the chunk behind the last one, for those who asked what it took."""
        return self._form("chat.completion.chunk", [], account, usage=_usage(account))

    def _chunk(self, delta: dict[str, str], account: Account | None = None) -> dict[str, Any]:
        finish = None if account is None else account.finish
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._form("chat.completion.chunk", [choice], account)

    def _form(
        self,
        kind: str,
        choices: Sequence[dict[str, Any]],
        account: Account | None,
        **rest: Any,
    ) -> dict[str, Any]:
        """Return what all forms have in common, and at the end the ratio and the seed."""
        ours = {} if account is None else {"ratio": self.setting.ratio, "seed": account.seed}
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.setting.name,
            "choices": list(choices),
            **ours,
            **rest,
        }


def event(form: dict[str, Any] | str) -> str:
    """Return a form as an event of a stream."""
    return f"data: {form if isinstance(form, str) else written(form)}\n\n"


def _usage(account: Account) -> dict[str, int]:
    asked, written = account.prompt_tokens, account.completion_tokens
    return {
        "prompt_tokens": asked,
        "completion_tokens": written,
        "total_tokens": asked + written,
    }
