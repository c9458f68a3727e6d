"""A process that outlives the command, and says in one line what killed it.

A mapped file that somebody cuts short, or a disk that fails under it, ends a process at once
(SIGBUS), and so does the system where memory runs out. So the command runs in a child of a process
that has loaded next to nothing: this one tells of it, and removes what it was writing. Ctrl-C and
other signals reach the child as they would reach the command.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from chatvec_method import aftermath
from chatvec_method.cli.exits import ERROR
from chatvec_method.cli.last_resort import DEBUG
from chatvec_method.errors import ChatVecError

PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
FROM_TERMINAL = 0x80
"""`si_code` of what the system sent, as for Ctrl-C: to all processes at the terminal by itself."""
ENDED = {
    "SIGBUS": "a file that it read was cut short meanwhile, or its disk failed",
    "SIGKILL": "most likely by the system, as memory ran out",
    "SIGSEGV": "by a fault in a library",
    "SIGABRT": "by a library",
    "SIGILL": "by an instruction that this processor lacks",
    "SIGFPE": "by a fault in a library",
}
FIXES = {
    "SIGBUS": "Let nothing change the models meanwhile, see that they are whole, and run it again.",
    "SIGKILL": "Close other programs, or run it on a machine with more memory.",
}
REPORT = "Please report it, with the versions of chatvec-method and torch."
DIES_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of Linux's `prctl`."""


def outlived(work: Callable[[], Any]) -> Any:
    """Do some work in a child of this process, which ends as the child does.

    In this one itself where the system is another than Linux, or where errors are to be looked at.
    It must have no threads yet.

    Returns:
        What the work returns; in the child, the only one that returns.
    """
    if not sys.platform.startswith("linux") or os.environ.get(DEBUG):
        return work()
    signals = {getattr(signal, name) for name in PASSED_ON}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*signals, signal.SIGCHLD})
    try:
        notebook, parent = os.memfd_create("chatvec"), os.getpid()
        child = os.fork()
    except OSError:  # no more processes are allowed, or the system has no such files
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return work()
    if child:
        _end_as(_ended(child, signals), notebook)
    _die_with(parent)
    aftermath.keep(notebook)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return work()


def _die_with(parent: int) -> None:
    """Let this process be killed as soon as the one that started it is."""
    import ctypes  # only where it is used: it takes its time

    ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _ended(child: int, signals: set[signal.Signals]) -> int:
    """Pass signals on until a process ends; return its exit code, negative for a signal's."""
    while True:
        arrived = signal.sigwaitinfo({*signals, signal.SIGCHLD})
        if arrived.si_signo != signal.SIGCHLD:
            if arrived.si_code != FROM_TERMINAL:
                os.kill(child, arrived.si_signo)
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)


def _end_as(code: int, notebook: int) -> NoReturn:
    """End this process as another one ended."""
    if code >= 0:
        os._exit(code)
    killer = signal.Signals(-code)
    noted = aftermath.read(notebook)
    removed = _put_right(noted)
    if killer.name not in ENDED:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.signal(killer, signal.SIG_DFL)
        signal.raise_signal(killer)
    error = _explained(killer.name, noted, removed)
    with suppress(OSError, ValueError, AttributeError):  # stderr is closed
        if sys.stderr.isatty():
            sys.stderr.write("\x1b[?25h\n")  # a bar hides the cursor
        error.show()
        sys.stderr.flush()
    os._exit(ERROR)


def _explained(killer: str, noted: aftermath.Aftermath, removed: bool) -> ChatVecError:
    file = noted.cut_short()
    if killer == "SIGBUS" and file is not None:
        what = f"{file} was cut short while it was read"
    else:
        what = f"the command was killed ({killer}), {ENDED[killer]}"
    left = "; what it had written is removed" if removed else ""
    return ChatVecError(f"{what}{left}.", FIXES.get(killer, REPORT), code="killed")


def _put_right(noted: aftermath.Aftermath) -> bool:
    """Remove what was being written, and tell whether there was anything."""
    from chatvec_method.weights.staging import clear_up  # which takes its time to load

    removed = [clear_up(target) for target in noted.targets]
    with suppress(OSError):  # there is something in it
        for folder in noted.folders:
            folder.rmdir()
    return any(removed)
