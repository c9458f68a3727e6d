"""Talking to a finished model: transformers' own template and generation, one piece at a time.

A `Speaker` is a model that can be talked to, a `Conversation` what was said so far, and an `Answer`
is written while it is read. Nothing here prints: what a person should know (turns that the context
no longer holds, an answer that did not come to an end) is there as data.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

from chatvec_method.aftermath import note_mapped
from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.rendering import TemplateError, render, warm_up
from chatvec_method.snapshots import Snapshot, snapshot_of
from chatvec_method.stated import check_indexes, check_model
from chatvec_method.talk.conversation import Conversation
from chatvec_method.talk.folder import check_folder, check_no_adapter
from chatvec_method.tokenizer_bounds import check_bounds

LONGEST_ANSWER = 2048
"""Tokens; where nobody says how long an answer may be, as a model may never come to an end."""
UNFINISHED_CHARACTER = "\N{REPLACEMENT CHARACTER}"
NO_TEMPLATE = "no-chat-template"
"""The code of the error that nothing says how a model chats."""
TOO_LONG = "too-long"
"""The code of the error that a model's context does not hold what is said."""
Message: TypeAlias = Mapping[str, str]
"""With a `role` and a `content`, as chat templates have it."""


def load(
    model: str,
    *,
    device: str = "auto",
    like: Speaker | Manner | None = None,
    trust_remote_code: bool = False,
) -> Speaker:
    """Load a model to talk to, in the dtype it is stored in.

    Args:
        model: A folder, or a name on the hub.
        device: As torch names it, or "auto": the accelerators if there are any, else the CPU.
        like: A speaker that this model is compared with. Where the model has no chat template, it
            gets this speaker's; and it stops at this speaker's stop tokens too, if it has them.
        trust_remote_code: Whether Python code that comes with the model may run.

    Raises:
        ChatVecError: There is no such model, it is not complete, or nothing says how it chats.
    """
    warm_up()
    place = _Place.of(model)
    placed = placement(device)
    tokenizer = place.tokenizer(trust_remote_code)
    template = _template(model, tokenizer, like)  # before the weights, which take their time
    place.bring_weights()
    weights, report = place.load(
        AutoModelForCausalLM.from_pretrained,
        dtype="auto",
        output_loading_info=True,
        trust_remote_code=trust_remote_code,
        **placed,
    )
    if missing := sorted(report["missing_keys"]):
        raise ChatVecError(
            f"{model} lacks {len(missing)} of its tensors, {missing[0]} among them.",
            "Run the merge to its end.",
        )
    return Speaker.of(weights, tokenizer, name=model, template=template, like=like)


def manner_of(model: str, *, trust_remote_code: bool = False) -> Manner:
    """Return how a model is talked to, of its small files alone.

    Args:
        model: A folder, or a name on the hub.
        trust_remote_code: Whether Python code that comes with the model may run.

    Raises:
        ChatVecError: There is no such model, or nothing says how it chats (`NO_TEMPLATE`).
    """
    place = _Place.of(model)
    tokenizer = place.tokenizer(trust_remote_code)
    template = _template(model, tokenizer, None)
    try:
        generation = GenerationConfig.from_pretrained(place.folder)
    except OSError:  # there is none: transformers makes one of the config
        config = place.load(AutoConfig.from_pretrained, trust_remote_code=trust_remote_code)
        generation = GenerationConfig.from_model_config(config)
    return Manner(tokenizer, template, _stop_tokens(generation, tokenizer, None))


def placement(device: str) -> dict[str, str]:
    """Return where the weights go, in the words of `from_pretrained`."""
    if device == "auto":  # with a device map, the largest models are spread over all there is
        return {"device_map": "auto"} if torch.accelerator.is_available() else {}
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ChatVecError(
            f"device {device} cannot be used: {first_line(error)}.", "Write `--device auto`."
        ) from error
    return {"device_map": device}


@dataclass(frozen=True)
class _Place:
    """Where a model lies whose small files have been looked at."""

    model: str
    """A folder, or a name on the hub, as messages call it."""
    folder: Path
    snapshot: Snapshot | None
    """Of a model on the hub, whose weights may not be here yet."""

    @classmethod
    def of(cls, model: str) -> _Place:
        """Return where a model lies; of one on the hub, the small files come and are looked at."""
        check_folder(model)
        if (folder := Path(model)).is_dir():
            check_model(folder)
            check_indexes(folder)
            check_no_adapter(model, folder)
            return cls(model, folder, None)
        with _in_one_line(model, "Look at the spelling: there is no such folder either."):
            snapshot = snapshot_of(model)
        check_no_adapter(model, snapshot.folder)
        return cls(model, snapshot.folder, snapshot)

    def bring_weights(self) -> None:
        """Have the weights come, and noted as files that will be mapped."""
        if self.snapshot is not None:
            with _in_one_line(self.model, "Run it again, when the hub can be reached."):
                self.snapshot.with_weights()
        for file in self.folder.glob("*.safetensors"):
            note_mapped(file)

    def tokenizer(self, trust_remote_code: bool) -> Any:
        """Load the model's tokenizer."""
        tokenizer = self.load(AutoTokenizer.from_pretrained, trust_remote_code=trust_remote_code)
        check_bounds(tokenizer)
        return tokenizer

    def load(self, read: Callable[..., Any], **settings: Any) -> Any:
        """Load a part of the model."""
        fix = "Run the merge to its end." if self.snapshot is None else "Write another model."
        with _in_one_line(self.model, fix):
            return read(str(self.folder), **settings)


@contextmanager
def _in_one_line(model: str, fix: str) -> Iterator[None]:
    """Let what goes wrong with a part of a model be told in one line."""
    try:
        yield
    except ChatVecError:
        raise
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(model) from error
    except Exception as error:  # the libraries raise what they like for a file that is not right
        if "trust_remote_code" in str(error):
            raise ChatVecError(
                f"{model} brings Python code of its own.",
                "Write `--trust-remote-code` if you trust who wrote it.",
            ) from error
        raise ChatVecError(f"{model} cannot be loaded: {first_line(error)}.", fix) from error


def _template(model: str, tokenizer: PreTrainedTokenizerBase, like: Speaker | Manner | None) -> str:
    if tokenizer.chat_template is not None:
        return tokenizer.get_chat_template()
    if like is not None:
        return like.template
    raise ChatVecError(
        f"{model} has no chat template, so nothing says how it is talked to.",
        "Write the format that the chat model was tuned on as `chat_template:`, such as `chatml`."
        if model.endswith((".yaml", ".yml"))  # the merge of a recipe, in memory
        else f"Run `chatvec finish {model}`, which gives it one.",
        NO_TEMPLATE,
    )


def _stop_tokens(
    generation: GenerationConfig,
    tokenizer: PreTrainedTokenizerBase,
    like: Speaker | Manner | None,
) -> tuple[int, ...]:
    own = generation.eos_token_id
    if own is None:
        own = tokenizer.eos_token_id
    listed = own if isinstance(own, list) else [own]
    stops = [number for number in listed if isinstance(number, int)]
    if like is not None:
        vocabulary = tokenizer.get_vocab()
        names = like.tokenizer.convert_ids_to_tokens(list(like.stop_tokens))
        stops = [*stops, *(vocabulary[name] for name in names if name in vocabulary)]
    return tuple(dict.fromkeys(stops))


def _out_of_memory(model: str) -> ChatVecError:
    return ChatVecError(f"{model} needs more memory than the device has.", "Write `--device cpu`.")


@dataclass(frozen=True)
class Sampling:
    """How a model chooses its next token, where that is not as its generation config says."""

    greedy: bool = False
    """Whether it always takes the likeliest."""
    temperature: float | None = None
    """Above 0; the higher, the more at random. None for the model's own."""
    seed: int | None = None
    """With the same one, an answer to the same prompt is the same again; None for chance."""
    top_p: float | None = None
    """Above 0, at most 1: only the likeliest tokens count that have so much of the probability
    together. None for the model's own."""

    def settings(self) -> dict[str, Any]:
        """Return it in the words of transformers' `generate`."""
        if self.greedy:
            return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        given = {"temperature": self.temperature, "top_p": self.top_p}
        settings: dict[str, Any] = {
            name: float(number) for name, number in given.items() if number is not None
        }
        return {"do_sample": True, **settings} if settings else {}


@dataclass(frozen=True)
class Prompt:
    """A request with all that goes before it, in a model's own format."""

    ids: Tensor
    """Token ids, int64, 1 × length."""
    room: int
    """The tokens that the answer may have."""
    forgotten: int
    """The oldest turns that the model's context did not hold."""


OWN_SAMPLING = Sampling()


@dataclass(frozen=True)
class Manner:
    """How a model is talked to, without the model: enough to talk to another one like it."""

    tokenizer: PreTrainedTokenizerBase
    template: str
    """The chat template, in Jinja."""
    stop_tokens: tuple[int, ...]


@dataclass(frozen=True)
class Speaker:
    """A model that can be talked to."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: str
    """The chat template, in Jinja."""
    stop_tokens: tuple[int, ...]

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        template: str | None = None,
        like: Speaker | Manner | None = None,
    ) -> Speaker:
        """Let a model that is loaded already be talked to.

        Args:
            model: The model; it stops where its generation config says, else at its tokenizer's end
                of text.
            tokenizer: Its tokenizer.
            name: What messages call it.
            template: The chat template; by default the tokenizer's own.
            like: See `load`.

        Raises:
            ChatVecError: Nothing says how it chats.
        """
        return cls(
            name,
            model,
            tokenizer,
            template or _template(name, tokenizer, like),
            _stop_tokens(model.generation_config, tokenizer, like),
        )

    def prompt(
        self, conversation: Conversation, request: str, max_new_tokens: int | None = None
    ) -> Prompt:
        """Write a request in the model's format, with as many of the latest turns as fit.

        Args:
            conversation: What was said before.
            request: What is said now.
            max_new_tokens: See `prompt_of`.

        Raises:
            ChatVecError: As `prompt_of`.
        """
        return self.prompt_of(conversation.messages(request), max_new_tokens)

    def prompt_of(
        self,
        messages: Sequence[Message],
        max_new_tokens: int | None = None,
        *,
        forgets: bool = True,
    ) -> Prompt:
        """Write messages in the model's format.

        Args:
            messages: As chat templates have them, up to the one to be answered.
            max_new_tokens: The longest answer; by default what the model's generation config says,
                else LONGEST_ANSWER.
            forgets: Whether the oldest turns are left out where the context does not hold all. Then
                room for the answer is kept, but no more than a quarter of the context.

        Raises:
            ChatVecError: The template refuses the messages, or they are too long (`TOO_LONG`).
        """
        wanted = max_new_tokens or self.model.generation_config.max_new_tokens or LONGEST_ANSWER
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if context is None:
            return Prompt(self._encode(messages), wanted, forgotten=0)
        kept = context - min(wanted, context // 4)
        forgotten, ids = 0, self._encode(messages)
        for fewer in _forgetting(messages) if forgets else ():
            if ids.shape[1] <= kept:
                break
            forgotten, ids = forgotten + 1, self._encode(fewer)
        length = ids.shape[1]
        if length >= context:
            what = "the message comes" if forgets or len(messages) == 1 else "the messages come"
            raise ChatVecError(
                f"{what} to {length} tokens, and {self.name} reads {context} at most.",
                "Write a shorter one." if what.endswith("comes") else "Leave out the oldest.",
                TOO_LONG,
            )
        return Prompt(ids, min(wanted, context - length), forgotten)

    def answer(
        self, prompt: Prompt, sampling: Sampling = OWN_SAMPLING, stop: Sequence[str] = ()
    ) -> Answer:
        """Return the answer to a prompt; it is written when it is read.

        Args:
            prompt: The prompt.
            sampling: How tokens are chosen.
            stop: Texts before which the answer ends.
        """
        return Answer(self, prompt, sampling, stop)

    def _encode(self, messages: Sequence[Message]) -> Tensor:
        try:
            text = render(self.template, messages, self.tokenizer.special_tokens_map)
        except TemplateError as error:
            system = messages[0]["role"] == "system"
            raise ChatVecError(
                f"the chat template of {self.name} refuses "
                f"{'the system message' if system else 'the conversation'}: {first_line(error)}.",
                "Do without one, and say it in the first message."
                if system
                else f"Run `chatvec finish {self.name}`, or look at its chat_template.jinja.",
            ) from error
        try:
            encoded: Any = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")
            ids: Tensor = encoded["input_ids"]
        except Exception as error:  # tokenizers raises Exception itself
            raise self._no_tokens(first_line(error)) from error
        if ids.shape[1] == 0:
            raise self._no_tokens("it makes none of the text")
        return ids

    def _no_tokens(self, reason: str) -> ChatVecError:
        return ChatVecError(
            f"the tokenizer of {self.name} makes no tokens of the conversation: {reason}.",
            f"Look at the tokenizer.json of {self.name}, or download the model again.",
        )


def _forgetting(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Yield messages without the oldest turn, without the two oldest, ...; the last one stays.

    A turn begins with what a user says; what is before the first one stays too.
    """
    begins = [i for i, message in enumerate(messages) if message.get("role") == "user"]
    for begin in begins[1:]:
        yield [*messages[: begins[0]], *messages[begin:]]


class Answer:
    """An answer, written by the model while someone iterates over it.

    Attributes:
        text: What has come so far, without special tokens.
        ended: Whether the model came to an end by itself; False until it did.
        stopped_at: The text at which it was to stop and did, and which is not in `text`; None else.
        tokens: How many the model has written, the one that ended it among them.
    """

    def __init__(
        self, speaker: Speaker, prompt: Prompt, sampling: Sampling, stop: Sequence[str] = ()
    ) -> None:
        self.text = ""
        self.ended = False
        self.stopped_at: str | None = None
        self.tokens = 0
        self._speaker = speaker
        self._prompt = prompt
        self._sampling = sampling
        self._stop = tuple(stop)
        self._halt = _Halt()

    def halt(self) -> None:
        """Let the model write no further token; any thread may say so, also before it begins."""
        self._halt.now = True

    def __iter__(self) -> Generator[str]:
        """Yield pieces of text as they come; closing the iterator stops the model.

        Raises:
            ChatVecError: The model broke off with an error.
        """
        speaker, ids = self._speaker, self._prompt.ids.to(self._speaker.model.device)
        streamer = _Streamer(speaker.tokenizer, self._stop, self._halt)
        generate: Any = speaker.model.generate
        if self._sampling.seed is not None:
            torch.manual_seed(self._sampling.seed)
        with ThreadPoolExecutor(max_workers=1) as thread:
            writing = thread.submit(
                generate,
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=self._prompt.room,
                eos_token_id=list(speaker.stop_tokens) or None,
                **self._sampling.settings(),
                streamer=streamer,
                stopping_criteria=StoppingCriteriaList([self._halt]),
            )
            # After an error nobody else would tell the reader that no more will come.
            writing.add_done_callback(lambda _: streamer.text_queue.put(streamer.stop_signal))
            try:
                for piece in streamer:
                    if piece:
                        self.text += piece
                        yield piece
            finally:
                self.halt()
        try:
            written = writing.result()
        except torch.OutOfMemoryError as error:
            raise _out_of_memory(speaker.name) from error
        except Exception as error:
            raise ChatVecError(
                f"{speaker.name} broke off: {first_line(error)}.",
                "Write `--device cpu` to see whether the device is at fault.",
            ) from error
        self.tokens = streamer.tokens
        self.stopped_at = streamer.stopped_at
        if self.stopped_at is None:
            self.ended = int(written[0, -1]) in speaker.stop_tokens


class _Streamer(TextIteratorStreamer):
    """Transformers' streamer, which gives out a character as soon as it is complete.

    The original waits for a space, which Japanese does not write, and decodes every line by itself,
    which costs it a space of indentation with tokenizers like Llama 2's.

    What may be the beginning of a text to stop at is held back until it is clear.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stop: tuple[str, ...], halt: _Halt
    ) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.tokens = 0
        self.stopped_at: str | None = None
        self._stop = stop
        self._halt = halt

    def put(self, value: Tensor) -> None:
        if self.next_tokens_are_prompt:
            self.next_tokens_are_prompt = False
            return
        if self.stopped_at is not None:  # a token that was under way already
            return
        self.token_cache += value.flatten().tolist()
        self.tokens = len(self.token_cache)
        text: Any = self.tokenizer.decode(self.token_cache, **self.decode_kwargs)
        if not text.endswith(UNFINISHED_CHARACTER):
            self._give_out(text, self._clear(text))

    def end(self) -> None:
        """Give out the rest, now that nothing will follow."""
        text: Any = self.tokenizer.decode(self.token_cache, **self.decode_kwargs)
        if self.stopped_at is None:
            self._give_out(text, len(text))
        self.on_finalized_text("", stream_end=True)

    def _give_out(self, text: str, clear: int) -> None:
        """Give out a text up to where it is clear, or up to one to stop at."""
        places = [(text.find(stop, self.print_len), stop) for stop in self._stop]
        if reached := [each for each in places if each[0] >= 0]:
            clear, self.stopped_at = min(reached)
            self._halt.now = True
        if clear > self.print_len:
            self.on_finalized_text(text[self.print_len : clear])
            self.print_len = clear

    def _clear(self, text: str) -> int:
        """Return up to where a text cannot be the beginning of one to stop at."""
        open_end = max(
            (n for stop in self._stop for n in range(1, len(stop)) if text.endswith(stop[:n])),
            default=0,
        )
        return len(text) - open_end


class _Halt(StoppingCriteria):
    """Stops the model at its next token, once told to."""

    now = False

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return torch.full(input_ids.shape[:1], self.now, device=input_ids.device)
