"""What an answer ends at, and what goes into a prompt, for whoever serves a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatvec_method import Conversation
from chatvec_method.errors import ChatVecError
from chatvec_method.talk.speaker import TOO_LONG, Answer, Sampling, Speaker, load

REQUEST = "repeat pen cup hat box ."
ANSWER = "pen cup hat box ."
GREEDY = Sampling(greedy=True)


@pytest.fixture(scope="module")
def speaker() -> Speaker:
    return load(str(Path("examples") / "world" / "models" / "chat"), device="cpu")


def asked(speaker: Speaker, *stop: str) -> Answer:
    return speaker.answer(speaker.prompt(Conversation(), REQUEST), GREEDY, stop)


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (["hat box"], "pen cup "),  # over two tokens
        (["t b"], "pen cup ha"),  # within them
        (["box", "cup"], "pen "),  # the one that comes first
        (["pen"], ""),
        (["box ? no"], ANSWER),  # begun, and not gone on with
        ([" hat nothing", "box ."], "pen cup hat "),
        (["nowhere"], ANSWER),
    ],
)
def test_an_answer_ends_before_a_text_to_stop_at(
    speaker: Speaker, stop: list[str], text: str
) -> None:
    answer = asked(speaker, *stop)
    assert "".join(answer) == answer.text == text
    assert answer.ended == (text == ANSWER)
    if not answer.ended:
        assert answer.stopped_at in stop
        assert ANSWER.startswith(f"{text}{answer.stopped_at}")


def test_what_may_become_a_text_to_stop_at_is_held_back(speaker: Speaker) -> None:
    pieces = list(asked(speaker, "cup hat cup"))
    assert pieces[:3] == ["pen", " ", "cup hat box"]


def test_tokens_are_counted_with_the_one_that_ends_it(speaker: Speaker) -> None:
    answer = asked(speaker)
    list(answer)
    assert answer.tokens == 6
    stopped = asked(speaker, "hat")
    list(stopped)
    assert stopped.tokens == 3


def test_halting_ends_it_at_the_next_token(speaker: Speaker) -> None:
    answer = asked(speaker)
    for piece in answer:
        if "cup" in piece:
            answer.halt()
    assert answer.tokens < 6
    assert not answer.ended


def test_with_the_top_of_nothing_only_the_likeliest_is_drawn(speaker: Speaker) -> None:
    prompt = speaker.prompt(Conversation(), REQUEST)
    drawn = speaker.answer(prompt, Sampling(temperature=2.0, top_p=1e-9, seed=1))
    assert "".join(drawn) == ANSWER
    assert Sampling(top_p=0.5).settings() == {"do_sample": True, "top_p": 0.5}


def test_messages_of_any_order_are_written_as_the_template_has_them(speaker: Speaker) -> None:
    messages = [
        {"role": "user", "content": "say cup ."},
        {"role": "user", "content": "say hat ."},
    ]
    text = speaker.tokenizer.decode(speaker.prompt_of(messages).ids[0])
    assert text == "<s> [ user ] say cup . [ user ] say hat . [ bot ]"


def test_nothing_is_forgotten_where_all_is_meant(speaker: Speaker) -> None:
    turn = [{"role": "user", "content": "say cup ."}, {"role": "assistant", "content": "cup ."}]
    messages = [*turn * 20, {"role": "user", "content": "say hat ."}]
    assert speaker.prompt_of(messages).forgotten > 0
    with pytest.raises(ChatVecError, match="128 at most") as refused:
        speaker.prompt_of(messages, forgets=False)
    assert refused.value.code == TOO_LONG
    fits = [*turn * 9, messages[-1]]
    prompt = speaker.prompt_of(fits, forgets=False)
    assert prompt.forgotten == 0
    assert prompt.room == 128 - prompt.ids.shape[1]
