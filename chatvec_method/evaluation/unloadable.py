"""Why a task of lm-evaluation-harness cannot be loaded, in one line for people."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import metadata
from typing import Any

from packaging.requirements import Requirement

from chatvec_method.errors import ChatVecError, first_line

HARNESS = "lm_eval"
SCRIPT = re.compile(r"Dataset scripts are no longer supported, but found (\S+)")
"""What `datasets` says from version 4 on."""


def not_loaded(
    error: Exception, names: Sequence[str | Mapping[str, Any]], load: Callable[[str], Any]
) -> ChatVecError:
    """Return the error of tasks that cannot be loaded, which names the one that is at fault.

    Args:
        error: What was raised for all of them.
        names: The tasks.
        load: Loads one of them by its name.
    """
    named = [name for name in names if isinstance(name, str)]
    for name in named if len(named) > 1 else ():
        try:
            load(name)
        except Exception as of_one:  # the same, in all likelihood
            return _explained(of_one, f"the task {name}")
    return _explained(error, f"the task {named[0]}" if len(named) == 1 else "these tasks")


def _explained(error: Exception, task: str) -> ChatVecError:
    told = first_line(error)
    if isinstance(error, ImportError):
        package = error.name or ""
        how = f"Run `pip install '{_with_extra(package)}'`." if package else "Install it."
        return ChatVecError(f"{task} needs a package that is missing ({told}).", how)
    if script := SCRIPT.search(str(error)):
        return ChatVecError(
            f"the data of {task} is read by a program of its own ({script[1]}), and the library "
            "`datasets` does not run such programs any more.",
            "Take another task; `--tasks ready` has some for each `--language`.",
        )
    if "gated" in str(error):
        return ChatVecError(
            f"the data of {task} cannot be had ({told}).",
            "Ask for access on its page of the hub and log in with `hf auth login`.",
        )
    return ChatVecError(
        f"the data of {task} cannot be had ({told}).",
        "If it is on the Hugging Face hub, it must be reachable.",
    )


def _with_extra(package: str) -> str:
    """Return what to install for a package: the harness's smallest extra with it, or itself."""
    about = metadata(HARNESS)
    extras: dict[str, list[str]] = {
        extra: [
            requirement.name
            for requirement in map(Requirement, about.get_all("Requires-Dist") or ())
            if requirement.marker is not None and requirement.marker.evaluate({"extra": extra})
        ]
        for extra in about.get_all("Provides-Extra") or ()
    }
    having = [extra for extra, packages in extras.items() if package in packages]
    if not having:
        return package
    return f"{HARNESS}[{min(having, key=lambda extra: len(extras[extra]))}]"
