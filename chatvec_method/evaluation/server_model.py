"""A server, as the harness wants its models: it writes, and gives no log-likelihoods."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from lm_eval.api.model import LM  # type: ignore[import-untyped]

from chatvec_method.errors import ChatVecError
from chatvec_method.evaluation.adapter import OnBatch, OnProgress, Response
from chatvec_method.evaluation.server import Server

AT_ONCE = 8
"""Requests that a server has at the same time; it makes batches of its own of them."""
LONGEST = 256
"""Tokens, of an answer whose task does not say: as the harness has it."""


class ServerModel(LM):  # type: ignore[misc]
    """A model behind a server.

    Args:
        server: The server.
        on_progress: Is told of every response.
        on_batch: Is given every response as it comes.
    """

    def __init__(
        self, server: Server, *, on_progress: OnProgress | None = None, on_batch: OnBatch
    ) -> None:
        super().__init__()
        self._server = server
        self._on_progress = on_progress
        self._on_batch = on_batch

    @property
    def tokenizer_name(self) -> str:
        """Nothing: the server keeps its tokenizer to itself."""
        return ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as JSON; the server has the chat format."""
        return json.dumps(chat_history, ensure_ascii=False)

    def prepared(self, arguments: Sequence[Any]) -> Sequence[Any]:
        """Return a request as it is."""
        return arguments

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Return the answer to every request, each of them a `Response`."""
        responses: dict[int, Response] = {}
        with ThreadPoolExecutor(AT_ONCE) as threads:
            waiting = {
                threads.submit(self._write, *each.args): i for i, each in enumerate(requests)
            }
            try:
                for answered in as_completed(waiting):
                    place = waiting[answered]
                    responses[place] = answered.result()
                    self._on_batch([(requests[place].args, responses[place])])
                    if self._on_progress is not None:
                        self._on_progress("generate_until", len(responses), len(requests))
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        return [responses[place] for place in range(len(requests))]

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Refuse: the chat interface of servers has none."""
        raise self._refusal()

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Refuse: the chat interface of servers has none."""
        raise self._refusal()

    def _write(self, context: str, settings: dict[str, Any]) -> Response:
        try:
            messages = json.loads(context)
        except ValueError:
            messages = None
        if not isinstance(messages, list):  # a task that is put without a chat format
            messages = [{"role": "user", "content": context}]
        until = settings.get("until") or []
        drawn = settings.get("do_sample", False)
        return Response(
            *self._server.write(
                messages,
                longest=settings.get("max_gen_toks", LONGEST),
                stop=[until] if isinstance(until, str) else until,
                temperature=settings.get("temperature", 1.0) if drawn else 0.0,
            )
        )

    def _refusal(self) -> ChatVecError:
        return ChatVecError(
            f"{self._server.url} gives no log-likelihoods, which a task asks for.",
            "Take tasks in which the model writes, or evaluate the model's folder.",
        )
