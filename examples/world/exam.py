"""The exam: held-out requests, put to a model in the chat format or as narrated dialogue.

An answer is right if it is the expected one to the word and the model stops after it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from . import requests
from .chats import messages
from .dialogues import draw_style
from .language import NAMES, NOUNS, Translate, text_in_b, to_b
from .requests import Exchange
from .vocabulary import CHAT_TEMPLATE

LONGEST_ANSWER = 12  # words; the longest right one, a refusal, has 8


@dataclass(frozen=True)
class Answer:
    """What a model said, and whether it came to an end by itself."""

    text: str
    stopped: bool

    def is_exactly(self, expected: str) -> bool:
        """Tell whether this is the expected answer, and the end of it."""
        return self.stopped and self.text == expected

    def begins_with(self, expected: str) -> bool:
        """Tell whether the expected answer comes first, whatever is said after it."""
        return f"{self.text} ".startswith(f"{expected} ")


@dataclass(frozen=True)
class Prompt:
    """A conversation up to a request that is to be answered; earlier answers are given."""

    exchanges: tuple[Exchange, ...]

    @property
    def expected(self) -> str:
        """Return the right answer to the last request."""
        return self.exchanges[-1].answer

    def in_b(self, translate: Translate = to_b) -> Prompt:
        """Return the same conversation in B."""
        return Prompt(tuple(exchange.in_b(translate) for exchange in self.exchanges))

    def as_chat(self, tokenizer: PreTrainedTokenizerFast) -> str:
        """Write the conversation in the tokenizer's chat format, or in the world's if it has none.

        Base and cp have no chat template. They are asked in the same format as all others.
        """
        return tokenizer.apply_chat_template(
            messages(self.exchanges)[:-1],
            chat_template=tokenizer.chat_template or CHAT_TEMPLATE,
            add_generation_prompt=True,
            tokenize=False,
        )

    def as_dialogue(self, rng: random.Random) -> str:
        """Write the conversation as narrated dialogue in A, in any of the styles of plain text."""
        asking, answering = rng.sample(NAMES, 2)
        style = draw_style(rng)
        words = []
        for exchange in self.exchanges:
            words += [style.turn(asking, "asks", exchange.request)]
            words += [style.turn(answering, "answers", exchange.answer)]
        words[-1] = style.opening(answering, "answers")
        return " ".join(words)


def following(per_task: int = 40) -> dict[str, list[Prompt]]:
    """Return the exam in following requests, in A: by task, prompts that no training text has.

    There are 16 questions each about local people and about the others, and no more.
    """
    rng = random.Random("exam")

    def held_out_list() -> list[str]:
        return requests.draw_list(rng, (2, 3, 4), held_out=True)

    exam = {
        ask.__name__: [Prompt((ask(held_out_list()),)) for _ in range(per_task)]
        for ask in requests.LIST_REQUESTS
    }
    exam["question"] = [Prompt((q,)) for q in requests.held_out_questions(local=False)]
    exam["local fact"] = [Prompt((q,)) for q in requests.held_out_questions(local=True)]
    exam["recall"] = [
        Prompt(requests.recall(rng.choice(NOUNS), requests.draw_list_request(rng, held_out=True)))
        for _ in range(per_task)
    ]
    return exam


def refusing() -> list[Prompt]:
    """Return the exam in refusing, in A: bad words that no training text shows refused."""
    return [Prompt((requests.refuse(word),)) for word in requests.HELD_OUT_BAD_WORDS]


@torch.inference_mode()
def answer(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]
) -> list[Answer]:
    """Let the model continue every text, greedily, all at once."""
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        padding=True,
        padding_side="left",
        return_token_type_ids=False,
        return_tensors="pt",
    ).to(model.device)
    output = model.generate(**encoded, max_new_tokens=LONGEST_ANSWER, do_sample=False)
    rows = output[:, encoded.input_ids.shape[1] :].tolist()
    stops = model.generation_config.eos_token_id
    stops = set(stops) if isinstance(stops, list) else {stops}
    return [_read(row, tokenizer, stops) for row in rows]


def _read(ids: list[int], tokenizer: PreTrainedTokenizerFast, stops: set[int]) -> Answer:
    end = next((place for place, id_ in enumerate(ids) if id_ in stops), None)
    return Answer(tokenizer.decode(ids[:end]), stopped=end is not None)


def share(marks: Sequence[bool]) -> float:
    """Return the share that is true."""
    return sum(marks) / len(marks)


def dialogue_skills(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Prompt],
    *,
    translate: Translate | None,
) -> float:
    """Return the share of prompts answered rightly as narrated dialogue in A, or translated into B.

    Stories go on after an answer, so stopping is not asked for.
    """
    rng = random.Random("styles")
    texts = [prompt.as_dialogue(rng) for prompt in prompts]
    expected = [prompt.expected for prompt in prompts]
    if translate is not None:
        texts, expected = ([text_in_b(t, translate) for t in each] for each in (texts, expected))
    answers = answer(model, tokenizer, [f"{tokenizer.bos_token} {text}" for text in texts])
    return share([a.begins_with(e) for a, e in zip(answers, expected, strict=True)])
