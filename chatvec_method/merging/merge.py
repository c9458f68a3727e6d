"""The safe run: mergekit's own merge, made chat-ready, verified, and then put in place in one step.

Nothing is written where OUT will be until all of it is right; what goes wrong on the way leaves
OUT as it was, and one message.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from mergekit.common import ModelReference

from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.facts.cost import MEMORY_FIX, Cost, cost_of, in_bytes
from chatvec_method.facts.survey import ReadySurvey, Survey
from chatvec_method.finishing.files import FileChange
from chatvec_method.finishing.finish import finish
from chatvec_method.finishing.hashes_file import write_hashes
from chatvec_method.finishing.output import RECIPE_FILE
from chatvec_method.finishing.recorded import with_commits_of
from chatvec_method.merging.config_file import write_config
from chatvec_method.merging.streaming import stream_weights
from chatvec_method.merging.verify import Verification, verify_written
from chatvec_method.method.settings import tokenizer_source
from chatvec_method.progress import Progress
from chatvec_method.weights.fetching import fetched
from chatvec_method.weights.reading import Reader
from chatvec_method.weights.staging import Staging, staged

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
STREAM_PROBLEM = re.compile(r"PytorchStreamWriter|iostream error|unexpected pos")
"""What torch says where pickles cannot be written; it does not say why."""
MEMORY_PROBLEM = re.compile(r"can't allocate memory|not enough memory|out of memory")
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@dataclass(frozen=True)
class MergeResult:
    """What a merge did."""

    out: Path
    bytes: int
    """Of all files."""
    verification: Verification
    changes: tuple[FileChange, ...]
    """What `finish` made of mergekit's files."""
    removed_leftover: bool
    """An earlier run to the same folder was killed; what it had left is gone."""
    restored_old: bool
    """An earlier run was killed while it replaced OUT; the old one was put back first."""


def merge(
    survey: Survey | ReadySurvey,
    out: Path,
    *,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> MergeResult:
    """Merge what a survey found, into a folder that appears complete or not at all.

    The options are the survey's. Those that are settings of the whole process, threads and
    verbosity, are the caller's to apply: `options.apply_global_options()`.

    Args:
        survey: Of the recipe.
        out: The folder to be.
        overwrite: Whether it may replace a model; that stays until the new one is complete.
        on_progress: Is told how far the merge is, now and then from threads of mergekit's.

    Raises:
        ChatVecError: `out` may not be written (see `staging.check_out`), the survey has problems,
            the merge failed, or its output is not what the recipe says. `out` is as before.
    """
    ready = survey.ready()
    inputs = {"models": _model_folders(ready), "others": _other_inputs(ready, out)}
    with _stopped_by_signals(), staged(out, overwrite=overwrite, **inputs) as staging:
        cost = cost_of(ready, staging.target)
        _check_room(cost, staging)
        with _one_message(cost, staging):
            ready = with_commits_of(fetched(ready, on_progress))
            reader = Reader(ready.plan.checkpoints, lazy_unpickle=ready.options.lazy_unpickle)
            tensors = _run(ready, staging.folder, reader, cost, on_progress)
            with staging.flushed_meanwhile():
                on_progress(Progress("finish", 0, 1))
                card = ready.options.write_model_card
                changes = finish(staging.folder, ready, name=out.absolute().name, card=card)
                write_hashes(staging.folder, tensors)
                on_progress(Progress("finish", 1, 1))
                verification = verify_written(
                    staging.folder,
                    ready,
                    reader,
                    lambda done, total: on_progress(Progress("verify", done, total)),
                )
            size = _size(staging.folder)
            staging.publish()
    return MergeResult(
        out=out,
        bytes=size,
        verification=verification,
        changes=changes,
        removed_leftover=staging.removed_leftover,
        restored_old=staging.restored_old,
    )


def _model_folders(survey: ReadySurvey) -> list[Path]:
    """Return the folders of the models here, and of their adapters."""
    references = list(survey.models)
    settings = survey.recipe.config.tokenizer
    if settings is not None and isinstance(settings.source, ModelReference):
        references.append(settings.source)
    parts = [part for r in references for part in (r.model, r.lora) if part is not None]
    return [folder for part in parts if (folder := Path(part.path)).is_dir()]


def _other_inputs(survey: ReadySurvey, out: Path) -> list[Path]:
    """Return what else must outlive OUT: the recipe, caches, files that models only link to."""
    caches = (survey.options.lora_merge_cache, survey.options.transformers_cache)
    recipe = Path(survey.recipe.name)
    # The recipe in the old OUT is no loss: the new one has it again.
    recipes = [] if recipe == out / RECIPE_FILE else [recipe]
    links = [file for folder in _model_folders(survey) for file in folder.iterdir()]
    named = [*recipes, *(Path(cache) for cache in caches if cache), *links]
    return [path for path in named if path.exists()]


def _check_room(cost: Cost, staging: Staging) -> None:
    if cost.write is not None and cost.write > cost.free_disk:
        raise ChatVecError(
            f"the output takes {in_bytes(cost.write)}, and the disk of {staging.target.parent} has "
            f"{in_bytes(cost.free_disk)} free.",
            "Make room, or write another OUT.",
        )


def _run(
    survey: ReadySurvey,
    folder: Path,
    reader: Reader,
    cost: Cost,
    on_progress: Callable[[Progress], None],
) -> dict[str, str]:
    """Write weights, config and recipe, and return the hash of each tensor."""
    done, lock = 0, threading.Lock()

    def count(size: int) -> None:
        nonlocal done
        with lock:
            done += size
            on_progress(Progress("merge", done, cost.write))

    count(0)
    hashes = stream_weights(survey, folder, reader, count)
    if survey.vocabulary is not None and tokenizer_source(survey.recipe.config) == "union":
        # mergekit numbers the tokens of a union anew each time: these go with these rows.
        survey.vocabulary.tokenizer.save_pretrained(folder)
    write_config(survey, folder)
    (folder / RECIPE_FILE).write_text(survey.recipe.text, encoding="utf-8")
    return hashes


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


class _Stopped(BaseException):
    """A signal that ends the process has arrived; what is being written is to be removed first."""


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the process only after what is left behind has been removed.

    A signal that is ignored, or for which somebody else cares, is left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        for each in ours:  # sent to all of a group and passed on, it arrives twice
            signal.signal(each, signal.SIG_IGN)
        raise _Stopped(number)

    ours = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    except _Stopped as stopped:
        (arrived,) = stopped.args
        signal.signal(arrived, signal.SIG_DFL)
        signal.raise_signal(arrived)
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def _one_message(cost: Cost, staging: Staging) -> Iterator[None]:
    """Turn what mergekit and the libraries raise into one message for people."""
    try:
        yield
    except ChatVecError:
        raise
    except Exception as error:
        raise _explained(error, cost, staging) from error


def _explained(error: Exception, cost: Cost, staging: Staging) -> ChatVecError:
    reason = first_line(error)
    number = _error_number(error)
    if number in NO_ROOM or STREAM_PROBLEM.search(reason):
        needed = f"takes {in_bytes(cost.write)}" if cost.write else "is of unknown size"
        free = shutil.disk_usage(staging.target.parent).free + _size(staging.folder)
        why = os.strerror(number) if number else "the disk is full, or a limit is reached"
        return ChatVecError(
            f"the output cannot be written to {staging.target.parent} ({why}): it {needed}, and "
            f"{in_bytes(free)} were free.",
            "Lift the limit on the size of a file (`ulimit -f`), or write `--out-shard-size 1B`."
            if number == errno.EFBIG
            else "Make room, or write another OUT.",
        )
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or MEMORY_PROBLEM.search(reason):
        needed = f" It takes about {in_bytes(cost.memory)}, and" if cost.memory else ""
        return ChatVecError(
            f"the merge ran out of memory ({reason}).{needed} "
            f"{in_bytes(cost.free_memory)} were free before it.",
            MEMORY_FIX,
        )
    if isinstance(error, OSError):
        what = f"{error.filename} ({error.strerror})" if error.filename else reason
        return ChatVecError(
            f"a file cannot be read or written: {what}.", "See to it that it is there."
        )
    return ChatVecError(
        f"the merge stopped: {reason} ({type(error).__name__}).",
        "Run `chatvec check` on the recipe; if that finds nothing, report it with the recipe and "
        "the versions of chatvec-method, mergekit, torch and transformers.",
    )


def _error_number(error: BaseException) -> int | None:
    """Return the operating system's number for what went wrong, from wherever it is told."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    told = re.search(r"os error (\d+)", str(error))  # safetensors, which is written in Rust
    if told:
        return int(told[1])
    cause = error.__cause__ or error.__context__
    return _error_number(cause) if cause is not None else None
