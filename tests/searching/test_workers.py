"""Workers that share a study: no trial is lost or done twice, also where one of them is killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import optuna
import pytest
from conftest import ROOT
from optuna.trial import FrozenTrial, TrialState

from chatvec_method import ChatVecError
from chatvec_method.searching.storage import open_storage
from chatvec_method.searching.trials import JOB, NAME, finished

sys.path.insert(0, str(Path(__file__).parent))
from worker import STARTS, study_in

WORKER = Path(__file__).with_name("worker.py")
WANTED = 12
SECONDS_TO_WAIT = 120
PROXY = """
import sys
from optuna.storages import RDBStorage, run_grpc_proxy_server
run_grpc_proxy_server(RDBStorage(sys.argv[1]), host="localhost", port=int(sys.argv[2]))
"""


def start(where: str, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(WORKER), where, str(WANTED), str(log)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})


def logged(logs: Sequence[Path], what: str) -> list[int]:
    lines = [line.split() for log in logs if log.exists() for line in log.read_text().splitlines()]
    return [int(number) for word, number in lines if word == what]


def kill_in_a_trial(worker: subprocess.Popen[bytes], log: Path) -> int:
    """Kill a worker in the midst of a trial, and return the trial."""
    for _ in range(SECONDS_TO_WAIT * 100):
        worker.send_signal(signal.SIGSTOP)  # while it is looked at, it does not go on
        begun, measured = logged([log], "begun"), logged([log], "measured")
        if len(begun) > len(measured):
            worker.kill()
            return begun[-1]
        worker.send_signal(signal.SIGCONT)
        time.sleep(0.01)
    raise AssertionError("the worker has not begun anything")


def run(where: str, folder: Path, workers: int) -> tuple[list[Path], list[FrozenTrial]]:
    """Let workers do a study together; return their logs and its trials."""
    logs = [folder / f"{i}.log" for i in range(workers)]
    processes = [start(where, log) for log in logs]
    assert [each.wait(SECONDS_TO_WAIT) for each in processes] == [0] * workers
    return logs, study_in(where).get_trials()


def assert_each_is_done_once(logs: Sequence[Path], trials: Sequence[FrozenTrial]) -> None:
    done = finished(trials)
    assert len(done) == WANTED
    assert sorted(logged(logs, "done")) == [trial.number for trial in done]
    assert not [t for t in trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
    names = [trial.user_attrs[NAME] for trial in done if NAME in trial.user_attrs]
    assert sorted(names) == [each.name for each in STARTS]
    points = [tuple(trial.params.values()) for trial in done]
    assert len(set(points)) == WANTED


# -------------------------------------------------------------------------------------- a journal


def test_of_four_workers_on_a_journal_one_is_killed_and_its_trial_is_done_again(
    tmp_path: Path,
) -> None:
    where = str(tmp_path / "trials.journal")
    logs = [tmp_path / f"{i}.log" for i in range(4)]
    processes = [start(where, log) for log in logs]
    at = kill_in_a_trial(processes[0], logs[0])
    codes = [each.wait(SECONDS_TO_WAIT) for each in processes]
    assert codes == [-signal.SIGKILL, 0, 0, 0]

    trials = study_in(where).get_trials()
    assert_each_is_done_once(logs, trials)
    killed = trials[at]
    assert killed.state is TrialState.FAIL
    (again,) = [t for t in finished(trials) if t.user_attrs.get(JOB) == f"again {at}"]
    assert again.params == killed.params
    assert again.user_attrs.get(NAME) == killed.user_attrs.get(NAME)


def test_a_search_that_was_killed_goes_on_with_the_same_trials(tmp_path: Path) -> None:
    where, logs = str(tmp_path / "trials.journal"), [tmp_path / "1.log", tmp_path / "2.log"]
    alone = start(where, logs[0])
    kill_in_a_trial(alone, logs[0])
    alone.wait()
    before = [t for t in study_in(where).get_trials() if t.state is not TrialState.WAITING]
    assert start(where, logs[1]).wait(SECONDS_TO_WAIT) == 0
    trials = study_in(where).get_trials()
    assert_each_is_done_once(logs, trials)
    kept = [each.number for each in before if each.state is not TrialState.RUNNING]
    assert [trials[number].values for number in kept] == [before[n].values for n in kept]


# ------------------------------------------------------------------------------------- a database


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """Yield the address of a database on a server that is started for it."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    programs = folders[-1] if folders else Path(shutil.which("initdb") or "nowhere").parent
    if not (programs / "initdb").exists():
        pytest.skip("PostgreSQL is not installed (.ci/run installs it where it may)")
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's name has to be short
    user: list[str] = []
    if os.geteuid() == 0:  # as whom the server does not start
        shutil.chown(folder, "postgres")
        user = ["runuser", "-u", "postgres", "--"]
    data, control = folder / "data", programs / "pg_ctl"
    made = [programs / "initdb", "-D", data, "-A", "trust", "-U", "worker", "-N"]
    started = [control, "-D", data, "-w", "-l", folder / "log"]
    started += ["-o", f"-c listen_addresses= -c fsync=off -k {folder}", "start"]
    try:
        for command in (made, started):
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            subprocess.run([*user, *map(str, command)], check=True, cwd="/", **quiet)
        yield f"postgresql+psycopg://worker@/postgres?host={folder}"
    finally:
        subprocess.run([*user, str(control), "-D", str(data), "-m", "immediate", "stop"], cwd="/")
        shutil.rmtree(folder, ignore_errors=True)


def test_two_workers_share_a_database_and_one_is_killed(postgresql: str, tmp_path: Path) -> None:
    logs = [tmp_path / "1.log", tmp_path / "2.log"]
    processes = [start(postgresql, log) for log in logs]  # both make its tables
    at = kill_in_a_trial(processes[0], logs[0])
    assert [each.wait(SECONDS_TO_WAIT) for each in processes] == [-signal.SIGKILL, 0]
    trials = study_in(postgresql).get_trials()
    assert_each_is_done_once(logs, trials)
    assert trials[at].state is TrialState.FAIL
    assert any(t.user_attrs.get(JOB) == f"again {at}" for t in finished(trials))


def test_two_workers_share_a_proxy_before_a_database(postgresql: str, tmp_path: Path) -> None:
    optuna.delete_study(study_name="made up", storage=open_storage(postgresql))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    proxy = subprocess.Popen(
        [sys.executable, "-c", PROXY, postgresql, str(port)], stderr=subprocess.DEVNULL
    )
    try:
        assert_each_is_done_once(*run(f"grpc://localhost:{port}", tmp_path, 2))
    finally:
        proxy.kill()
        proxy.wait()


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("postgresql+psycopg://me:secret@/postgres?host=/nowhere", "cannot be used"),
        ("postgresql://me:secret@localhost/x", "psycopg"),
        ("nothing://me:secret@localhost/x", "cannot be used"),
        ("/proc/nowhere/trials.journal", "cannot be used"),
    ],
)
def test_a_storage_that_cannot_be_used_is_said_in_a_sentence_without_its_password(
    where: str, said: str
) -> None:
    with pytest.raises(ChatVecError, match=said) as raised:
        open_storage(where)
    assert "secret" not in str(raised.value)
