"""What the hub tells of a model, and why it does not, in one message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import HfApi, ModelInfo
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from mergekit.common import ModelPath, ModelReference

from chatvec_method.errors import ChatVecError, first_line

HUB_SECONDS = 5
"""So long the hub may take to answer the first question about a model."""
UNREACHABLE = "hub-unreachable"


def ask_hub(path: ModelPath) -> ModelInfo:
    """Return what the hub tells of a model that may be read."""
    validate_repo_id(path.path)
    hub = HfApi()
    info = hub.model_info(
        path.path, revision=path.revision, timeout=HUB_SECONDS, files_metadata=True
    )
    if info.gated:  # anybody may read what a gated model is, but not its files
        hub.auth_check(path.path)
    return info


def unreachable(reference: ModelReference) -> ChatVecError:
    """Return the error of a model that may be on a hub which nobody answers for."""
    return ChatVecError(
        f"model {reference} is not a folder here, and the hub cannot be reached.",
        "Check the network (and HF_HUB_OFFLINE, HF_ENDPOINT), or put the model into a folder "
        f"`{reference.model.path}` below the current one: it is then taken from there.",
        code=UNREACHABLE,
    )


@contextmanager
def problems_as_errors(reference: ModelReference) -> Iterator[None]:
    """Turn what the hub and transformers raise about a model into one message."""
    try:
        yield
    except ChatVecError:
        raise
    except Exception as error:
        raise _explained(error, reference) from error


def _explained(error: Exception, reference: ModelReference) -> ChatVecError:
    name, causes = reference.model.path, list(causes_of(error))
    if _any(causes, GatedRepoError):
        return ChatVecError(
            f"model {reference} is gated, and you are not logged in with an account that may "
            "read it.",
            f"Ask for access on https://huggingface.co/{name} and log in with `hf auth login`.",
            code="model-gated",
        )
    if _any(causes, RevisionNotFoundError):
        return ChatVecError(
            f"model {reference}: the hub has no such revision.",
            f"Write `{name}` for the newest, or another name after the @.",
            code="no-such-revision",
        )
    if _any(causes, RepositoryNotFoundError, HFValidationError):
        return ChatVecError(
            f"model {reference} is neither a folder here nor a model on the hub (or a private "
            "one of somebody else).",
            _right_name(name),
            code="no-such-model",
        )
    if _any(causes, OfflineModeIsEnabled, LocalEntryNotFoundError, ConnectionError):
        return unreachable(reference)
    if _any(causes, HfHubHTTPError) and not _any(causes, EntryNotFoundError):
        return ChatVecError(
            f"model {reference}: the hub does not give what was asked for ({first_line(error)}).",
            "Try again later; https://status.huggingface.co tells of known trouble.",
            code="hub-error",
        )
    if any(type(cause).__module__.startswith(("httpx", "httpcore")) for cause in causes):
        return unreachable(reference)
    if "trust_remote_code" in str(error):
        return ChatVecError(
            f"model {reference} brings code of its own for its config.",
            "Read that code, and pass `--trust-remote-code` if you trust it.",
            code="remote-code",
        )
    return ChatVecError(
        f"model {reference}: its config cannot be read ({first_line(error)}).",
        "Download or save the model again; it needs a `config.json` that transformers knows.",
        code="config-unreadable",
    )


def _right_name(name: str) -> str:
    on_hub = re.fullmatch(r"https?://huggingface\.co/([\w.-]+/[\w.-]+).*", name)
    if on_hub:
        return f"Write `{on_hub[1]}`, its name without the address."
    return "Write its full name, as in `upstage/SOLAR-10.7B-v1.0`, or the path of its folder."


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception, what it was raised for, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _any(causes: list[BaseException], *types: type[BaseException]) -> bool:
    return any(isinstance(cause, types) for cause in causes)
