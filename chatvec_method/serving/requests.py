"""What can be asked of `/v1/chat/completions`: OpenAI's fields, and a ratio.

A field that would change the answer and cannot be honoured is refused, as is one that nobody knows:
a ratio that is misspelt would give the answer of another ratio.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from chatvec_method.errors import ChatVecError
from chatvec_method.serving.settings import MERGE
from chatvec_method.talk.speaker import OWN_SAMPLING, Sampling

MOST_STOPS = 4
LONGEST_STOP = 1000
"""Characters."""
REFUSED = "unsupported-value"
"""The code of the error that a field says what is not done here."""
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""What templates call the roles of OpenAI."""
IGNORED = {
    *("metadata", "prompt_cache_key", "prompt_cache_retention", "reasoning_effort"),
    *("safety_identifier", "service_tier", "store", "user", "verbosity"),
}
"""Fields that say nothing that a model without tools and accounts could do otherwise."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
"""Fields that are not supported, with the values that ask for nothing; null does not, either."""

Text = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**64)]
"""What torch takes."""


class Part(BaseModel):
    """A part of a message."""

    type: str
    text: str = ""


class ChatMessage(BaseModel):
    """What was said; the name of who said it, and the like, are in no template."""

    role: str
    content: str | list[Part]

    def plain(self) -> dict[str, str]:
        """Return it as chat templates have it.

        Raises:
            ChatVecError: It is by nobody, or holds more than text.
        """
        if self.role not in ROLES:
            raise ChatVecError(
                f"a message has the role {self.role!r}.", f"Write {', '.join(ROLES)}.", REFUSED
            )
        if isinstance(self.content, str):
            return {"role": ROLES[self.role], "content": self.content}
        for part in self.content:
            if part.type != "text":
                raise ChatVecError(
                    f"a message has a part of the type {part.type!r}.",
                    "The model reads text alone.",
                    REFUSED,
                )
        return {"role": ROLES[self.role], "content": "".join(part.text for part in self.content)}


class StreamOptions(BaseModel):
    """What a stream tells besides."""

    include_usage: bool = False
    include_obfuscation: bool = False
    """Nothing is added to hide how long pieces are, whatever it says."""


class ChatRequest(BaseModel):
    """A request for the next answer of a conversation."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    messages: list[ChatMessage] = Field(min_length=1)
    model: str = MERGE
    ratio: Any = None
    schedule: Any = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    stop: Text | list[Text] | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: Seed | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_the_rest(cls, fields: Any) -> Any:
        """Take away the fields that ask for nothing, and refuse those that ask for what is not."""
        if not isinstance(fields, dict):
            return fields
        for name, neutral in NEUTRAL.items():
            value = fields.get(name)
            if value is not None and value not in neutral:
                raise ChatVecError(f"{name} is not supported.", "Leave it out.", REFUSED)
        return {name: each for name, each in fields.items() if name not in IGNORED | NEUTRAL.keys()}

    def plain_messages(self) -> list[dict[str, str]]:
        """Return the messages as chat templates have them.

        Raises:
            ChatVecError: They are not such as can be answered.
        """
        messages = [message.plain() for message in self.messages]
        if messages[-1]["role"] == "assistant":
            raise ChatVecError(
                "the last message is the assistant's, which nothing answers.",
                "Let it be the user's.",
                REFUSED,
            )
        return messages

    def sampling(self) -> Sampling:
        """Return how tokens are chosen; where nobody says, the model's generation config does."""
        if self.temperature == 0 or self.top_p == 0:
            return Sampling(greedy=True)
        if self.temperature is None and self.top_p is None and self.seed is None:
            return OWN_SAMPLING
        return Sampling(temperature=self.temperature, top_p=self.top_p, seed=self.seed)

    def longest(self) -> int | None:
        """Return the most tokens that the answer may have; None for what the model says."""
        return self.max_completion_tokens or self.max_tokens

    def stops(self) -> list[str]:
        """Return the texts before which the answer ends.

        Raises:
            ChatVecError: They are too many.
        """
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > MOST_STOPS:
            raise ChatVecError(
                f"stop has {len(stops)} texts.", f"Write {MOST_STOPS} at most.", REFUSED
            )
        return stops
