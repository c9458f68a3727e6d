r"""Regular expressions that strangers wrote, tried where they can be ended.

`(\w|\w)*x` takes longer than anybody waits, and within a process nothing can stop it. So another
process tries each on the names that it is for, with little time and memory.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import cache

SECONDS = 1
"""Processor time that all of them may take together; usual ones take a hundredth of that."""
PATIENCE_SECONDS = 60.0
"""So long we wait on a machine that has much else to do."""
MOST_BYTES = 1 << 30
"""Of memory that they may take."""
PLAIN = re.compile(r"[\w.-]*")
USUAL_NAMES = ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj", "lm_head")
"""Where nobody knows a model's own."""
NO_EXPRESSION = 3
"""The exit status where one is none."""


def problem_of(patterns: Iterable[str], names: Iterable[str]) -> str:
    """Return what is wrong with one of some regular expressions; empty if nothing is.

    Args:
        patterns: The expressions.
        names: Of the modules or tensors that they will be tried on; of names that differ in numbers
            alone, one counts.
    """
    patterns = [pattern for pattern in patterns if not PLAIN.fullmatch(pattern)]
    if not patterns:
        return ""
    alike = {re.sub(r"\d+", "0", name) for name in (*names, *USUAL_NAMES)}
    return _problem_of(tuple(patterns), frozenset(alike))


@cache
def _problem_of(patterns: tuple[str, ...], names: frozenset[str]) -> str:
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import try_all; try_all()"
    try:
        status = subprocess.run(
            [sys.executable, "-I", "-c", code],
            input=json.dumps([patterns, sorted(names)]),
            encoding="ascii",
            capture_output=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        status = -1
    if status == NO_EXPRESSION:
        return "is no regular expression"
    return f"takes more than {SECONDS} second or 1 GB on the names of a model" if status else ""


def try_all() -> None:
    """Try the expressions that come from the standard input, as peft does; in the other process."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    patterns, names = json.load(sys.stdin)
    for pattern in patterns:
        try:
            ends = re.compile(rf"(.*\.)?({pattern})$")
            within = re.compile(rf"(^|.*\.){pattern}($|\..*)")
            whole = re.compile(pattern)
        except (re.error, OverflowError, RecursionError):
            sys.exit(NO_EXPRESSION)
        for name in names:
            whole.fullmatch(name)
            ends.match(name)
            within.match(name)
