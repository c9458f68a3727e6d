"""A folder that appears complete or not at all.

It is written under a hidden name next to its own, `.out.chatvec-partial` for `out`, and takes its
own name in one step when all of it is on the disk. A folder that it replaces lies as
`.out.chatvec-old` for that moment, and is put back by the next run if this one is killed just then.
Of a command that is killed, the process that outlives it does that (`cli.outliving`).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from chatvec_method import aftermath
from chatvec_method.errors import ChatVecError

WEIGHTS = ("*.safetensors", "*.bin")
REMOVAL_ATTEMPTS, REMOVAL_PAUSE_SECONDS = 50, 0.1


@dataclass(frozen=True)
class Staging:
    """A folder that is being written."""

    folder: Path
    """Where to write it."""
    target: Path
    """The name that it takes; links are followed."""
    overwrite: bool
    removed_leftover: bool
    """A run that was killed had left files of its own, which are gone now."""
    restored_old: bool
    """A run that was killed while it replaced the target had moved it aside; it is back."""

    @contextmanager
    def flushed_meanwhile(self) -> Iterator[None]:
        """Let the disk write the weights, while the rest is made ready."""
        weights = [file for pattern in WEIGHTS for file in self.folder.glob(pattern)]
        with ThreadPoolExecutor(1) as thread:
            flushed = thread.map(_flush_file, weights)
            yield
            list(flushed)

    def publish(self) -> None:
        """Give the folder its name, for good: a loss of power does not undo it.

        Raises:
            ChatVecError: Somebody else has written the target meanwhile.
        """
        _flush(self.folder)
        if _is_filled(self.target) and not self.overwrite:
            raise _exists(self.target)
        if _is_filled(self.target):
            self.target.rename(_beside(self.target, "old"))
        elif self.target.exists():
            self.target.rmdir()
        self.folder.rename(self.target)
        _flush_names(self.target.parent)


@contextmanager
def staged(
    out: Path, *, overwrite: bool, models: Iterable[Path] = (), others: Iterable[Path] = ()
) -> Iterator[Staging]:
    """Yield a folder to write into, which `publish` makes `out`; without that, nothing is left.

    Args:
        out: The folder to be; folders above it are made.
        overwrite: Whether it may replace a model.
        models: The folders that are read meanwhile.
        others: Further files and folders that must outlive it.

    Raises:
        ChatVecError: `out` may not be written, as `check_out` says, or another run is writing it.
    """
    models, others = list(models), list(others)
    target = check_out(out, overwrite=overwrite, models=models, others=others)
    aftermath.note_target(target)
    with _parents(target), _lock(target):
        with _problems_of(target.parent):
            restored = _restore(target)
            removed = _remove_leftovers(target)
        # What was restored counts, too.
        check_out(out, overwrite=overwrite, models=models, others=others)
        _check_movable(target)
        folder = _beside(target, "partial")
        try:
            with _problems_of(target.parent):
                folder.mkdir()
            yield Staging(folder, target, overwrite, removed, restored)
        finally:
            with _problems_of(target.parent):
                _restore(target)
                _remove_leftovers(target)


def clear_up(target: Path) -> bool:
    """Put right what a run left that was killed, and tell whether there was anything.

    Nothing is done where another run is writing the same folder.

    Args:
        target: The folder that it was writing, as `Staging` has it.
    """
    try:
        with _lock(target), _problems_of(target.parent):
            return any([_restore(target), _remove_leftovers(target)])
    except ChatVecError:
        return False


def check_out(
    out: Path, *, overwrite: bool, models: Iterable[Path] = (), others: Iterable[Path] = ()
) -> Path:
    """Return the folder that a path means, with links followed, if it may be written.

    Args: as `staged`.

    Raises:
        ChatVecError: It is a file, the root of a file system, or a folder that is not empty and
            either may not be replaced or is no model's; or it is, holds or lies in one of `models`;
            or it is or holds one of `others` or the current folder.
    """
    try:
        target = out.resolve()
    except (OSError, RuntimeError) as error:
        raise ChatVecError(
            f"{out} is a link that leads nowhere.", "Write the name of a new folder."
        ) from error
    if target.exists() and not target.is_dir():
        raise ChatVecError(f"{out} is a file.", "Write the name of a new folder.")
    if os.path.ismount(target):
        raise ChatVecError(
            f"{out} is the root of a file system, which cannot be put in place in one step.",
            f"Write a folder in it, as {out / 'merged'}",
        )
    for model in models:
        if _holds(target, model) or _holds(model, target):
            raise ChatVecError(
                f"{out} and the folder {model}, which the merge reads, are one or lie within each "
                "other.",
                "Write a folder outside those of the models.",
            )
    for other in (Path.cwd(), *others):
        if _holds(target, other):
            what = "is the current folder or holds it" if other == Path.cwd() else f"holds {other}"
            raise ChatVecError(f"{out} {what}.", "Write the name of a new folder.")
    if _is_filled(target):
        if not overwrite:
            raise _exists(out)
        if not any(next(target.glob(pattern), None) for pattern in ("config.json", *WEIGHTS)):
            raise ChatVecError(
                f"{out} holds files, but no model that could be replaced.",
                "Write the name of a new folder, or remove this one yourself.",
            )
    return target


def _exists(out: Path) -> ChatVecError:
    return ChatVecError(
        f"{out} exists already.", "Write another name, or pass `--overwrite` to replace it."
    )


def _beside(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.chatvec-{what}")


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _holds(folder: Path, path: Path) -> bool:
    """Tell whether a path is a folder or lies in it, by whatever links and spellings."""
    path = path.resolve()
    places = (place for place in (path, *path.parents) if place.exists())
    return folder.exists() and any(place.samefile(folder) for place in places)


@contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Make the folders above the target, and remove them again if they stay empty."""
    missing = [folder for folder in target.parents if not folder.exists()]
    for folder in missing:
        aftermath.note_folder(folder)
    with _problems_of(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):
            for folder in missing:
                folder.rmdir()


@contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Keep other runs from the target; the lock of a run that is killed is free at once."""
    file = _beside(target, "lock")
    lock = FileLock(file)
    try:
        with _problems_of(target.parent):
            lock.acquire(timeout=0)
    except Timeout as error:
        raise ChatVecError(
            f"another run is writing {target}.", "Wait for its end, or write another name."
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is open
            file.unlink()
        lock.release()


@contextmanager
def _problems_of(folder: Path) -> Iterator[None]:
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        raise ChatVecError(
            f"nothing can be written to {folder} ({error.strerror or error}).",
            "Write a folder that may be written to.",
        ) from error


def _check_movable(target: Path) -> None:
    """Check now what will be done when all work is done: a mounted folder cannot be replaced."""
    if not target.exists():
        return
    aside = _beside(target, "old")
    try:
        target.rename(aside)
        aside.rename(target)
    except OSError as error:
        raise ChatVecError(
            f"{target} cannot be replaced ({error.strerror or error}).",
            f"Write a folder in it, as {target / 'merged'}, or another name.",
        ) from error


def _restore(target: Path) -> bool:
    """Put back what was moved aside for a folder that then did not come."""
    old = _beside(target, "old")
    if not old.exists() or _is_filled(target):
        return False
    if target.exists():
        target.rmdir()
    old.rename(target)
    return True


def _remove_leftovers(target: Path) -> bool:
    partial, old = _beside(target, "partial"), _beside(target, "old")
    found = partial.exists() or old.exists()
    _remove(partial)
    if old.exists():
        # Half removed, it must not be taken for one to restore.
        old.rename(partial)
        _remove(partial)
    return found


def _remove(folder: Path) -> None:
    for attempt in range(1, REMOVAL_ATTEMPTS + 1):
        if not folder.exists():
            return
        try:
            shutil.rmtree(folder)
        except OSError:
            # With --async-write, a thread of mergekit's may still be adding files.
            if attempt == REMOVAL_ATTEMPTS:
                raise
            time.sleep(REMOVAL_PAUSE_SECONDS)


def _flush(folder: Path) -> None:
    """Wait until the disk has all files of a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            _flush_file(path)
        else:
            _flush_names(path)
    _flush_names(folder)


def _flush_file(path: Path) -> None:
    # Windows wants a file to be writable for this.
    with path.open("rb" if os.name == "posix" else "rb+") as file:
        os.fsync(file.fileno())


def _flush_names(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
