"""The API, asked by the official client of OpenAI, over a real connection."""

from __future__ import annotations

import asyncio
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import httpx
import openai
import pytest
from live_server import ASKED, MESSAGES, Served, live_world, serving, slowly
from openai import OpenAI

from chatvec_method import LiveMerge
from chatvec_method.evaluation.server import server_at
from chatvec_method.serving.app import api
from chatvec_method.serving.engine import Engine
from chatvec_method.serving.writing import Writing
from examples.world import requests
from examples.world.language import NOUNS

Post: TypeAlias = Callable[["str | bytes"], httpx.Response]
HOT = {"temperature": 2.0, "seed": 3}
"""With them, cp goes on for long."""


@pytest.fixture(scope="module")
def live() -> LiveMerge:
    return live_world()


@pytest.fixture(scope="module")
def served(live: LiveMerge) -> Iterator[Served]:
    with serving(Engine(live, device="cpu")) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{served.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def completed(client: OpenAI, model: str = "merge", **fields: Any) -> Any:
    settings: Any = {"messages": MESSAGES, "temperature": 0, **fields}
    return client.chat.completions.create(model=model, **settings)


def said(client: OpenAI, model: str = "merge", **fields: Any) -> str:
    return str(completed(client, model, **fields).choices[0].message.content)


def streamed(client: OpenAI, model: str = "merge", **fields: Any) -> list[Any]:
    return list(completed(client, model, stream=True, **fields))


@pytest.fixture(scope="module")
def post(served: Served) -> Iterator[Post]:
    """Return a function that posts what the official client would not send."""
    headers = {"Content-Type": "application/json"}
    with httpx.Client(base_url=served.url, headers=headers, timeout=60) as client:
        yield lambda body: client.post("/v1/chat/completions", content=body)


def test_the_models_are_listed_and_any_ratio_is_one(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["merge", "cp", "chat"]
    ratio: Any = client.models.retrieve("merge@0.7")
    assert (ratio.id, ratio.ratio) == ("merge@0.7", 0.7)
    schedule: Any = client.models.retrieve("merge@linear:1:0.3")
    assert schedule.ratio[-1] == {"value": [1.0, 0.65, 0.3]}
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-5'"):
        client.models.retrieve("gpt-5")


def test_a_whole_answer_tells_its_ratio_why_it_ended_and_what_it_took(client: OpenAI) -> None:
    answer = completed(client)
    assert answer.choices[0].message.content == ASKED.answer
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.object, answer.model, answer.ratio) == ("chat.completion", "merge", 0.625)
    assert answer.usage.prompt_tokens == 17
    assert answer.usage.completion_tokens == 3
    assert answer.usage.total_tokens == 20
    cut = completed(client, max_tokens=100, max_completion_tokens=1)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage.completion_tokens == 1


def test_a_stream_has_the_same_answer_in_pieces(client: OpenAI) -> None:
    chunks = streamed(client, "merge@0.5")
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(pieces) == said(client, "merge@0.5")
    assert sum(map(bool, pieces)) > 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "stop"]
    assert chunks[0].ratio == chunks[-1].ratio == 0.5
    assert len({chunk.id for chunk in chunks}) == 1
    assert not any(chunk.usage for chunk in chunks)


def test_a_stream_tells_what_it_took_where_one_asks(client: OpenAI) -> None:
    last = streamed(client, stream_options={"include_usage": True})[-1]
    assert last.choices == []
    assert last.usage.total_tokens == 20


@pytest.mark.parametrize(
    ("fields", "model", "ratio"),
    [
        ({"ratio": 0.3}, "merge@0.3", 0.3),
        ({"ratio": 0}, "cp", 0.0),
        ({"schedule": "linear:1:0.3"}, "merge@linear:1:0.3", None),
        ({"schedule": [1, 0.65, 0.3]}, None, [1.0, 0.65, 0.3]),
        (
            {"schedule": [{"filter": "mlp", "value": 0}, {"value": 1}]},
            None,
            [{"filter": "mlp", "value": 0.0}, {"value": 1.0}],
        ),
    ],
)
def test_a_ratio_and_a_schedule_are_fields_of_a_request(
    client: OpenAI, fields: dict[str, Any], model: str | None, ratio: Any
) -> None:
    answer = completed(client, extra_body=fields)
    if model is not None:
        assert answer.choices[0].message.content == said(client, model)
    if ratio is not None:
        assert answer.ratio == ratio


def test_a_letter_that_no_text_has_comes_back_as_it_was(post: Post) -> None:
    schedule = [{"filter": "\ud800", "value": 1.0}, {"value": 0.5}]
    body = {"messages": MESSAGES, "temperature": 0, "schedule": schedule}
    assert post(json.dumps(body)).json()["ratio"] == schedule
    assert r"\ud800" in post(json.dumps({**body, "stream": True})).text


def test_a_seed_gives_the_same_answer_and_the_answer_tells_it(client: OpenAI) -> None:
    hot: Any = {"temperature": 1.5, "max_tokens": 8}
    first = completed(client, "cp", **hot)
    again = completed(client, "cp", seed=first.seed, **hot)
    assert again.choices == first.choices
    assert completed(client, "cp").seed is None


def test_top_p_0_and_temperature_0_are_greedy(client: OpenAI) -> None:
    assert said(client, "cp", temperature=1.5, top_p=0) == said(client, "cp")


@pytest.mark.parametrize("stop", ["곤울 :", ["nowhere", "곤울 :"]])
def test_an_answer_ends_before_a_text_to_stop_at(client: OpenAI, stop: Any) -> None:
    whole = said(client, "cp")
    answer = completed(client, "cp", stop=stop)
    before = whole[: whole.index("곤울 :")]
    assert answer.choices[0].message.content == before != whole
    assert answer.choices[0].finish_reason == "stop"
    pieces = [chunk.choices[0].delta.content or "" for chunk in streamed(client, "cp", stop=stop)]
    assert "".join(pieces) == before


def test_a_conversation_and_messages_in_parts_are_understood(client: OpenAI) -> None:
    tell, between, ask = [
        exchange.in_b() for exchange in requests.recall("lamp", requests.repeat(["cup", "hat"]))
    ]
    messages: list[Any] = []
    for exchange in (tell, between):
        messages.append({"role": "user", "content": exchange.request})
        messages.append({"role": "assistant", "content": exchange.answer})
    parts = [{"type": "text", "text": ask.request[:5]}, {"type": "text", "text": ask.request[5:]}]
    messages.append({"role": "user", "name": "someone", "content": parts})
    assert said(client, messages=messages) == ask.answer


def test_fields_that_ask_for_nothing_change_nothing(client: OpenAI) -> None:
    nothing: Any = {
        "n": 1,
        "logprobs": False,
        "frequency_penalty": 0.0,
        "presence_penalty": 0,
        "tools": [],
        "response_format": {"type": "text"},
        "user": "someone",
        "top_p": None,
        "stop": None,
    }
    assert said(client, **nothing) == ASKED.answer


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"n": 2}, "n is not supported"),
        ({"logprobs": True}, "logprobs is not supported"),
        ({"frequency_penalty": 0.5}, "frequency_penalty is not supported"),
        ({"tools": [{"type": "function"}]}, "tools is not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format is not supported"),
        ({"raito": 0.5}, "no field raito; a ratio is `ratio` or `schedule`"),
        ({"ratio": "much"}, "is no number"),
        ({"schedule": "gausian:1:2"}, "gausian"),
        ({"ratio": 1, "schedule": "linear:1:0"}, "more than once"),
        ({"model": "cp", "ratio": 1}, "cp has no ratio"),
        ({"temperature": -1}, "temperature: "),
        ({"temperature": "hot"}, "temperature: "),
        ({"top_p": 1.5}, "top_p: "),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"seed": 2**64}, "seed: "),
        ({"stop": ["a", "b", "c", "d", "e"]}, "Write 4 at most"),
        ({"stop": ""}, "stop: "),
        ({"stop": [""]}, "stop.0: "),
        ({"stop": "x" * 1001}, "stop: "),
        ({"messages": []}, "messages: "),
        ({"messages": "hello"}, "messages: "),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "the role 'tool'"),
        ({"messages": [*MESSAGES, {"role": "assistant", "content": "x"}]}, "the assistant's"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "the type 'image_url'",
        ),
        ({"messages": [{"role": "user", "content": "cup " * 200}]}, "128 at most"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(
    post: Post, fields: dict[str, Any], told: str
) -> None:
    for stream in (False, True):
        refused = post(json.dumps({"messages": MESSAGES, "stream": stream, **fields}))
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert told in error["message"]
        assert error["type"] == "invalid_request_error"
        assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "body", ["", "{", "[]", "null", b"\xff\xfe", "[" * 100_000, '{"messages": NaN}']
)
def test_what_is_no_request_is_refused_in_a_sentence(post: Post, body: bytes | str) -> None:
    refused = post(body)
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "invalid_request_error"


def test_errors_are_those_that_the_client_knows(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        completed(client, "gpt-5")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        completed(client, messages=[{"role": "user", "content": "cup " * 200}])
    assert long.value.code == "context_length_exceeded"


def test_fifty_requests_at_once_get_the_answers_of_those_asked_alone(client: OpenAI) -> None:
    models = ["cp", "merge", "merge@0.3", "chat", "merge@linear:1:0.3"]
    asked = [
        requests.first([NOUNS[i % 30], NOUNS[-1], NOUNS[i // 30]]).in_b().request for i in range(50)
    ]
    asks = [
        {
            "model": models[i % len(models)],
            "messages": [{"role": "user", "content": request}],
            "max_tokens": 4,
            **(HOT if i % 3 == 0 else {}),
        }
        for i, request in enumerate(asked)
    ]
    alone = [said(client, **ask) for ask in asks]
    with ThreadPoolExecutor(len(asks)) as threads:
        at_once = list(threads.map(lambda ask: said(client, **ask), asks))
    assert at_once == alone
    assert len(set(alone)) > 20


def test_a_new_ratio_has_its_first_token_in_less_than_300_ms(client: OpenAI) -> None:
    seconds = []
    for i in range(7):
        ratio = 0.3 + i / 100
        began = time.monotonic()
        for chunk in completed(client, stream=True, extra_body={"ratio": ratio}):
            if chunk.choices[0].delta.content:
                seconds.append(time.monotonic() - began)
                break
    assert statistics.median(seconds) < 0.3


def test_an_evaluation_asks_it_as_any_server(served: Served) -> None:
    server = server_at(f"{served.url}/v1#merge@0.625")
    assert server.write(MESSAGES, longest=12) == (ASKED.answer, True)
    cp = server_at(f"{served.url}/v1", "cp")
    assert cp.write(MESSAGES, longest=2) == (". 누출", False)


def test_one_more_than_may_wait_is_told_to_come_again(live: LiveMerge) -> None:
    live.set(0.625)
    engine = Engine(live, device="cpu", waiting=1)
    started, finish = threading.Event(), threading.Event()

    def work(_: Any) -> None:
        started.set()
        finish.wait(10)

    busy = threading.Thread(target=engine.do, args=(engine.settings.named(), work))
    busy.start()
    assert started.wait(10)

    async def ask() -> tuple[httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(api(engine))
        async with httpx.AsyncClient(transport=transport, base_url="http://any") as client:
            body = {"messages": MESSAGES, "temperature": 0}
            waits = asyncio.create_task(client.post("/v1/chat/completions", json=body))
            while not engine.waiting:
                await asyncio.sleep(0.01)
            refused = await client.post("/v1/chat/completions", json=body)
            finish.set()
            return await waits, refused

    answered, refused = asyncio.run(ask())
    busy.join()
    engine.close()
    assert answered.json()["choices"][0]["message"]["content"] == ASKED.answer
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_stops_its_answer(
    served: Served, live: LiveMerge, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    writings: list[Writing] = []
    original = served.engine.answer

    def watched(*arguments: Any, **settings: Any) -> Writing:
        writings.append(original(*arguments, **settings))
        return writings[-1]

    monkeypatch.setattr(served.engine, "answer", watched)
    body = {"model": "cp", "messages": MESSAGES, "stream": stream, **HOT}
    url = f"{served.url}/v1/chat/completions"
    with slowly(live, 0.02):
        if stream:
            with httpx.stream("POST", url, json=body) as response:
                next(response.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(url, json=body, timeout=0.2)
        served.engine.do(served.engine.settings.named("cp"), lambda _: None)
    (writing,) = writings
    assert writing.cancelled
    assert len(writing.text.split()) < 30  # of more than a hundred
