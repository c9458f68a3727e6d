"""How commands write and read: any code page, outputs that are full or closed, inputs that are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

FULL = Path("/dev/full")
CODE_PAGES = "cp949 cp932 gbk cp1252 ascii".split()
SIGNS = "‖τ‖ − ▁오늘 今日 …"
SHOW = "schedule linear --from 1 --to 0.3 --layers 32"
"""A command that loads nothing heavy."""


def chatvec(command: str, *, shell: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a process of its own, with redirections as a shell has them."""
    return subprocess.run(
        ["sh", "-c", f'"$0" -m chatvec_method {command} {shell}', sys.executable],
        cwd=ROOT,
        capture_output=True,
    )


def no_traceback(done: subprocess.CompletedProcess[bytes]) -> None:
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def in_own_streams(code: str, **settings: str) -> bytes:
    """Return what some Python prints in the streams of a command."""
    source = f"from chatvec_method.cli.streams import own_streams\nwith own_streams():\n    {code}"
    done = subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, **settings},
        capture_output=True,
        check=True,
        cwd=ROOT,
    )
    return done.stdout


def test_a_pipe_gets_utf8_whatever_the_locale_says() -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert in_own_streams(f"print({SIGNS!a})", **plain).decode("utf-8") == f"{SIGNS}\n"


def test_what_no_encoding_has_is_written_as_it_is_escaped() -> None:
    assert in_own_streams(r"print('\ud800')") == b"\\ud800\n"


@pytest.mark.parametrize("encoding", CODE_PAGES)
def test_what_an_encoding_lacks_is_no_error(encoding: str) -> None:
    shown = in_own_streams(f"print({SIGNS!a})", PYTHONIOENCODING=encoding).decode(encoding)
    assert "\n" in shown
    for sign, written in zip(SIGNS.split(), shown.split(), strict=True):
        try:
            same = sign.encode(encoding).decode(encoding)
        except UnicodeEncodeError:
            assert written != sign
        else:
            assert written == same
    if encoding == "ascii":
        assert shown == "|t| - ??? ?? ...\n"


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_is_told_in_one_line() -> None:
    done = chatvec(SHOW, shell="> /dev/full")
    no_traceback(done)
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("Error: the output cannot be written (No space left on device).")


def test_a_closed_stdout_is_like_a_file_that_nobody_reads() -> None:
    done = chatvec(SHOW, shell=">&-")
    no_traceback(done)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    done = chatvec(SHOW, shell="| true")
    no_traceback(done)
    assert done.stderr == b""


READ = """
from chatvec_method.cli.streams import lines_read, own_streams
from chatvec_method.errors import ChatVecError
with own_streams():
    try:
        print(ascii(list(lines_read())))
    except ChatVecError as error:
        print(error)
"""


def read(text: bytes, shell: str = "", **settings: str) -> str:
    """Return the lines that a process reads from its input, or why it does not."""
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {shell}', sys.executable, READ],
        cwd=ROOT,
        env={**os.environ, **settings},
        input=text,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode()


def test_what_is_read_is_utf8_with_or_without_a_mark() -> None:
    assert (
        read("오늘\n".encode()) == read("오늘\n".encode("utf-8-sig")) == "['\\uc624\\ub298\\n']\n"
    )


@pytest.mark.parametrize("encoding", ["euc-kr", "utf-16"])
def test_text_that_is_not_utf8_is_told_with_its_line(encoding: str) -> None:
    said = read("한국어\n".encode(encoding), LC_ALL="C.UTF-8")
    assert said.startswith("line 1 of the input is no UTF-8. Convert it, as in `iconv")


def test_a_closed_stdin_is_an_empty_one() -> None:
    assert read(b"", "<&-") == "[]\n"
