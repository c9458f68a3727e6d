"""The engine: one live merge that answers many, each at a ratio of their own.

    engine = Engine(live)
    setting = engine.settings.named("merge", schedule="linear:1:0.3")  # or named("merge@0.7")
    answer = engine.answer([{"role": "user", "content": "…"}], setting, Sampling(greedy=True))
    for piece in answer:  # or `async for piece in answer`
        print(piece, end="")
    answer.account  # why it ended, usage, ratio, seed
    setting.recipe.text  # to be saved

Answers are written one at a time, each token as if nobody else had asked: requests never share a
batch, in which half precision would round otherwise. The others wait, and those who want what the
model is now may go first (see `turns`). Several answers side by side are several calls of
`answer`; they come one after the other.

Whoever no longer reads an answer calls `cancel`, or closes its iterator: a request that waits is
gone at once, one that is being written ends at its next token.

What is not an answer, such as a measurement, takes its turn by `engine.do(setting, work)`.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.live_merge.model import LiveMerge
from chatvec_method.serving.chats import Chats
from chatvec_method.serving.settings import Setting, Settings
from chatvec_method.serving.turns import CLOSED, Turns
from chatvec_method.serving.writing import Account, Finish, Writing
from chatvec_method.talk.speaker import OWN_SAMPLING, Message, Sampling, Speaker

WAITING = 64
"""So many requests may wait; one more is refused."""
SEEDS = 2**31
FAILED = "failed"
"""The code of the error that something went wrong which nobody thought of."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Turn:
    """Something to be done with the model."""

    setting: Setting
    work: Callable[[Speaker], Any]
    tell: Callable[[Any], None]
    """Is given what comes of it, or why nothing does."""
    cancel: Callable[[], None] = lambda: None

    @property
    def key(self) -> str:
        return self.setting.key


class Engine:
    """A live merge that answers requests, one at a time, each at its setting.

    Nobody else sets the live merge's ratio meanwhile, but in a turn (`do`).

    Attributes:
        settings: What can be asked, by name.
    """

    def __init__(self, live: LiveMerge, *, device: str = "auto", waiting: int = WAITING) -> None:
        """Begin to serve.

        Args:
            live: The merge, at the ratio that is to be `merge`.
            device: Where the chat models go, which are loaded when they are first asked.
            waiting: How many requests may wait.

        Raises:
            ChatVecError: Nothing says how the merge chats.
        """
        self.settings = Settings(live.recipe, live.plan)
        self._live = live
        self._chats = Chats(live, device)
        self._turns: Turns[_Turn] = Turns(waiting)
        self._now: _Turn | None = None
        live.speaker  # noqa: B018 (which tells now what is at fault)
        self._thread = threading.Thread(target=self._work, name="chatvec-engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many wait now, besides the one who is served."""
        return len(self._turns)

    def answer(
        self,
        messages: Sequence[Message],
        setting: Setting,
        sampling: Sampling = OWN_SAMPLING,
        *,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
        forgets: bool = False,
    ) -> Writing:
        """Have the next answer of a conversation written.

        Args:
            messages: As chat templates have them, up to the one to be answered.
            setting: With what.
            sampling: How tokens are chosen; by default as the model's generation config says.
            max_tokens: The longest answer; by default what that says, else LONGEST_ANSWER.
            stop: Texts before which it ends.
            forgets: Whether the oldest turns are left out where the context does not hold all.

        Raises:
            ChatVecError: Too many wait (`turns.BUSY`). All else that can go wrong is raised to
                whoever reads the answer.
        """

        def work(speaker: Speaker) -> Account:
            if writing.cancelled:
                return Account(setting, "cancelled")
            prompt = speaker.prompt_of(messages, max_tokens, forgets=forgets)
            chosen = _with_seed(sampling, speaker)
            answer = speaker.answer(prompt, chosen, stop)
            writing.follow(answer)
            for piece in answer:
                writing.tell(piece)
            finish: Finish = "cancelled" if writing.cancelled else "length"
            if answer.ended or answer.stopped_at is not None:
                finish = "stop"
            length, drawn = int(prompt.ids.shape[1]), chosen.seed
            return Account(setting, finish, length, answer.tokens, prompt.forgotten, drawn)

        writing = Writing(setting, lambda: self._turns.remove(turn))
        turn = _Turn(setting, work, writing.tell, writing.cancel)
        self._turns.add(turn)
        return writing

    def do(self, setting: Setting, work: Callable[[Speaker], Result]) -> Result:
        """Do something with the model at a setting, in turn, and return what comes of it.

        Args:
            setting: What the model is meanwhile.
            work: Is given the model, in the engine's thread.

        Raises:
            ChatVecError: Too many wait, the model cannot be set, or `work` fails.
        """
        outcome: Future[Result] = Future()

        def finish(result: Any) -> None:
            if isinstance(result, ChatVecError):
                outcome.set_exception(result)
            else:
                outcome.set_result(result)

        self._turns.add(_Turn(setting, work, finish))
        return outcome.result()

    def close(self, seconds: float = 1.0) -> bool:
        """Serve nobody any more; who is being served ends at the next token.

        Args:
            seconds: So long to wait for that.

        Returns:
            Whether the model is at rest; else it is still in a step that takes long.
        """
        for turn in self._turns.close():
            turn.tell(ChatVecError("the model is being closed.", "Start it again.", CLOSED))
        if (now := self._now) is not None:
            now.cancel()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        key = None
        while (turn := self._turns.next(key)) is not None:
            self._now = turn
            if self._turns.closed:  # since it was taken, and nobody has seen that it was
                turn.cancel()
            try:
                outcome = self._done(turn)
            except ChatVecError as error:
                outcome = error
            except Exception as error:  # the next one is served all the same
                logging.getLogger(__name__).exception("a request failed")
                outcome = ChatVecError(
                    f"{turn.setting.name} could not answer: {first_line(error)}.",
                    "The server's own output says more.",
                    FAILED,
                )
            key, self._now = turn.key, None
            turn.tell(outcome)

    def _done(self, turn: _Turn) -> Any:
        setting = turn.setting
        if setting.chat is not None:
            return turn.work(self._chats.speaker(setting.chat))
        assert setting.merge is not None
        with self._live.lock:
            self._live.set(setting.merge)
            return turn.work(self._live.speaker)


def _with_seed(sampling: Sampling, speaker: Speaker) -> Sampling:
    """Return how tokens are chosen, with a seed by which the same can be had again.

    It is drawn, where none is given: the chance of a request does not hang on those before it.
    """
    draws = sampling.settings().get("do_sample", speaker.model.generation_config.do_sample)
    if not draws:
        return replace(sampling, seed=None)
    return (
        sampling if sampling.seed is not None else replace(sampling, seed=secrets.randbelow(SEEDS))
    )
