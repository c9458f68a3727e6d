"""Who may ask, how much, and what nobody gets."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import openai
import pytest
from live_server import ASKED, MESSAGES, Served, live_world, serving
from openai import OpenAI

from chatvec_method.errors import ChatVecError
from chatvec_method.serving import connections, guard
from chatvec_method.serving.address import bound, check_token, is_loopback
from chatvec_method.serving.engine import Engine

TOKEN = "a-token-that-nobody-guesses"
ROUTES = ["/", "/health", "/v1/models", "/v1/models/cp", "/v1/chat/completions", "/login", "/nope"]
FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:8000",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evil.example#localhost",
    "localhost@evil.example",
    "evil.example@localhost",
    "localhost/evil.example",
    "192.168.0.1",
    "0.0.0.0",
    "[::2]",
    "[",
    "",
]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(live_world(), device="cpu")


@pytest.fixture(scope="module")
def served(engine: Engine) -> Iterator[Served]:
    with serving(engine) as server:
        yield server


@pytest.fixture(scope="module")
def with_token(engine: Engine) -> Iterator[Served]:
    with serving(engine, TOKEN) as server:
        yield server


def get(served: Served, path: str = "/health", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return _exchange(served, "GET", path, named)


def post(served: Served, path: str, body: Any, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return _exchange(served, "POST", path, named, body)


def _exchange(
    served: Served, method: str, path: str, headers: Mapping[str, str], body: Any = None
) -> httpx.Response:
    """Send a request exactly as it is written, which no usual client does with such paths."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host="Host" in headers)
        content = json.dumps(body).encode() if body is not None else b""
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            connection.putheader(name, value)
        connection.endheaders(content)
        response = connection.getresponse()
        return httpx.Response(
            response.status, headers=response.getheaders(), content=response.read()
        )


def answers(served: Served, **headers: str) -> bool:
    """Tell whether the merge answers, as it should."""
    body = {"messages": MESSAGES, "temperature": 0}
    told = post(served, "/v1/chat/completions", body, Content_Type="application/json", **headers)
    return bool(told.json()["choices"][0]["message"]["content"] == ASKED.answer)


# --- without a token: this machine alone, and no page but our own ---


@pytest.mark.parametrize("route", ROUTES)
def test_no_route_is_reached_by_a_foreign_name(served: Served, route: str) -> None:
    for host in FOREIGN_HOSTS:
        for refused in (get(served, route, Host=host), post(served, route, {}, Host=host)):
            assert refused.status_code == 403, host
            assert refused.json()["error"]["type"] == "permission_error"


def test_it_is_reached_by_the_names_of_the_loopback(served: Served) -> None:
    for host in ("127.0.0.1", f"127.0.0.1:{served.port}", "localhost:1", "LOCALHOST", "[::1]:80"):
        assert get(served, Host=host).status_code == 200, host


@pytest.mark.parametrize("route", ROUTES)
def test_no_route_is_reached_from_the_page_of_another_site(served: Served, route: str) -> None:
    own = f"127.0.0.1:{served.port}"
    for origin in ("https://evil.example", "null", "", "http://127.0.0.1:1", f"http://x.{own}"):
        for refused in (
            get(served, route, Host=own, Origin=origin),
            post(served, route, {}, Host=own, Origin=origin),
        ):
            assert refused.status_code == 403, origin
    for site in ("cross-site", "same-site"):
        assert get(served, route, Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors").status_code == 403


def test_its_own_page_and_a_link_to_it_are_served(served: Served) -> None:
    own = f"127.0.0.1:{served.port}"
    assert answers(served, Host=own, Origin=f"http://{own}", Sec_Fetch_Site="same-origin")
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert get(served, **link).status_code == 200


def test_no_other_site_may_read_or_frame_what_comes(served: Served) -> None:
    for response in (get(served), get(served, "/nope"), get(served, Host="evil.example")):
        headers = response.headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert not [name for name in headers if name.startswith("access-control")]


# --- with a token ---


@pytest.mark.parametrize("route", [route for route in ROUTES if route != "/health"])
def test_no_route_is_reached_without_the_token(with_token: Served, route: str) -> None:
    wrong = ["", "Bearer", "Bearer ", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}"]
    for authorization in [*wrong, "Bearer \xe9"]:
        refused = get(with_token, route, Authorization=authorization)
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert TOKEN not in refused.text
    assert post(with_token, route, {"token": TOKEN}).status_code == 401
    assert (
        get(with_token, route, Cookie=f"chatvec_live_{with_token.port}={TOKEN}").status_code == 401
    )


def test_programs_bring_the_token_as_their_api_key(with_token: Served) -> None:
    url = f"{with_token.url}/v1"
    with OpenAI(base_url=url, api_key=TOKEN, max_retries=0) as client:
        assert len(list(client.models.list())) == 3
    with (
        OpenAI(base_url=url, api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()
    assert answers(with_token, Authorization=f"Bearer {TOKEN}", Host="my-machine.example")


def test_browsers_get_a_form_and_for_the_token_a_cookie(with_token: Served) -> None:
    with httpx.Client(base_url=with_token.url, headers={"Accept": "text/html"}) as browser:
        form = browser.get("/")
        assert (form.status_code, "<form" in form.text) == (401, True)
        wrong = browser.post("/login", data={"token": "<script>wrong"})
        assert wrong.status_code == 401
        assert "<script>" not in wrong.text
        right = browser.post("/login", data={"token": TOKEN})
        assert (right.status_code, right.headers["Location"]) == (303, "/")
        (cookie,) = right.headers.get_list("Set-Cookie")
        assert TOKEN not in cookie
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert browser.get("/v1/models").status_code == 200
        foreign = browser.get("/v1/models", headers={"Origin": "https://evil.example"})
        assert foreign.status_code == 403


def test_the_token_behind_an_address_is_taken_once_and_leaves_it(with_token: Served) -> None:
    with httpx.Client(base_url=with_token.url) as browser:
        assert browser.get("/", params={"token": "wrong"}).status_code == 401
        right = browser.get("/", params={"token": TOKEN})
        assert (right.status_code, right.headers["Location"]) == (303, "/")
        assert browser.get("/v1/models").status_code == 200


def test_whether_it_runs_is_told_without_the_token(with_token: Served) -> None:
    assert get(with_token).json() == {"status": "ok", "waiting": 0}


@pytest.mark.parametrize("token", ["", "short", "x" * 15, "token with an é ....", "x" * 16 + "\n"])
def test_a_token_that_can_be_guessed_or_not_be_sent_is_refused(token: str) -> None:
    with pytest.raises(ChatVecError, match="secrets"):
        check_token(token)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org", ""])
def test_no_other_machine_is_let_in_without_a_token(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(ChatVecError, match="there is no token"):
        bound(host, 0, None)


def test_the_loopback_needs_none() -> None:
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert is_loopback(host)


# --- what is asked ---


@pytest.mark.parametrize(
    "route", ["/", "/v1/models", "/v1/models/cp", "/gradio_api/file=", "/nope"]
)
def test_no_path_leads_to_a_file(served: Served, route: str) -> None:
    for way in (
        "/../../../../../etc/passwd",
        "/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/%252e%252e/%252e%252e/etc/passwd",
        "/..\\..\\..\\etc\\passwd",
        "/..%5c..%5cetc%5cpasswd",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/etc/passwd",
        "/etc/passwd%00.png",
    ):
        response = get(served, route + way)
        assert response.status_code in (400, 404), way
        assert "root:" not in response.text


def test_a_name_that_is_markup_comes_back_as_data(served: Served) -> None:
    markup = "<script>alert(1)</script>"
    body = {"model": markup, "messages": [{"role": "user", "content": markup}]}
    json_type = "application/json"
    for response in (
        post(served, "/v1/chat/completions", body, Content_Type=json_type),
        get(served, "/v1/models/%3Cscript%3Ealert(1)%3C/script%3E"),
        get(served, "/%3Cscript%3Ealert(1)%3C/script%3E", Accept="text/html"),
        post(served, "/v1/chat/completions", {**body, "model": "cp"}, Content_Type=json_type),
    ):
        assert response.headers["Content-Type"] == json_type
        assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_failure_tells_the_client_nothing_of_the_code(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret of the code")

    monkeypatch.setattr(served.engine.settings, "named", fail)
    response = get(served, "/v1/models")
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert "a secret of the code" in caplog.text  # for whoever has the server


@pytest.mark.parametrize("told", [True, False])
def test_a_request_of_100_mb_is_refused_and_not_kept(served: Served, told: bool) -> None:
    piece = b" " * 1_000_000
    headers = {"Content-Length": str(100 * len(piece))} if told else {}
    refused = httpx.post(
        f"{served.url}/v1/chat/completions",
        content=(piece for _ in range(100)),
        headers=headers,
        timeout=60,
    )
    assert refused.status_code == 413
    assert refused.json()["error"]["code"] == "too_large"
    assert answers(served)


def test_a_request_that_does_not_come_is_not_waited_for(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.2)
    response = get(served, "/v1/models", Content_Length="10")
    assert response.status_code == 408


def test_a_connection_that_stops_in_the_middle_of_a_request_is_closed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SILENT_SECONDS", 0.3)
    head = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n".encode()
    for before in (b"", head + b"\r\n"):
        with socket.create_connection(("127.0.0.1", served.port), timeout=3) as connection:
            if before:
                connection.sendall(before)
                answered = http.client.HTTPResponse(connection)
                answered.begin()
                assert b'"ok"' in answered.read()
            connection.sendall(head)
            assert connection.recv(1000) == b""


def test_a_websocket_is_not_opened(served: Served) -> None:
    response = get(
        served, "/", Upgrade="websocket", Connection="Upgrade", Sec_WebSocket_Version="13"
    )
    assert response.status_code == 404


def test_a_thousand_connections_leave_room_for_a_request(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SILENT_SECONDS", 1.0)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))  # ours are in this process
    opened = []
    with contextlib.ExitStack() as all_of_them:
        for _ in range(1000):
            opened.append(socket.create_connection(("127.0.0.1", served.port), timeout=30))
            all_of_them.enter_context(opened[-1])
        refused = opened[-1].recv(1000).decode()
        assert refused.startswith("HTTP/1.1 429 ")
        assert "too many connections" in refused
        assert opened[0].recv(1000) == b""  # it has said nothing for too long
        began = time.monotonic()
        while True:
            with contextlib.suppress(KeyError):  # there are still too many
                if answers(served):
                    break
            assert time.monotonic() - began < 10
    assert answers(served)
