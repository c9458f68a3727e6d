"""From a new ratio to the first new token, and many requests at once, through `chatvec live`.

The command runs as it is started by hand, and is asked over HTTP by another process, this one. Each
request that counts is for a ratio other than the one before; beside it stands the same request at
the same ratio again, whose difference is what the ratio takes. Then many requests of mixed ratios
come at once, each of whose answers must be the one that it got alone; beside that stand the same
requests one after the other, in the order in which nothing is gained.

With models made for it, the same first token is had as people get it without: the merge is written
to disk by `chatvec merge`, loaded by another program, and asked.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import checkpoints
import click
import httpx
import yaml
from rich.console import Console
from rich.table import Table

RATIOS = [0.7, 0.3, 1.1, 0.55, 0.9]
"""None has few significant bits, so that all sums are formed in float64."""
WORLD = "늠숭란 몬론멀 누출 만흥 브시 보참 층호 미린 보을 ?"
"""A request in the world's language B: what is the first of four words?"""
LOAD = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto", device_map=sys.argv[2])
ids = tokenizer(sys.argv[3], return_tensors="pt").to(model.device)
model.generate(**ids, max_new_tokens=1)
"""


@contextmanager
def served(recipe: Path | None, device: str) -> Iterator[httpx.Client]:
    """Run the command, and yield what asks it."""
    command = [sys.executable, "-m", "chatvec_method", "live", *([str(recipe)] if recipe else [])]
    process = subprocess.Popen(
        [*command, "--port", "0", "--device", device], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        address = None
        while address is None:
            line = process.stdout.readline()
            assert line, "the server has ended"
            address = re.search(r"http://[\w.:]+", line)
        with httpx.Client(base_url=address[0], timeout=600) as client:
            yield client
    finally:
        process.terminate()
        process.wait()


def body(request: str, ratio: float, tokens: int) -> dict[str, Any]:
    """Return a request."""
    messages = [{"role": "user", "content": request}]
    return {"messages": messages, "ratio": ratio, "temperature": 0, "max_tokens": tokens}


def first_token(client: httpx.Client, request: str, ratio: float) -> float:
    """Return the seconds from a request to the first piece of its answer."""
    began = time.perf_counter()
    asked = {**body(request, ratio, 1), "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=asked) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                (choice,) = json.loads(line.removeprefix("data: "))["choices"]
                if choice["delta"].get("content") or choice["finish_reason"]:
                    return time.perf_counter() - began
    raise AssertionError("no answer came")


def answer(client: httpx.Client, asked: dict[str, Any]) -> str:
    """Return a whole answer."""
    response = client.post("/v1/chat/completions", json=asked)
    response.raise_for_status()
    return str(response.json()["choices"][0]["message"]["content"])


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return what something takes, and what comes of it."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def merge_and_load(recipe: Path, out: Path, request: str, device: str, ratio: float) -> float:
    """Return what the first token takes by way of the disk."""
    shutil.rmtree(out, ignore_errors=True)
    merge = [sys.executable, "-m", "chatvec_method", "merge", recipe, out, "--quiet"]

    def work() -> None:
        subprocess.run([*merge, "--ratio", str(ratio)], check=True, capture_output=True)
        load = [sys.executable, "-c", LOAD, out, device, request]
        subprocess.run(load, check=True, capture_output=True)

    return timed(work)[0]


@click.command()
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--shape", type=click.Choice(list(checkpoints.SHAPES)), help="Of models to be made.")
@click.option("--device", default="cpu", show_default=True, help="As for `chatvec live`.")
@click.option("--rounds", default=20, show_default=True, help="New ratios that count.")
@click.option("--mixed", default=50, show_default=True, help="Requests of several ratios at once.")
def main(folder: Path | None, shape: str | None, device: str, rounds: int, mixed: int) -> None:
    """Measure in the world; with --shape on models in FOLDER, which are made if they are not there.

    Without FOLDER they are made in a temporary one; 1.1b takes 6.6 GB, and its merge 2.2 GB more.
    """
    with tempfile.TemporaryDirectory() as temporary:
        recipe = None
        if shape is not None:
            made = checkpoints.make(folder or Path(temporary), shape, None)
            settings = yaml.safe_load(made.read_text(encoding="utf-8"))
            settings["chat_template"] = "{% for each in messages %}{{ each.content }}{% endfor %}"
            recipe = Path(temporary) / "recipe.yaml"
            recipe.write_text(yaml.safe_dump(settings), encoding="utf-8")
        _measure(recipe, Path(temporary) / "out", device, rounds, mixed)


def _measure(recipe: Path | None, out: Path, device: str, rounds: int, count: int) -> None:
    request = WORLD if recipe is None else "one two three four"
    ratios = itertools.cycle(RATIOS)
    took: dict[str, list[float]] = {}
    with served(recipe, device) as client:
        for _ in range(2):
            first_token(client, request, next(ratios))
        for _ in range(rounds):
            ratio = next(ratios)
            new = first_token(client, request, ratio)
            again = first_token(client, request, ratio)
            took.setdefault("a new ratio, to its first token", []).append(new)
            took.setdefault("the same ratio again, to its first token", []).append(again)
        mixed = [body(request, RATIOS[i % len(RATIOS)], 4) for i in range(count)]
        alone, answers = timed(lambda: [answer(client, each) for each in mixed])
        with ThreadPoolExecutor(count) as threads:
            at_once, same = timed(
                lambda: list(threads.map(lambda each: answer(client, each), mixed))
            )
        assert same == answers, "answers are mixed up"
        took[f"{count} requests of {len(RATIOS)} ratios, one after the other"] = [alone]
        took["the same at once"] = [at_once]
    if recipe is not None:
        took["a new ratio by way of the disk, to its first token"] = [
            merge_and_load(recipe, out, request, device, RATIOS[0])
        ]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    table = Table(title=f"On {device}, {cores} cores; milliseconds", title_justify="left")
    for name in ("", "median", "from", "to"):
        table.add_column(name, justify="right" if name else "left")
    for name, seconds in took.items():
        numbers = (statistics.median(seconds), min(seconds), max(seconds))
        table.add_row(name, *(f"{1000 * number:.0f}" for number in numbers))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
