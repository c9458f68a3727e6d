"""What lm-evaluation-harness sees of us: a model that chats, and tasks that are conversations.

All that leans on the harness's classes is here. The model is the harness's own `hf` model and works
as that does; it only tells more: whether each answer came to an end, and how far the work is.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeAlias

from lm_eval.api.model import CacheHook  # type: ignore[import-untyped]
from lm_eval.api.task import ConfigurableTask  # type: ignore[import-untyped]
from lm_eval.models.huggingface import HFLM  # type: ignore[import-untyped]

from chatvec_method.errors import ChatVecError
from chatvec_method.talk.speaker import Speaker

OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Is told a kind of requests in the harness's words ("generate_until", "loglikelihood" or
"loglikelihood_rolling"), how many of this kind are done, and how many there are."""
OnBatch: TypeAlias = Callable[[Sequence[tuple[Sequence[Any], Any]]], None]
"""Is given the requests of a batch that is done, each with its response, before the next begins."""


class Response(str):
    """What a model wrote, and beside the text whether the model came to an end by itself.

    To the harness it is a text like any other. A task's `process_results` gets it if the task's
    filters hand texts on as they are, as the one of tasks that name no filters does.

    Attributes:
        ended: Whether the model wrote a stop token. If not, a stop string of the task or the
            longest answer cut it off.
    """

    ended: bool

    def __new__(cls, text: str, ended: bool = False) -> Response:
        """Return a text that says whether it is a whole answer."""
        response = super().__new__(cls, text)
        response.ended = ended
        return response


class ChatModel(HFLM):  # type: ignore[misc]
    """A speaker, as the harness wants its models.

    Args:
        speaker: The model, its chat template and its stop tokens.
        batch_size: How many requests are worked on at once; "auto" lets the harness find out.
        on_progress: Is told of every response; without it, the harness shows its own bars.
        on_batch: Is given whole batches of responses. One that was interrupted is not given.
    """

    def __init__(
        self,
        speaker: Speaker,
        *,
        batch_size: int | str = 1,
        on_progress: OnProgress | None = None,
        on_batch: OnBatch | None = None,
    ) -> None:
        super().__init__(
            pretrained=speaker.model,
            tokenizer=speaker.tokenizer,
            batch_size=batch_size,
            chat_template_args={"chat_template": speaker.template},
        )
        # At the tokenizer's end of text the harness stops every model.
        stops = dict.fromkeys((*speaker.stop_tokens, self.eot_token_id))
        self._stop_tokens = [token for token in stops if token is not None]
        self._on_progress = on_progress
        self._on_batch = on_batch
        self._batch: list[tuple[Sequence[Any], Any]] = []
        self._decoded = Response("")

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return the answer to every request, each of them a `Response`.

        An answer may have half of the model's context at most, whatever its task allows.
        """
        requests = [self._prepared(request) for request in requests]
        ended: defaultdict[str, deque[bool]] = defaultdict(deque)

        def note(request: Sequence[Any], text: str) -> Response:
            # What follows a stop string is padding, which may be of stop tokens: then the text that
            # was decoded is longer than the one that is left.
            response = Response(text, self._decoded.ended and self._decoded == text)
            ended[request_key(request)].append(response.ended)
            return response

        with self._watching("generate_until", len(requests), note):
            texts = super().generate_until(requests, self._quietly(disable_tqdm))
        # The harness works in an order of its own, in which equal requests keep theirs.
        return [
            Response(text, ended[request_key(request.args)].popleft())
            for request, text in zip(requests, texts, strict=True)
        ]

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Return every continuation's log-likelihood, and whether greedy decoding writes it.

        Raises:
            ChatVecError: The tokenizer has no token for one of them.
        """
        with self._watching("loglikelihood", len(requests)):
            scores: list[tuple[float, bool]] = super().loglikelihood(
                requests, self._quietly(disable_tqdm)
            )
        return scores

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Return every text's log-likelihood."""
        # The harness tells of texts once all that it was given are read, so it is given few.
        size = self.batch_size if isinstance(self.batch_size, int) else len(requests)
        scores: list[float] = []
        with self._watching("loglikelihood_rolling", len(requests)):
            for start in range(0, len(requests), size):
                batch = requests[start : start + size]
                scores += super().loglikelihood_rolling(batch, self._quietly(disable_tqdm))
        return scores

    def tok_decode(self, tokens: Any, skip_special_tokens: bool = True) -> str:
        """Decode a response up to its stop token, and remember whether it has one."""
        if not isinstance(tokens, list):  # the one token that the harness takes for the end
            return str(super().tok_decode(tokens, skip_special_tokens))
        end = next((i for i, token in enumerate(tokens) if token in self._stop_tokens), None)
        text = super().tok_decode(tokens[:end], skip_special_tokens)
        self._decoded = Response(text, ended=end is not None)
        return self._decoded

    def prepared(self, arguments: Sequence[Any]) -> tuple[str, dict[str, Any]]:
        """Return a request to write as it is put: with stop tokens, and an answer that has room."""
        context, settings = arguments
        settings = {"eos_token_id": self._stop_tokens} | settings
        if "max_gen_toks" in settings:
            settings["max_gen_toks"] = min(settings["max_gen_toks"], self.max_length // 2)
        return context, settings

    def _prepared(self, request: Any) -> Any:
        return replace(request, arguments=self.prepared(request.args))

    def _loglikelihood_tokens(self, requests: Any, *arguments: Any, **settings: Any) -> Any:
        for pair, _, continuation in requests:
            if not continuation:
                raise ChatVecError(
                    f"the model's tokenizer has no token for {pair[1]!r}, an answer to choose.",
                    "Take tasks whose answers the model can write.",
                )
        return super()._loglikelihood_tokens(requests, *arguments, **settings)

    def _model_generate(self, *arguments: Any, **settings: Any) -> Any:
        self._hand_on()
        return super()._model_generate(*arguments, **settings)

    def _model_call(self, *arguments: Any, **settings: Any) -> Any:
        self._hand_on()
        return super()._model_call(*arguments, **settings)

    def _hand_on(self) -> None:
        """Give away a batch that is done."""
        if self._batch and self._on_batch is not None:
            self._on_batch(self._batch)
        self._batch = []

    def _quietly(self, disable_tqdm: bool) -> bool:
        return disable_tqdm or self._on_progress is not None

    @contextmanager
    def _watching(
        self, kind: str, total: int, note: Callable[[Sequence[Any], Any], Any] | None = None
    ) -> Iterator[None]:
        """Hear of every response as it comes, which the harness tells whoever would keep it.

        Args:
            kind: Of the requests.
            total: How many there are.
            note: Gives a response the form in which it is handed on.
        """
        done = 0
        self._batch = []

        def tell(request: Sequence[Any], response: Any) -> None:
            nonlocal done
            done += 1
            self._batch.append((request, response if note is None else note(request, response)))
            if self._on_progress is not None:
                self._on_progress(kind, done, total)

        self.set_cache_hook(_Hook(tell))
        if self._on_progress is not None:
            self._on_progress(kind, 0, total)
        try:
            yield
            self._hand_on()
        finally:
            self.set_cache_hook(CacheHook(None))


class _Hook(CacheHook):  # type: ignore[misc]
    """In the place of the harness's cache, one who only listens."""

    def __init__(self, tell: Callable[[Sequence[Any], Any], None]) -> None:
        super().__init__(None)
        self._tell = tell

    def add_partial(self, attr: str, req: Sequence[Any], res: Any) -> None:
        self._tell(req, res)


def request_key(request: Sequence[Any]) -> str:
    """Return what equal requests have in common: the context, and how it is to be answered."""
    return json.dumps(request, sort_keys=True, default=str)


class ConversationTask(ConfigurableTask):  # type: ignore[misc]
    """A task whose documents have `messages`: a conversation, up to a request to be answered.

    In a task's YAML: `class: !function chatvec_method.evaluation.adapter.ConversationTask`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config={name: each for name, each in config.items() if name != "class"})

    def fewshot_context(
        self, doc: Mapping[str, Any], *_: Any, chat_template: Callable[..., str], **__: Any
    ) -> str:
        """Return the conversation in the model's format; there are no examples before it."""
        return chat_template(doc["messages"])
