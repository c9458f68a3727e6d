"""A model of the harness that remembers: it asks the real one only what nobody has asked before.

The real model is opened with the first request that is new, so that where all was asked before
nothing is loaded. Prompts therefore stay messages up to then; the model that is asked puts them
into its own chat format.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

from lm_eval.api.model import LM  # type: ignore[import-untyped]

from chatvec_method.evaluation.adapter import OnBatch, OnProgress, Response, request_key
from chatvec_method.evaluation.answers import Answers, key_of

MESSAGES = '{"chat": '
"""How a prompt begins that is a conversation and not yet a text."""


class Asked(Protocol):
    """What answers: a model in memory or behind a server."""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as the model reads it."""

    def prepared(self, arguments: Sequence[Any]) -> Sequence[Any]:
        """Return a request to write as it will be put to the model."""


Open: TypeAlias = Callable[[OnProgress | None, OnBatch], Any]
"""Opens what answers, an `Asked` among the harness's models; it tells of progress and batches."""


class Remembering(LM):  # type: ignore[misc]
    """Whoever answers, with what is kept of its answers.

    Args:
        answers: What is kept.
        whose: All that tells who answers from anyone else, as JSON can write it.
        open_model: Opens the model, once it is needed.
        on_progress: Is told of every response, those that were kept among them.
    """

    def __init__(
        self,
        answers: Answers,
        whose: Any,
        open_model: Open,
        on_progress: OnProgress | None = None,
    ) -> None:
        super().__init__()
        self._answers = answers
        self._whose = whose
        self._open = open_model
        self._on_progress = on_progress
        self._model: Any = None
        self._kept = self._total = 0
        self._waiting: dict[str, deque[str]] = {}

    @property
    def tokenizer_name(self) -> str:
        """Nothing: the harness would name files after it that are not written here."""
        return ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as a text that can be put into any chat format later."""
        chat = json.dumps(chat_history, ensure_ascii=False)
        return f'{MESSAGES}{chat}, "begin_answer": {json.dumps(add_generation_prompt)}}}'

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Return the answer to every request, each of them a `Response`."""
        responses = self._responses("generate_until", requests)
        return [Response(text, ended) for text, ended in responses]

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Return every continuation's log-likelihood, and whether greedy decoding writes it."""
        return [(score, greedy) for score, greedy in self._responses("loglikelihood", requests)]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Return every text's log-likelihood."""
        return [float(score) for score in self._responses("loglikelihood_rolling", requests)]

    def _responses(self, kind: str, requests: list[Any]) -> list[Any]:
        """Return the responses, as JSON has them, in the order of the requests."""
        keys = self._keys(kind, requests)
        kept = {
            key: response
            for key, response in self._answers.responses(keys).items()
            if _is_of(kind, response)
        }
        new = [place for place, key in enumerate(keys) if key not in kept]
        self._kept, self._total = len(keys) - len(new), len(keys)
        self._tell(kind, 0, 0)
        if new:
            self._ask(kind, [requests[place] for place in new], [keys[place] for place in new])
            kept |= self._answers.responses(keys[place] for place in new)
        return [kept[key] for key in keys]

    def _keys(self, kind: str, requests: list[Any]) -> list[str]:
        """Return a key for each request; a request that comes again has one of its own."""
        times: Counter[str] = Counter()
        keys = []
        for request in requests:
            key = key_of(self._whose, kind, request.task_name, request.args)
            times[key] += 1
            keys.append(key if times[key] == 1 else key_of(key, times[key]))
        return keys

    def _ask(self, kind: str, requests: list[Any], keys: list[str]) -> None:
        if self._model is None:
            self._model = self._open(self._tell, self._keep)
        put = [replace(each, arguments=self._put(kind, each.args)) for each in requests]
        waiting: defaultdict[str, deque[str]] = defaultdict(deque)
        for request, key in zip(put, keys, strict=True):
            waiting[request_key(request.args)].append(key)
        self._waiting = waiting
        getattr(self._model, kind)(put)

    def _put(self, kind: str, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """Return a request in the words of the model that is asked."""
        first, *rest = arguments
        if first.startswith(MESSAGES):
            said, end = json.JSONDecoder().raw_decode(first)
            begin = said["begin_answer"]
            chat = self._model.apply_chat_template(said["chat"], add_generation_prompt=begin)
            first = chat + first[end:]
        put = (first, *rest)
        return tuple(self._model.prepared(put)) if kind == "generate_until" else put

    def _keep(self, batch: Sequence[tuple[Sequence[Any], Any]]) -> None:
        responses = {}
        for request, response in batch:
            key = self._waiting[request_key(request)].popleft()
            if isinstance(response, Response):
                response = [str(response), response.ended]
            responses[key] = response
        self._answers.keep(responses)

    def _tell(self, kind: str, done: int, _: int) -> None:
        if self._on_progress is not None:
            self._on_progress(kind, self._kept + done, self._total)


def _is_of(kind: str, response: Any) -> bool:
    """Tell whether what is kept is a response to such a request: else it is asked anew."""
    if kind == "loglikelihood_rolling":
        return isinstance(response, int | float)
    first = str if kind == "generate_until" else (int, float)
    return (
        isinstance(response, list)
        and len(response) == 2
        and isinstance(response[0], first)
        and isinstance(response[1], bool)
    )
