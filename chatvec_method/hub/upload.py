"""Files put on the hub, all of them in one commit: a repository never shows half a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    get_token,
)
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.hub.asking import answers_as_errors

WEIGHTS = re.compile(r"[^/]+\.(safetensors|bin)(\.index\.json)?")
"""The names of files that would be taken for a part of the model."""
OTHER = "Write a name of your own: `owner/name`."


@dataclass(frozen=True)
class Uploaded:
    """What was put on the hub."""

    address: str
    commit: str


def check_name(name: str) -> None:
    """Check that a name can be one on the hub.

    Raises:
        ChatVecError: It cannot.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ChatVecError(f"{name} cannot be the name of a model on the hub.", OTHER) from error
    if "/" not in name:
        raise ChatVecError(f"{name} does not say whose it is to be.", OTHER)


def upload(
    name: str, files: Mapping[str, Path | bytes], message: str, *, private: bool = False
) -> Uploaded:
    """Put files into a repository of the hub, which is made where there is none.

    What broke off goes on where it stopped when it is called again: large files that the hub has
    are not sent a second time. Weights of an earlier version that are not among the files go.

    Args:
        name: `owner/name`.
        files: By their names there: where they are here, or what they hold.
        message: Of the commit.
        private: Whether only its owner sees a repository that is new.

    Raises:
        ChatVecError: Nobody is logged in, it is not allowed, or the hub broke off.
    """
    check_name(name)
    if get_token() is None:
        raise ChatVecError("you are not logged in to the hub.", "Run `hf auth login`.")
    hub = HfApi()
    with answers_as_errors(name, OTHER):
        address = hub.create_repo(name, private=private or None, exist_ok=True)
        additions = [CommitOperationAdd(file, content) for file, content in sorted(files.items())]
        deletions = [CommitOperationDelete(file) for file in _left_over(hub, name, files)]
        commit = _committed(hub, name, [*additions, *deletions], message)
    return Uploaded(str(address), commit.oid)


def _committed(
    hub: HfApi,
    name: str,
    operations: Sequence[CommitOperationAdd | CommitOperationDelete],
    message: str,
) -> CommitInfo:
    try:
        return hub.create_commit(name, operations, commit_message=message)
    except (HfHubHTTPError, OfflineModeIsEnabled):
        raise
    except Exception as error:  # each way to send has its own
        raise ChatVecError(
            f"the sending to {name} broke off ({first_line(error)}).",
            "Run this again: it goes on where it stopped.",
            code="hub-error",
        ) from error


def _left_over(hub: HfApi, name: str, files: Mapping[str, Path | bytes]) -> Iterator[str]:
    for file in hub.list_repo_files(name):
        if WEIGHTS.fullmatch(file) and file not in files:
            yield file
