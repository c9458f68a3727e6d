"""Files that a person asked for."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from chatvec_method.cli.writing import write, write_all
from chatvec_method.errors import ChatVecError


def test_what_cannot_be_written_is_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("before")
    (tmp_path / ".table.csv.chatvec-partial").mkdir()  # where it would be written first
    with pytest.raises(ChatVecError, match=r"table\.csv cannot be written \(.*\); all is kept"):
        write(file, "after", "all is kept")
    assert file.read_text() == "before"


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write(tmp_path / "link", "다")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == "다".encode()


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=write, args=(tmp_path / "pipe", b"1,2\n"))
    writer.start()
    assert (tmp_path / "pipe").read_bytes() == b"1,2\n"
    writer.join()


def test_a_folder_is_made_for_several(tmp_path: Path) -> None:
    write_all(tmp_path / "new" / "folder", {"a.png": b"a", "b.png": b"b"})
    assert {file.name for file in (tmp_path / "new" / "folder").iterdir()} == {"a.png", "b.png"}
    (tmp_path / "file").touch()
    with pytest.raises(ChatVecError, match=r"file/within cannot be written to"):
        write_all(tmp_path / "file" / "within", {"a.png": b"a"})
