"""One live merge that answers many, each at a ratio of their own."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from conftest import ROOT
from live_server import ASKED, BABBLE, MESSAGES, live_world, slowly

import chatvec_method
from chatvec_method import Conversation, LiveMerge
from chatvec_method.demo import world_recipe
from chatvec_method.errors import ChatVecError
from chatvec_method.serving import chats
from chatvec_method.serving.engine import Engine
from chatvec_method.serving.settings import BAD_SETTING, NO_SUCH_MODEL, Settings
from chatvec_method.serving.turns import BUSY, CLOSED
from chatvec_method.serving.writing import Account, Writing
from chatvec_method.talk.speaker import Sampling, load
from examples.world import requests

GREEDY = Sampling(greedy=True)
MODELS = ROOT / "examples" / "world" / "models"


@pytest.fixture(scope="module")
def live() -> LiveMerge:
    return live_world()


@pytest.fixture(scope="module")
def engine(live: LiveMerge) -> Iterator[Engine]:
    engine = Engine(live, device="cpu")
    yield engine
    engine.close()


def read(writing: Writing) -> tuple[str, Account]:
    text = "".join(writing)
    assert text == writing.text
    assert writing.account is not None
    return text, writing.account


def asked(engine: Engine, name: str, sampling: Sampling = GREEDY, **rest: Any) -> str:
    return read(engine.answer(MESSAGES, engine.settings.named(name), sampling, **rest))[0]


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.625, "linear:1:0.3"])
def test_an_answer_is_that_of_the_merge_at_its_ratio(
    engine: Engine, live: LiveMerge, ratio: Any
) -> None:
    text, account = read(engine.answer(MESSAGES, engine.settings.named(f"merge@{ratio}"), GREEDY))
    with live.lock:
        live.set(ratio)
        answer = live.speaker.answer(live.speaker.prompt(Conversation(), ASKED.request), GREEDY)
        assert text == "".join(answer)
    assert account.completion_tokens == answer.tokens
    assert account.prompt_tokens == 17


def test_an_account_tells_the_ratio_as_a_recipe_has_it(engine: Engine) -> None:
    named = engine.settings.named
    assert named("merge").ratio == 0.625
    assert named("merge", ratio=0.7).ratio == named("merge@0.7").ratio == 0.7
    assert named("merge", schedule=[1, 0.5]).ratio == [1.0, 0.5]
    assert named("cp").ratio == 0
    assert named("chat").ratio is None
    recipe = named("merge@0.7").recipe
    assert recipe is not None
    assert "role: chat, ratio: 0.7" in recipe.text


def test_cp_is_the_merge_at_0(engine: Engine) -> None:
    assert engine.settings.named("cp").key == engine.settings.named("merge@0").key
    assert asked(engine, "cp") == asked(engine, "merge@0") != ASKED.answer
    assert asked(engine, "merge") == ASKED.answer


def test_chat_is_the_chat_model_with_its_own_tokenizer(engine: Engine) -> None:
    request = requests.first(["pen", "door", "shoe", "ship"]).request
    chat = engine.settings.named("chat")
    messages = [{"role": "user", "content": request}]
    text, account = read(engine.answer(messages, chat, GREEDY))
    speaker = load(str(MODELS / "chat"), device="cpu")
    assert text == "".join(speaker.answer(speaker.prompt(Conversation(), request), GREEDY))
    assert account.setting.ratio is None
    assert engine.do(chat, lambda speaker: len(speaker.tokenizer)) == 297 != 305


def test_a_chat_model_that_has_no_room_is_refused_and_the_merge_answers(
    live: LiveMerge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chats.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    engine = Engine(live, device="cpu")
    with pytest.raises(ChatVecError, match=r"chat needs 0\.0 GB of memory besides") as refused:
        asked(engine, "chat")
    assert refused.value.code == chats.NO_ROOM
    assert asked(engine, "merge") == ASKED.answer
    engine.close()


@pytest.mark.parametrize(
    ("name", "fields", "code"),
    [
        ("gpt-5", {}, NO_SUCH_MODEL),
        ("chat2", {}, NO_SUCH_MODEL),
        ("cp@0.5", {}, NO_SUCH_MODEL),
        ("merge@", {}, BAD_SETTING),
        ("merge@much", {}, BAD_SETTING),
        ("merge@inf", {}, BAD_SETTING),
        ("merge", {"ratio": "0.5"}, BAD_SETTING),
        ("merge", {"ratio": True}, BAD_SETTING),
        ("merge", {"ratio": {"nobody": 1}}, BAD_SETTING),
        ("merge", {"schedule": [{"filter": "mlp"}]}, BAD_SETTING),
        ("merge", {"schedule": {}}, BAD_SETTING),
        ("merge", {"schedule": []}, BAD_SETTING),
        ("merge", {"schedule": [1.0] * 20_000}, BAD_SETTING),
        ("merge", {"ratio": 1, "schedule": "linear:1:0"}, BAD_SETTING),
        ("merge@0.5", {"ratio": 1}, BAD_SETTING),
        ("cp", {"ratio": 1}, BAD_SETTING),
        ("chat", {"schedule": "linear:1:0"}, BAD_SETTING),
    ],
)
def test_what_is_no_setting_is_refused_before_it_waits(
    engine: Engine, name: str, fields: dict[str, Any], code: str
) -> None:
    with pytest.raises(ChatVecError) as refused:
        engine.settings.named(name, **fields)
    assert refused.value.code == code


def test_each_of_several_chat_models_has_a_name_and_a_ratio(tmp_path: Path) -> None:
    raw = yaml.safe_load(world_recipe().text)
    second = tmp_path / "second"
    shutil.copytree(MODELS / "chat", second)
    parameters = {"role": "chat", "ratio": 0.25}
    raw["models"].insert(2, {"model": str(second), "parameters": parameters})
    survey = chatvec_method.survey(raw).ready()
    settings = Settings(survey.recipe, survey.plan)
    assert settings.names == ("merge", "cp", "chat", "chat2")
    assert settings.named("chat2").chat == str(second)
    first = str(MODELS / "chat")
    assert settings.named().ratio == {first: 0.625, str(second): 0.25}
    assert settings.named(ratio={first: 1}).ratio == {first: 1.0, str(second): 0.25}
    assert settings.named("merge@0.5").ratio == {first: 0.5, str(second): 0.5}


def test_answers_asked_at_once_are_those_asked_alone(engine: Engine) -> None:
    names = ["merge", "cp", "merge@0.3", "chat", "merge@linear:1:0.3"]
    samplings = [GREEDY, Sampling(temperature=2.0, top_p=0.99, seed=7)]
    orders = [(name, sampling) for sampling in samplings for name in names]
    alone = [asked(engine, *order, max_tokens=8) for order in orders]
    with ThreadPoolExecutor(len(orders)) as threads:
        at_once = list(threads.map(lambda order: asked(engine, *order, max_tokens=8), orders))
    assert at_once == alone
    assert len(set(alone)) >= len(names)  # or it would not show who got whose


def test_an_answer_by_chance_tells_the_seed_that_gives_it_again(engine: Engine) -> None:
    cp, hot = engine.settings.named("cp"), Sampling(temperature=1.5)
    text, account = read(engine.answer(MESSAGES, cp, hot, max_tokens=8))
    assert account.seed is not None
    again = Sampling(temperature=1.5, seed=account.seed)
    assert asked(engine, "cp", again, max_tokens=8) == text
    others = {read(engine.answer(MESSAGES, cp, hot, max_tokens=1))[1].seed for _ in range(2)}
    assert len({account.seed} | others) == 3
    assert read(engine.answer(MESSAGES, cp, GREEDY))[1].seed is None


def test_who_is_cut_off_is_told_so(engine: Engine) -> None:
    merge = engine.settings.named()
    cut = read(engine.answer(MESSAGES, merge, GREEDY, max_tokens=1))[1]
    assert (cut.finish, cut.completion_tokens) == ("length", 1)
    assert read(engine.answer(MESSAGES, merge, GREEDY))[1].finish == "stop"


def test_turns_that_do_not_fit_are_refused_or_forgotten_as_one_likes(engine: Engine) -> None:
    said = [{"role": "user", "content": ASKED.request}, {"role": "assistant", "content": "."}] * 12
    merge = engine.settings.named()
    with pytest.raises(ChatVecError, match="128 at most"):
        read(engine.answer([*said, *MESSAGES], merge, GREEDY))
    text, account = read(engine.answer([*said, *MESSAGES], merge, GREEDY, forgets=True))
    assert account.forgotten > 5
    assert text


def test_who_waits_and_cancels_is_gone_at_once(engine: Engine) -> None:
    started, finish = threading.Event(), threading.Event()
    merge = engine.settings.named()
    busy = threading.Thread(
        target=engine.do, args=(merge, lambda _: [started.set(), finish.wait(10)])
    )
    busy.start()
    assert started.wait(10)
    writing = engine.answer(MESSAGES, merge, GREEDY)
    assert engine.waiting == 1
    writing.cancel()
    assert engine.waiting == 0
    assert read(writing)[1].finish == "cancelled"
    finish.set()
    busy.join()


@pytest.mark.parametrize("way", ["cancel", "close the iterator", "leave the loop"])
def test_who_is_answered_and_cancels_has_no_further_token(
    engine: Engine, live: LiveMerge, way: str
) -> None:
    async def leave(writing: Writing) -> None:
        async for _ in writing:
            break

    with slowly(live, 0.02):
        writing = engine.answer(MESSAGES, engine.settings.named("cp"), BABBLE)
        if way == "cancel":
            for number, _ in enumerate(writing):
                if number == 0:
                    writing.cancel()
        elif way == "close the iterator":
            pieces = iter(writing)
            next(pieces)
            pieces.close()
        else:
            asyncio.run(leave(writing))
        began = time.monotonic()
        engine.do(engine.settings.named("cp"), lambda _: None)
        assert time.monotonic() - began < 1.5  # all of it takes two seconds and more
    assert len(writing.text.split()) < 6


def test_the_engine_goes_on_after_work_that_fails(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ChatVecError, match="merge could not answer: "):
        engine.do(engine.settings.named(), lambda _: 1 // 0)
    assert "ZeroDivisionError" in caplog.text  # for whoever has the server
    assert asked(engine, "merge") == ASKED.answer


def test_the_ratio_that_others_set_meanwhile_is_not_the_answers(
    engine: Engine, live: LiveMerge
) -> None:
    assert asked(engine, "merge") == ASKED.answer
    live.set(0)
    assert asked(engine, "merge") == ASKED.answer


def test_closing_ends_what_is_written_and_tells_who_waits(live: LiveMerge) -> None:
    engine = Engine(live, device="cpu", waiting=1)
    cp = engine.settings.named("cp")
    with slowly(live, 0.02):
        written = engine.answer(MESSAGES, cp, BABBLE)
        next(pieces := iter(written))
        waits = engine.answer(MESSAGES, cp, GREEDY)
        with pytest.raises(ChatVecError) as refused:
            engine.answer(MESSAGES, cp, GREEDY)
        assert refused.value.code == BUSY
        assert engine.close(5)
    assert len(list(pieces)) < 4
    with pytest.raises(ChatVecError) as told:
        read(waits)
    with pytest.raises(ChatVecError) as too_late:
        engine.answer(MESSAGES, cp, GREEDY)
    assert told.value.code == too_late.value.code == CLOSED
