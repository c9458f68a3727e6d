"""Folders and storages of searches by people who mean harm, or that are damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from chatvec_method.errors import ChatVecError
from chatvec_method.searching.files import RESULTS, _before
from chatvec_method.searching.storage import JOURNAL, SETTINGS, open_storage, open_study
from chatvec_method.searching.trials import JOB, _may_be_tried


@pytest.mark.parametrize(
    "files",
    [["mine.yaml", "../x.yaml", "/", "", ".", "pareto-1.yaml/x", 5, None], "pareto-1.yaml", 5, {}],
    ids=str,
)
def test_only_what_a_search_writes_is_removed(files: Any, tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text(json.dumps({"files": files}))
    assert _before(tmp_path) == []


def test_what_an_earlier_search_wrote_is_removed(tmp_path: Path) -> None:
    names = [
        "front-dark.png",
        "importance.png",
        "pareto-12.yaml",
        "schedules.png",
        "suggested.yaml",
    ]
    (tmp_path / RESULTS).write_text(json.dumps({"files": names}))
    assert _before(tmp_path) == names


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "x", ""], ids=["deep", "list", "x", "no"])
def test_results_that_are_none_say_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / RESULTS).write_text(content)
    assert _before(tmp_path) == []


def test_results_in_a_pipe_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / RESULTS)
    assert _before(tmp_path) == []


@pytest.mark.parametrize("job", ["again 1", "again 0", "again 99", "again -1", "again x", 5])
def test_trials_that_say_they_are_each_other_again_come_to_an_end(job: Any) -> None:
    trials = [
        optuna.create_trial(state=TrialState.FAIL, user_attrs={JOB: each}) for each in (job, job)
    ]
    for number, trial in enumerate(trials):
        trial.number = number
    assert isinstance(_may_be_tried(trials, trials[1]), bool)


def test_a_journal_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / JOURNAL)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in (JOURNAL, "link"):
        with pytest.raises(ChatVecError, match="it is a link, or no file"):
            open_storage(str(tmp_path / name))
    assert not (tmp_path / "elsewhere").exists()


def test_a_study_of_something_else_is_refused(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / JOURNAL))
    study = optuna.create_study(study_name="x", storage=storage)
    study.set_user_attr(SETTINGS, 5)
    with pytest.raises(ChatVecError, match="none that `chatvec search` began"):
        open_study(storage, "x", [], [], {"a": 1}, optuna.samplers.RandomSampler())
