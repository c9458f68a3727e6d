"""Where a search's trials are kept: a journal, a database, or optuna's proxy before one."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection

from chatvec_method.errors import ChatVecError, first_line

PROXY = re.compile(r"grpc://([^:/]+):(\d+)/?")
JOURNAL = "trials.journal"
"""In the folder of a search, where no other storage is named."""
SECONDS_TO_ANSWER = 20
"""For a proxy."""
TRIES = 4
AT_THE_SAME_TIME = ("already exists", "UniqueViolation", "Duplicate")
"""What databases say where two workers make the same tables."""
SETTINGS = "search"
"""The attribute of a study that says what was asked."""
DRIVERS = {
    "psycopg2": "Write `postgresql+psycopg://` and install `psycopg[binary]`, or install psycopg2.",
    "psycopg": "Run `pip install 'psycopg[binary]'`.",
    "MySQLdb": "Write `mysql+pymysql://` and run `pip install pymysql`.",
    "pymysql": "Run `pip install pymysql`.",
    "grpc": "Run `pip install grpcio protobuf`.",
}


def open_storage(where: str) -> BaseStorage:
    """Open a storage, and make it if it is not there.

    Args:
        where: The path of a journal; the address of a database, as SQLAlchemy has it; or
            `grpc://host:port` for a proxy of optuna's.

    Raises:
        ChatVecError: It cannot be opened.
    """
    try:
        if proxy := PROXY.fullmatch(where):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                remote = GrpcStorageProxy(host=proxy[1], port=int(proxy[2]))
            remote.wait_server_ready(timeout=SECONDS_TO_ANSWER)
            return remote
        if "://" in where:
            return optuna.storages.get_storage(_database(where))
        file = Path(where)
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise OSError("it is a link, or no file")
        file.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(file)))
    except ImportError as error:
        missing = next((d for d in DRIVERS if d in str(error)), None)
        raise ChatVecError(
            f"the storage {without_password(where)} needs a driver ({first_line(error)}).",
            DRIVERS.get(missing or "", "Install what it names."),
        ) from error
    except Exception as error:  # of files, of databases and their drivers, of the network
        raise _refusal(where, error) from error


def _database(where: str) -> RDBStorage:
    """Open a database, whose tables another worker may be making in this moment."""
    for left in reversed(range(TRIES)):
        try:
            return RDBStorage(where)
        except Exception as error:
            if not left or not any(word in str(error) for word in AT_THE_SAME_TIME):
                raise
            time.sleep(1)
    raise AssertionError


@contextmanager
def told_in_one_line(where: str) -> Iterator[None]:
    """Say in a sentence what becomes of a storage on the way.

    Raises:
        ChatVecError: It cannot be reached, or what it has cannot be read.
    """
    try:
        yield
    except (StorageInternalError, OSError) as error:
        raise _refusal(where, error) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("sqlalchemy", "grpc"):
            raise _refusal(where, error) from error
        raise


def without_password(where: str) -> str:
    """Return an address without what stands before its @."""
    return re.sub(r"//[^/@\s]+@", "//", where)


def open_study(
    storage: BaseStorage,
    name: str,
    directions: Sequence[StudyDirection],
    metrics: Sequence[str],
    settings: dict[str, Any],
    sampler: optuna.samplers.BaseSampler,
) -> optuna.Study:
    """Return a study that asks for these settings: a new one, or one that was begun so.

    Raises:
        ChatVecError: It was begun with other settings, so that its trials would not be alike.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = [summary.study_name for summary in optuna.get_all_study_summaries(storage, False)]
    if name not in names:
        _create(storage, name, directions)
    study = optuna.load_study(study_name=name, storage=storage, sampler=sampler)
    if SETTINGS not in study.user_attrs:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(list(metrics))
        study.set_user_attr(SETTINGS, settings)
    begun = study.user_attrs[SETTINGS]
    if not isinstance(begun, dict):
        raise ChatVecError(
            f"the study {name} is none that `chatvec search` began.",
            "Write another name: `--study NAME`.",
        )
    others = [key for key in settings if begun.get(key) != settings[key]]
    if others:
        raise ChatVecError(
            f"the study {name} was begun otherwise: {', '.join(others)} differ"
            f"{'s' if len(others) == 1 else ''}.",
            "Write another name: `--study NAME`.",
        )
    return study


def _create(storage: BaseStorage, name: str, directions: Sequence[StudyDirection]) -> None:
    try:
        optuna.create_study(study_name=name, storage=storage, directions=list(directions))
    except optuna.exceptions.DuplicatedStudyError:
        return  # by another worker, in this moment


def _refusal(where: str, error: Exception) -> ChatVecError:
    return ChatVecError(
        f"the storage {without_password(where)} cannot be used "
        f"({without_password(first_line(error))}).",
        "Write the path of a journal in a folder that can be written to, the address of a "
        "database, or grpc://host:port.",
    )
