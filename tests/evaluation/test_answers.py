"""Answers that are kept: found again by all that they depend on, whole batches or nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from chatvec_method import ChatVecError
from chatvec_method.evaluation.answers import FILE, kept_in, key_of


def test_what_is_kept_is_there_the_next_time(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with kept_in(folder) as answers:
        answers.keep({"a": ["네, 그럼요.", True], "b": -12.345678901234567})
        answers.write_note("n", {"cp": 3.5})
    with kept_in(folder) as answers:
        assert answers.responses(["a", "b", "c"]) == {
            "a": ["네, 그럼요.", True],
            "b": -12.345678901234567,
        }
        assert answers.note("n") == {"cp": 3.5}
        assert answers.note("m") is None


def test_many_keys_at_once(tmp_path: Path) -> None:
    with kept_in(tmp_path) as answers:
        answers.keep({str(i): i for i in range(2345)})
        assert answers.responses(map(str, range(3000))) == {str(i): i for i in range(2345)}


def test_a_batch_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    with kept_in(tmp_path) as answers:
        with pytest.raises(TypeError):
            answers.keep({"a": 1, "b": object()})
        assert answers.responses(["a", "b"]) == {}


def test_two_processes_may_keep_answers_in_one_file(tmp_path: Path) -> None:
    with kept_in(tmp_path) as one, kept_in(tmp_path) as other:
        one.keep({"a": 1})
        other.keep({"b": 2})
        assert one.responses(["a", "b"]) == other.responses(["a", "b"]) == {"a": 1, "b": 2}


def test_without_a_folder_nothing_is_kept() -> None:
    with kept_in(None) as answers:
        answers.keep({"a": 1})
    with kept_in(None) as answers:
        assert answers.responses(["a"]) == {}


def test_a_folder_that_cannot_be_written_to_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ChatVecError, match="--state FOLDER"), kept_in(tmp_path / "file"):
        pass
    (tmp_path / FILE).write_text("no database, but long enough to be taken for a broken one" * 9)
    with pytest.raises(ChatVecError, match="not a database"), kept_in(tmp_path):
        pass


def test_a_key_is_of_all_its_parts() -> None:
    key = key_of({"model": "a", "ratio": 0.5}, "generate_until", ["prompt", {"max_gen_toks": 5}])
    assert key == key_of(
        {"ratio": 0.5, "model": "a"}, "generate_until", ("prompt", {"max_gen_toks": 5})
    )
    others = [
        key_of({"model": "b", "ratio": 0.5}, "generate_until", ["prompt", {"max_gen_toks": 5}]),
        key_of({"model": "a", "ratio": 0.25}, "generate_until", ["prompt", {"max_gen_toks": 5}]),
        key_of({"model": "a", "ratio": 0.5}, "loglikelihood", ["prompt", {"max_gen_toks": 5}]),
        key_of({"model": "a", "ratio": 0.5}, "generate_until", ["prompt", {"max_gen_toks": 6}]),
    ]
    assert key not in others


def test_a_file_that_is_a_link_or_holds_what_acts_is_none_of_ours(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    folder.mkdir()
    (folder / FILE).symlink_to(elsewhere)
    with pytest.raises(ChatVecError, match="a link, or no file"), kept_in(folder):
        pass
    assert not elsewhere.exists()
    (folder / FILE).unlink()
    with closing(sqlite3.connect(folder / FILE)) as hostile:
        hostile.execute(
            "CREATE VIEW answers AS WITH RECURSIVE n(key) AS (VALUES (1) UNION ALL "
            "SELECT key + 1 FROM n) SELECT key, key AS response FROM n"
        )
    with pytest.raises(ChatVecError, match="none of ours"), kept_in(folder):
        pass


def test_what_is_no_answer_is_told_in_one_line(tmp_path: Path) -> None:
    with kept_in(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / FILE)) as hostile, hostile:
        hostile.execute("INSERT INTO answers VALUES ('a', '[[[')")
    with pytest.raises(ChatVecError, match="no JSON"), kept_in(tmp_path) as answers:
        answers.responses(["a"])
