"""The world's merge as an engine, and that engine behind a real server on this machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import ASGIApp

import chatvec_method
from chatvec_method import LiveMerge
from chatvec_method.demo import world_recipe
from chatvec_method.serving.address import address_of, bound
from chatvec_method.serving.app import api
from chatvec_method.serving.engine import Engine
from chatvec_method.serving.guard import Guard
from chatvec_method.serving.running import server_of
from chatvec_method.talk.speaker import Sampling
from examples.world import requests

ASKED = requests.first(["pen", "door", "shoe", "ship"]).in_b()
MESSAGES = [{"role": "user", "content": ASKED.request}]
BABBLE = Sampling(temperature=2.0, seed=3)
"""With it, cp goes on for long."""


@dataclass(frozen=True)
class Served:
    """A server, and what answers behind it."""

    url: str
    engine: Engine

    @property
    def port(self) -> int:
        """Where it is, at 127.0.0.1."""
        return int(self.url.rpartition(":")[2])


def live_world() -> LiveMerge:
    """Load the world's merge."""
    return chatvec_method.live(world_recipe(), device="cpu")


@contextmanager
def serving(
    engine: Engine, token: str | None = None, app: ASGIApp | None = None
) -> Iterator[Served]:
    """Serve an engine as the command does, in a thread; the engine is closed at the end.

    Args:
        engine: Answers.
        token: What everybody must bring.
        app: What is served; by default the API alone.
    """
    ready = threading.Event()
    place = bound("127.0.0.1", 0, token)
    url = address_of(place)
    server = server_of(Guard(app or api(engine), token), engine, ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
    thread.start()
    assert ready.wait(30)
    try:
        yield Served(url, engine)
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def slowly(live: LiveMerge, seconds: float) -> Iterator[None]:
    """Let every token take so long."""
    hook = live.model.register_forward_pre_hook(lambda *_: time.sleep(seconds))
    try:
        yield
    finally:
        hook.remove()
