"""Killed, interrupted, out of room: OUT is as it was or complete, and the next run cleans up.

Merges run in processes of their own, forked from one that has imported everything: this file, run
as a program.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import CHAT, ROOT, Recipe, plain_recipe
from safetensors import SafetensorError
from surveying import surveyed
from transformers.utils.chat_template_utils import render_jinja_template

import chatvec_method.merging.merge as merge_module
import chatvec_method.weights.staging as staging
from chatvec_method import rendering
from chatvec_method.errors import ChatVecError
from chatvec_method.merging.merge import merge
from chatvec_method.progress import Progress

KILLS = 20
SHARDS = {"out_shard_size": 8_000}
Files = dict[str, bytes]


def contents(folder: Path) -> Files:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- in the processes that merge --------------------------------------------------------------


IMPORTED_WHERE_USED = (
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "matplotlib.patches",
    "transformers.models.llama.modeling_llama",
)
"""What each of the many merges would import anew, in a process of its own."""


def serve() -> None:
    """Fork a process for each merge that is asked for, and say how it ended."""
    for module in IMPORTED_WHERE_USED:
        importlib.import_module(module)
    render_in_this_process()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                run(json.loads(line))
            except BaseException as error:
                say(failed=f"{type(error).__name__}: {error}")
            os._exit(0)
        say(pid=pid)
        say(status=os.waitpid(pid, 0)[1])


def render_in_this_process() -> None:
    """Have templates rendered as the process does that each merge starts for them.

    A merge of a toy waits for that process most of its time, in which nothing is written; so most
    moments to kill it would be the same.
    """
    rendering._Renderer.start = lambda _: None
    rendering._Renderer.answer = lambda _, *question: rendering._rendered(
        render_jinja_template, *question
    )


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def run(job: dict[str, Any]) -> None:
    out = Path(job["out"])
    looked = surveyed(job["recipe"], **SHARDS, **job.get("options", {}))
    # As in a terminal, whatever the tests run in.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(
            number, signal.SIG_IGN if number in job.get("ignored", []) else signal.SIG_DFL
        )
    if "largest_file" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["largest_file"],) * 2)
    if "disk" in job:
        mount(out.parent, job["disk"])
    if "immovable" in job:
        Path.rename = busy
    if "killed_before" in job:
        kill_before(*job["killed_before"], ours=out.parent)

    def on_progress(progress: Progress) -> None:
        if progress.phase == job.get("phase") and progress.done == progress.total:
            if "signal" in job:
                os.kill(os.getpid(), job["signal"])
            elif "filler" in job:
                fill(Path(job["filler"]))
        elif progress.phase == "merge" and progress.done > 0 and job.get("no_room"):
            raise SafetensorError("Error: I/O error: No space left on device (os error 28)")

    say(begins=True)
    try:
        result = merge(looked, out, overwrite=job.get("overwrite", False), on_progress=on_progress)
        say(removed_leftover=result.removed_leftover, restored_old=result.restored_old)
    except ChatVecError as error:
        say(message=error.message)
    finally:
        say(left=names(out.parent) if out.parent.exists() else None)


def kill_before(function: str, count: int, ours: Path) -> None:
    """Let this process be killed just before the `count`-th call of a function on paths of ours."""
    owner: Any = Path if hasattr(Path, function) else staging.shutil
    original = getattr(owner, function)
    calls = 0

    def counting(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += not options and str(arguments[0]).startswith(str(ours))
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(owner, function, counting)


def busy(_: Path, __: Path) -> None:
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def mount(folder: Path, size: int) -> None:
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    subprocess.run(command, check=True)


def fill(file: Path) -> None:
    """Take all the room that is left on a disk."""
    with file.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            pass


# --- in the process that tests ----------------------------------------------------------------


@dataclass
class Server:
    """A process that runs merges in processes of their own."""

    process: subprocess.Popen[str]
    may_mount: bool
    """Whether these may mount disks of their own, which others do not see."""

    def start(self, **job: Any) -> int:
        """Start a merge, and return its process's number when it has looked at its models."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({**job, "out": str(job["out"])}) + "\n")
        self.process.stdin.flush()
        heard: dict[str, Any] = {}
        while not {"pid", "begins"} <= heard.keys():
            heard |= self._hear()
        return int(heard["pid"])

    def end(self) -> dict[str, Any]:
        """Return what the merge said, and the `signal` that ended it, if one did."""
        heard: dict[str, Any] = {}
        while "status" not in heard:
            heard |= self._hear()
        status = heard["status"]
        return {**heard, "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None}

    def run(self, **job: Any) -> dict[str, Any]:
        self.start(**job)
        return self.end()

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the server is gone"
        return json.loads(line)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    unshare = ["unshare", "--map-root-user", "--mount"]
    probe = [*unshare, "mount", "-t", "tmpfs", "none", "/mnt"]
    may_mount = bool(
        shutil.which("unshare") and subprocess.run(probe, capture_output=True).returncode == 0
    )
    before = unshare if may_mount else []
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [*before, sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    ) as process:
        yield Server(process, may_mount)
        process.kill()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return OUT, in a folder of its own."""
    (tmp_path / "around").mkdir()
    return tmp_path / "around" / "out"


@pytest.fixture(scope="module")
def undisturbed(
    server: Server, family: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[float, Path]:
    """Return what merges write when nothing goes wrong, by their ratio."""
    recipe, outs = plain_recipe(family), {}
    for ratio in (0.5, 1.0):
        recipe["models"][CHAT]["parameters"]["ratio"] = ratio
        outs[ratio] = tmp_path_factory.mktemp("undisturbed") / "out"
        server.run(recipe=recipe, out=outs[ratio])
    return outs


@pytest.fixture
def new(undisturbed: dict[float, Path]) -> Files:
    """Return the files of the recipe's merge."""
    return contents(undisturbed[1.0])


@pytest.fixture
def old(undisturbed: dict[float, Path], out: Path) -> Files:
    """Return the files of another merge, which is at OUT."""
    shutil.copytree(undisturbed[0.5], out)
    return contents(out)


def kill_at_random(
    server: Server, job: dict[str, Any], each_time: Callable[[], None], seed: int
) -> int:
    """Kill merges at moments spread over the time that one takes; return how many were killed."""
    durations = []
    for _ in range(2):
        server.start(**{**job, "out": job["out"].parent / "timed"})
        begin = time.perf_counter()
        server.end()
        durations.append(time.perf_counter() - begin)
        shutil.rmtree(job["out"].parent / "timed")

    chance, killed = random.Random(seed), 0
    for i in range(KILLS):
        moment = (i + chance.random()) / KILLS * min(durations)
        pid = server.start(**job)
        time.sleep(moment)
        with suppress(ProcessLookupError):  # it was faster
            os.kill(pid, signal.SIGKILL)
        killed += server.end()["signal"] == signal.SIGKILL
        each_time()
    return killed


def test_killed_at_any_moment_out_is_absent_or_complete(
    server: Server, recipe: Recipe, out: Path, new: Files
) -> None:
    def check() -> None:
        if out.exists():
            assert contents(out) == new
            shutil.rmtree(out)

    job = {"recipe": recipe, "out": out}
    assert kill_at_random(server, job, check, seed=1) > 3

    server.run(**job)
    assert contents(out) == new
    assert names(out.parent) == ["out"]


def test_killed_at_any_moment_old_out_is_intact_or_new_one_complete(
    server: Server, recipe: Recipe, out: Path, new: Files, old: Files
) -> None:
    def check() -> None:
        # Between two renames, the old one lies beside; the next run puts it back.
        aside = out.with_name(".out.chatvec-old")
        assert contents(out if out.exists() else aside) in (old, new)

    job = {"recipe": recipe, "out": out, "overwrite": True}
    assert kill_at_random(server, job, check, seed=2) > 3

    server.run(**job)
    assert contents(out) == new
    assert names(out.parent) == ["out"]


WINDOWS = {
    "while it tries whether the old one can be moved": ("rename", 2, "aside", "restored_old"),
    "before the old one is moved aside": ("rename", 3, "old", "removed_leftover"),
    "before the new one takes its place": ("rename", 4, "aside", "restored_old"),
    "before the old one is given up": ("rename", 5, "new", "removed_leftover"),
    "before the old one is removed": ("rmtree", 1, "new", "removed_leftover"),
}


@pytest.mark.parametrize("window", WINDOWS)
def test_killed_while_it_replaces_the_next_run_puts_right(
    window: str, server: Server, recipe: Recipe, out: Path, new: Files, old: Files
) -> None:
    function, count, state, told = WINDOWS[window]
    job = {"recipe": recipe, "out": out, "overwrite": True}

    killed = server.run(**job, killed_before=(function, count))

    assert killed["signal"] == signal.SIGKILL
    aside = out.with_name(".out.chatvec-old")
    assert contents(aside if state == "aside" else out) == (new if state == "new" else old)
    again = server.run(**job)
    assert again[told]
    assert contents(out) == new
    assert names(out.parent) == ["out"]


def test_killed_before_it_takes_its_place_out_is_absent(
    server: Server, recipe: Recipe, out: Path, new: Files
) -> None:
    killed = server.run(recipe=recipe, out=out, killed_before=("rename", 1))
    assert killed["signal"] == signal.SIGKILL
    assert names(out.parent) == [".out.chatvec-lock", ".out.chatvec-partial"]

    assert server.run(recipe=recipe, out=out)["removed_leftover"]
    assert contents(out) == new
    assert names(out.parent) == ["out"]


def test_old_out_that_was_moved_aside_is_put_back_before_anything_is_refused(
    server: Server, recipe: Recipe, out: Path, old: Files
) -> None:
    out.rename(out.with_name(".out.chatvec-old"))
    assert "exists" in server.run(recipe=recipe, out=out)["message"]
    assert contents(out) == old
    assert names(out.parent) == ["out"]


@pytest.mark.parametrize("phase", ["merge", "finish", "verify"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_leaves_nothing(
    number: signal.Signals, phase: str, server: Server, recipe: Recipe, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "out"
    ended = server.run(recipe=recipe, out=out, phase=phase, signal=number)
    if number == signal.SIGINT:
        assert ended["failed"] == "KeyboardInterrupt: "
    else:
        assert ended["signal"] == number
    assert not out.parent.exists()


def test_interrupted_it_leaves_the_old_out(
    server: Server, recipe: Recipe, out: Path, old: Files
) -> None:
    job = {"recipe": recipe, "out": out, "overwrite": True}
    assert server.run(**job, phase="verify", signal=signal.SIGTERM)["signal"] == signal.SIGTERM
    assert contents(out) == old
    assert names(out.parent) == ["out"]


def test_signal_that_nohup_ignores_does_not_stop_a_merge(
    server: Server, recipe: Recipe, out: Path, new: Files
) -> None:
    hangup = {"ignored": [signal.SIGHUP], "phase": "merge", "signal": signal.SIGHUP}
    assert server.run(recipe=recipe, out=out, **hangup)["signal"] is None
    assert contents(out) == new


def test_of_two_runs_at_once_one_is_refused(recipe: Recipe, out: Path) -> None:
    looked = surveyed(recipe)
    refusals = []

    def merge_too(progress: Progress) -> None:
        if progress.phase == "finish" and progress.done == 0:
            with pytest.raises(ChatVecError) as refused:
                merge(looked, out)
            refusals.append(refused.value.message)

    merge(looked, out, on_progress=merge_too)

    assert "another run is writing" in refusals[0]
    assert names(out.parent) == ["out"]


def test_folder_that_cannot_be_moved_is_refused_before_any_work(
    server: Server, recipe: Recipe, out: Path, old: Files
) -> None:
    # As where OUT is mounted by itself, into a container say.
    told = server.run(recipe=recipe, out=out, overwrite=True, immovable=True)
    assert "cannot be replaced (Device or resource busy)" in told["message"]
    assert contents(out) == old
    assert told["left"] == ["out"]


# --- out of room ------------------------------------------------------------------------------


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "pickles"])
def test_file_that_grows_too_large_is_one_message(
    safe: bool, server: Server, recipe: Recipe, out: Path, old: Files
) -> None:
    options = {"safe_serialization": safe}
    job = {"recipe": recipe, "out": out, "overwrite": True, "options": options}

    ended = server.run(**job, largest_file=6_000)

    assert "it takes 38 KB, and" in ended["message"]
    assert "were free" in ended["message"]
    assert contents(out) == old
    assert ended["left"] == ["out"]


def test_disk_that_fills_up_is_one_message(server: Server, recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "disk" / "out"
    if server.may_mount:
        filler = out.with_name("filler")
        job = {"disk": 1_000_000, "filler": str(filler), "phase": "fetch"}
        ended = server.run(recipe=recipe, out=out, **job)
        assert ended["left"] == ["filler"]
    else:  # what safetensors says of a full disk
        ended = server.run(recipe=recipe, out=out, no_room=True)
        assert ended["left"] is None
    assert "No space left on device" in ended["message"]
    assert "it takes 38 KB, and" in ended["message"]


def test_disk_without_the_room_is_told_before_anything_is_written(
    recipe: Recipe, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(out.parent)._replace(free=30_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(merge_module, "stream_weights", None)
    with pytest.raises(ChatVecError, match=r"takes 38 KB, and the disk of .* has 30 KB free"):
        merge(surveyed(recipe), out)
    assert names(out.parent) == []


if __name__ == "__main__":
    serve()
