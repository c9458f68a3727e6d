"""A server as a target, and as a judge: any that speaks OpenAI's chat completions."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from openai_server import Loopback, Messages, loopback

from chatvec_method import ChatVecError, Results, evaluate
from chatvec_method.evaluation import questions
from chatvec_method.evaluation import server as server_room
from chatvec_method.evaluation.answers import FILE
from chatvec_method.evaluation.asked import asked_of
from chatvec_method.evaluation.judge import OPEN, better_in, score_in
from chatvec_method.evaluation.scores import PASSED, Score
from chatvec_method.evaluation.server import Server, server_at

LIMIT = 3
"""Prompts an axis."""
KEY = "sk-never-to-be-written"


def good(messages: Messages) -> tuple[str, str]:
    """Answer as a prompt's own example of a good answer does."""
    return _example(messages).passing[0], "stop"


def bad(messages: Messages) -> tuple[str, str]:
    """Answer as a prompt's own example of a bad answer does, and do not stop."""
    return _example(messages).failing[0], "length"


def _example(messages: Messages) -> Any:
    return next(p for p in asked_of("ko") if list(p.messages) == messages)


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(server_room.KEY, raising=False)


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr(server_room.time, "sleep", seconds.append)
    return seconds


@pytest.fixture
def student() -> Iterator[Loopback]:
    with loopback(good) as server:
        yield server


def score(results: Results, axis: str, target: str | None = None) -> Score:
    (result,) = (each for each in results if target in (None, each.point.target))
    return result.score(axis)


# --------------------------------------------------------------------------------------- as targets


def test_good_answers_have_full_marks_on_every_axis(student: Loopback, tmp_path: Path) -> None:
    results = evaluate(student.url, language="ko", limit=LIMIT, state=tmp_path)

    for axis in (*PASSED, "ends"):
        assert score(results, axis).value == 1, axis
        assert score(results, axis).interval == (1, 1), axis
    assert score(results, "follows").prompts == LIMIT
    assert score(results, "language").value == 1
    assert score(results, "loops").value == 0


def test_bad_answers_have_none(tmp_path: Path) -> None:
    with loopback(bad) as server:
        results = evaluate(server.url, language="ko", limit=LIMIT, state=tmp_path)
    for axis in (*PASSED, "ends"):
        assert score(results, axis).value == 0, axis


def test_requests_are_greedy_and_have_the_whole_conversation(
    student: Loopback, tmp_path: Path
) -> None:
    evaluate(student.url, language="ko", limit=LIMIT, state=tmp_path)
    put = [request["messages"] for request in student.requests]
    assert sorted(map(json.dumps, put)) == sorted(
        json.dumps(list(prompt.messages)) for prompt in asked_of("ko", LIMIT)
    )
    assert any(len(messages) > 1 for messages in put)
    assert {request["temperature"] for request in student.requests} == {0}
    assert {request["model"] for request in student.requests} == {"small"}


def test_a_server_that_answered_is_not_asked_again(student: Loopback, tmp_path: Path) -> None:
    first = evaluate(student.url, language="ko", limit=LIMIT, state=tmp_path)
    asked = len(student.requests)
    again = evaluate(student.url, language="ko", limit=LIMIT, state=tmp_path)
    assert len(student.requests) == asked == len(asked_of("ko", LIMIT))
    assert again.results[0].scores == first.results[0].scores

    more = evaluate(student.url, language="ko", limit=LIMIT + 1, state=tmp_path)
    new = {p.id for p in asked_of("ko", LIMIT + 1)} - {p.id for p in asked_of("ko", LIMIT)}
    assert len(student.requests) - asked == len(new)
    assert score(more, "follows").prompts == LIMIT + 1


@pytest.mark.parametrize("response", ["[1]", "null", '{"text": "x"}', '["x", 1]', "3"])
def test_what_is_kept_in_another_shape_is_asked_anew(
    response: str, student: Loopback, tmp_path: Path
) -> None:
    first = evaluate(student.url, language="ko", limit=1, state=tmp_path)
    with closing(sqlite3.connect(tmp_path / FILE)) as state, state:
        state.execute("UPDATE answers SET response = ?", [response])
    again = evaluate(student.url, language="ko", limit=1, state=tmp_path)
    assert list(again.answers()) == list(first.answers())
    assert len(student.requests) == 2 * len(asked_of("ko", 1))


def test_text_is_not_read_by_a_server(student: Loopback, tmp_path: Path) -> None:
    results = evaluate(student.url, language="ko", limit=LIMIT, state=tmp_path)
    with pytest.raises(KeyError):
        score(results, "reads")


def test_a_busy_server_is_asked_again(
    student: Loopback, tmp_path: Path, slept: list[float]
) -> None:
    student.failing += [429, 503]
    evaluate(student.url, language="ko", limit=1, state=tmp_path)
    assert len(student.requests) == len(asked_of("ko", 1)) + 2
    assert slept == [1, 1] or slept == [1, 2]


@pytest.mark.parametrize(
    ("status", "fix"), [(400, "Look at the model's name"), (401, "Set OPENAI_API_KEY")]
)
def test_a_refusal_is_told_in_one_line_and_what_was_answered_is_kept(
    student: Loopback, tmp_path: Path, status: int, fix: str
) -> None:
    student.failing += [status]
    with pytest.raises(ChatVecError, match=rf"refuses \(HTTP {status}\): not now\. {fix}"):
        evaluate(student.url, language="ko", limit=1, state=tmp_path)
    before = len(student.requests)
    evaluate(student.url, language="ko", limit=1, state=tmp_path)
    assert len(student.requests) <= before + len(asked_of("ko", 1))


def test_a_server_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ChatVecError, match=r"models cannot be reached .* Start the server"):
        evaluate("http://127.0.0.1:9/v1", language="ko", limit=1, state=tmp_path)


def test_of_several_models_one_is_named_behind_the_address(tmp_path: Path) -> None:
    with loopback(good, models=("one", "two")) as server:
        with pytest.raises(
            ChatVecError, match=r"has 2 models \(one, two\)\. Write which: `http.*#"
        ):
            evaluate(server.url, language="ko", limit=1, state=tmp_path)
        evaluate(f"{server.url}#two", language="ko", limit=1, state=tmp_path)
        assert {request["model"] for request in server.requests} == {"two"}


def test_a_task_of_log_likelihoods_is_refused_before_anything_is_asked(
    student: Loopback, tmp_path: Path
) -> None:
    tasks = "examples/world/tasks/text_in_b.yaml"
    with pytest.raises(ChatVecError, match="world_text_in_b asks for log-likelihoods"):
        evaluate(student.url, language="ko", tasks=tasks, limit=1, state=tmp_path)
    assert student.requests == []


# --------------------------------------------------------------------------------------- as a judge


def partial(messages: Messages) -> tuple[str, str]:
    """Give 9 to answers that end with a full stop and 3 to others; call the longer one better."""
    (message,) = messages
    parts = re.findall(
        r"\[Answer(?: [AB])?\]\n(.*?)\n\n?(?=\[Answer B\]|\[End\])", message["content"], re.S
    )
    if len(parts) == 1:
        return f"It is so.\nScore: {9 if parts[0].endswith('.') else 3}", "stop"
    first, second = map(len, parts)
    return f"Better: {'A' if first > second else 'B' if second > first else 'tie'}", "stop"


def judged(student: Loopback, other: Loopback, judge: Loopback, state: Path) -> Results:
    return evaluate(
        [student.url, other.url],
        language="ko",
        limit=LIMIT,
        judge=judge.url,
        judge_against=other.url,
        state=state,
    )


def test_a_judge_gives_marks_and_says_which_is_better(student: Loopback, tmp_path: Path) -> None:
    with loopback(partial) as judge, loopback(lambda _: ("네", "stop")) as laconic:
        results = judged(student, laconic, judge, tmp_path)
        asked = len(judge.requests)
        judged(student, laconic, judge, tmp_path)
        assert len(judge.requests) == asked

    marks = score(results, "judge", student.url)
    open_prompts = [prompt for prompt in asked_of("ko", LIMIT) if prompt.axis in OPEN]
    dots = sum(prompt.passing[0].endswith(".") for prompt in open_prompts)
    expected = (9 * dots + 3 * (len(open_prompts) - dots)) / len(open_prompts)
    assert marks.value == pytest.approx(expected)
    assert (marks.source, marks.unit, marks.prompts) == ("judge", "mark", len(open_prompts))
    better = score(results, f"judge: better than {laconic.url}", student.url)
    assert better.value > 0.9
    with pytest.raises(KeyError):
        score(results, f"judge: better than {laconic.url}", laconic.url)


def test_who_is_better_only_in_one_order_ties(student: Loopback, tmp_path: Path) -> None:
    def first_is_better(messages: Messages) -> tuple[str, str]:
        return ("Better: A" if "[Answer A]" in messages[0]["content"] else "Score: 5"), "stop"

    with loopback(first_is_better) as judge, loopback(lambda _: ("네", "stop")) as other:
        results = judged(student, other, judge, tmp_path)
    assert score(results, f"judge: better than {other.url}", student.url).value == 0.5


@pytest.mark.parametrize(
    ("against", "named"), [("cp", "0"), ("chat", "examples/world/models/chat")]
)
def test_merges_are_compared_with_cp_or_chat(
    against: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(questions, "LONGEST_ANSWER", 4)
    with loopback(partial) as judge:
        results = evaluate(
            "recipes/world.yaml",
            ratio=0.5,
            language="ko",
            limit=1,
            judge=judge.url,
            judge_against=against,
            state=tmp_path,
            device="cpu",
        )
    compared = [
        each.point.label for each in results if any("better than" in s.axis for s in each.scores)
    ]
    assert "0.5" in compared
    assert named not in compared
    (merge,) = (each for each in results if each.point.ratio == 0.5)
    assert merge.score(f"judge: better than {named}").source == "judge"


def test_the_key_is_sent_and_never_written(
    student: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(server_room.KEY, KEY)
    with loopback(partial) as judge:
        results = evaluate(student.url, language="ko", limit=1, judge=judge.url, state=tmp_path)
        assert judge.keys == student.keys == {f"Bearer {KEY}"}
    written = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert written
    assert not any(KEY.encode() in each for each in written)
    assert KEY not in json.dumps(results.as_data())


@pytest.mark.parametrize(
    ("said", "mark"),
    [
        ("Good.\nScore: 8", 8),
        ("**Score:** 7.5", 7.5),
        ("score: 3 ... no.\nScore: 10", 10),
        ("Score (1-10): 8", 8),
        ("Overall score out of 10: 8", 8),
        ("점수: 8점", 8),
        ("スコア：８／１０", 8),
        ("評分：9", 9),
        ("It names 3 of 5 cities.\nRating: [[7]]", 7),
        ("Two errors in 2024. 6/10", 6),
        ("Good.\n\n**8**", 8),
        ("It lists 5 items and 10 words.", None),
        ("Score: 0", None),
        ("Score: 11", None),
        ("I cannot say.", None),
    ],
)
def test_the_mark_is_what_a_judge_says_last(said: str, mark: float | None) -> None:
    assert score_in(said) == mark


@pytest.mark.parametrize(
    ("said", "better"),
    [
        ("Better: A", "A"),
        ("**Better: B**", "B"),
        ("Better: tie", "TIE"),
        ("Both.", None),
        ("Better: a tie", "TIE"),
        ("B is better: a clear answer.\nBetter: Answer B", "B"),
        ("[[C]]", "TIE"),
        ("Better: A and B", "TIE"),
        ("A is better: it is a fine one", None),
    ],
)
def test_which_is_better_is_what_a_judge_says_last(said: str, better: str | None) -> None:
    assert better_in(said) == better


def endless(to: Any) -> None:
    while True:
        to.write(b" " * 65536)


def dripping(to: Any) -> None:
    while True:
        to.write(b" ")
        threading.Event().wait(0.05)


def nested(to: Any) -> None:
    to.write(b"[" * 200_000)


def half_of_a_character(to: Any) -> None:
    message = {"content": "\ud800"}
    said = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]})
    to.write(said.encode())


@contextmanager
def answering(write: Callable[[Any], None] | None) -> Iterator[tuple[str, list[str | None]]]:
    """Serve what a stranger's server may answer; without anything to write, it sends elsewhere.

    Yields its address, and the keys that came to the other address.
    """
    keys: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if self.path.startswith("/elsewhere"):
                keys.append(self.headers.get("Authorization"))
            self.send_response(200 if write else 302)
            self.send_header("Location", "/elsewhere") if write is None else None
            self.end_headers()
            if write is not None:
                with suppress(OSError):  # nobody reads on
                    write(self.wfile)

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Keep the tests' output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{http.server_port}/v1", keys
        finally:
            http.shutdown()


@pytest.mark.parametrize(
    ("write", "says"),
    [(endless, "more than 8 MB"), (dripping, "come to an end within 1 s"), (nested, "something")],
)
def test_an_answer_without_an_end_is_given_up(
    write: Callable[[Any], None], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_room, "SECONDS", 1)
    with answering(write) as (url, _), pytest.raises(ChatVecError, match=says):
        Server(url, "any").write([], longest=1)


def test_the_key_does_not_go_where_a_server_sends_on_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(server_room.KEY, KEY)
    with answering(None) as (url, keys):
        for ask in (lambda: server_at(url), lambda: Server(url, "any").write([], longest=1)):
            with pytest.raises(ChatVecError, match="sends on to /elsewhere"):
                ask()
        assert keys == []


def test_what_cannot_be_written_is_replaced() -> None:
    with answering(half_of_a_character) as (url, _):
        assert Server(url, "any").write([], longest=1) == ("?", True)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"message": {"content": None}, "finish_reason": "tool_calls"}, ("", False)),
        ({"message": {"content": None, "reasoning_content": "Hm"}}, ("", True)),
        ({"message": {"role": "assistant"}, "finish_reason": "eos_token"}, ("", True)),
        ({"message": {"content": [{"type": "text", "text": "네."}]}}, ("네.", True)),
        ({"message": {"content": "네"}, "finish_reason": "length"}, ("네", False)),
        ({"message": "네"}, None),
    ],
)
def test_answers_of_every_shape_are_read(
    choice: dict[str, Any], expected: tuple[str, bool] | None
) -> None:
    said = json.dumps({"choices": [choice]}).encode()
    with answering(lambda to: to.write(said)) as (url, _):
        server = Server(url, "any")
        if expected is None:
            with pytest.raises(ChatVecError, match="no OpenAI-compatible server"):
                server.write([], longest=1)
        else:
            assert server.write([], longest=1) == expected


def test_an_error_in_an_answer_is_passed_on() -> None:
    said = json.dumps({"error": {"message": "the model is loading"}}).encode()
    with (
        answering(lambda to: to.write(said)) as (url, _),
        pytest.raises(ChatVecError, match="answers with an error: the model is loading"),
    ):
        Server(url, "any").write([], longest=1)


def test_a_file_is_no_server() -> None:
    with pytest.raises(ChatVecError, match="no address of a server"):
        server_at("file:///etc/passwd")
