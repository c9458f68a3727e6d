"""Chat templates rendered within bounds of time, memory and size.

A template is a program that comes with a model. The sandbox keeps it from the machine's files, but
not from running for ever, nor from doubling a text until the memory is full, and within a process
nothing can stop it there. So another process renders, by transformers' own function. It starts
beside other work, answers in a fraction of a millisecond, and is ended where it takes too long.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import psutil
from jinja2 import TemplateSyntaxError

SECONDS = 0.8
"""Processor time that a template may take; a usual one takes a thousandth of that."""
PATIENCE_SECONDS = 60.0
"""So long we wait on a machine that has much else to do: for the process to start, or to answer."""
MOST_BYTES = 200_000_000
"""Of memory that a template may take."""
MOST_CHARACTERS = 1_000_000
"""Of a template, and of what it makes of a conversation."""
WATCH_SECONDS = 0.02
IDLE_SECONDS = 20.0
"""After so long without a question the process ends; the next question starts another."""
READY = "ready"


class TemplateError(Exception):
    """Why a template cannot be rendered."""


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    *,
    add_generation_prompt: bool = True,
) -> str:
    """Return a conversation in a chat template.

    Args:
        template: The template, in Jinja.
        messages: Each with a `role` and a `content`, and nothing but plain data.
        settings: What the template may use besides: `bos_token`, `eos_token`, ...
        add_generation_prompt: Whether the beginning of an answer is added.

    Raises:
        TemplateError: It is broken, refuses the conversation, writes more than MOST_CHARACTERS,
            or takes more time or memory than it may.
    """
    if len(template) > MOST_CHARACTERS:
        raise TemplateError(f"it has {len(template)} characters")
    settings = {**settings, "add_generation_prompt": add_generation_prompt}
    text, problem = _renderer(os.getpid()).answer(template, list(messages), settings)
    if problem:
        raise TemplateError(problem)
    return text


def warm_up() -> None:
    """Start the process, so that it is there once it is needed."""
    _renderer(os.getpid()).start()


@cache
def _renderer(process: int) -> _Renderer:
    """Return this process's; one that was forked needs another."""
    return _Renderer()


class _EndedError(Exception):
    """The process has ended, by itself or because nobody asked it for long."""


class _Renderer:
    """The process that renders, seen from this one; any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._ready = False
        self._refused: dict[str, str] = {}
        """Templates that took too much once, and why they are not tried again."""
        atexit.register(self._end)

    def start(self) -> None:
        with self._lock:
            self._running()

    def answer(self, template: str, *rest: Any) -> tuple[str, str]:
        """Return what a template writes, and its problem; the one or the other is empty."""
        with self._lock:
            if template in self._refused:
                return "", self._refused[template]
            question = json.dumps([template, *rest])
            for _ in range(2):  # it may just have ended, as nobody asked
                try:
                    text, problem = json.loads(self._asked(question))
                    return text, problem
                except _EndedError:
                    self._end()
                except TimeoutError as refusal:
                    self._end()
                    self._refused[template] = str(refusal)
                    return "", str(refusal)
            return "", "the process that renders it ends"

    def _asked(self, question: str) -> str:
        process = self._running()
        if not self._ready:
            self._next_line(process, limited=False)
            self._ready = True
        assert process.stdin is not None
        try:
            process.stdin.write(f"{question}\n")
            process.stdin.flush()
        except OSError as error:
            raise _EndedError from error
        return self._next_line(process, limited=True)

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            # With this one's libraries, and none of the current folder besides.
            code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="ascii",
            )
            self._ready = False
            self._lines = queue.SimpleQueue()
            threading.Thread(
                target=_pass_on, args=(self._process.stdout, self._lines), daemon=True
            ).start()
        return self._process

    def _next_line(self, process: subprocess.Popen[str], *, limited: bool) -> str:
        """Return what the process writes next, watching what it takes.

        Raises:
            TimeoutError: It takes too much, with a sentence that says of what.
            _EndedError: It has ended.
        """
        before, begun = _processor_seconds(process), time.monotonic()
        while True:
            try:
                line = self._lines.get(timeout=WATCH_SECONDS)
            except queue.Empty:
                waited = time.monotonic() - begun
                taken = _processor_seconds(process) - before
                if waited > PATIENCE_SECONDS or (limited and taken > SECONDS):
                    raise TimeoutError(f"it does not end within {SECONDS:g} seconds") from None
                if limited and _memory(process) > 2 * MOST_BYTES:
                    raise TimeoutError(_too_much_memory()) from None
                continue
            if line is None:
                raise _EndedError
            return line

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            with contextlib.suppress(OSError):
                process.communicate()


def _pass_on(stream: Iterable[str], lines: queue.SimpleQueue[str | None]) -> None:
    with contextlib.suppress(OSError, ValueError):  # closed when the process is ended
        for line in stream:
            lines.put(line)
    lines.put(None)


def _processor_seconds(process: subprocess.Popen[str]) -> float:
    try:
        times = psutil.Process(process.pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _memory(process: subprocess.Popen[str]) -> int:
    try:
        return int(psutil.Process(process.pid).memory_info().rss)
    except psutil.Error:
        return 0


def _too_much_memory() -> str:
    return f"it takes more than {MOST_BYTES // 10**6} MB of memory"


# --- In the other process --------------------------------------------------------------------


def serve() -> None:
    """Answer questions, a line each, until there are no more or none came for long."""
    from transformers.utils.chat_template_utils import render_jinja_template

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    _limit_memory()
    questions: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_pass_on, args=(sys.stdin, questions), daemon=True).start()
    print(READY, flush=True)
    with contextlib.suppress(queue.Empty):
        while question := questions.get(timeout=IDLE_SECONDS):
            template, messages, settings = json.loads(question)
            print(json.dumps(_rendered(render_jinja_template, template, messages, settings)))
            sys.stdout.flush()


def _rendered(
    function: Any, template: str, messages: list[Any], settings: dict[str, Any]
) -> tuple[str, str]:
    try:
        text: str = function([messages], chat_template=template, **settings)[0][0]
    except MemoryError:
        return "", _too_much_memory()
    except TemplateSyntaxError as error:
        return "", f"line {error.lineno}: {error.message or 'it is no Jinja'}"
    except Exception as error:  # a template is a program
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return "", lines[0].strip().rstrip(".") or type(error).__name__
    if len(text) > MOST_CHARACTERS:
        return "", f"it writes {len(text)} characters"
    if any("\ud800" <= character <= "\udfff" for character in text):
        return "", "it writes half of a character"
    return text, ""


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):  # not on every system
        import resource

        most = psutil.Process().memory_info().vms + MOST_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
