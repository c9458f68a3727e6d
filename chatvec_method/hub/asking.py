"""What the hub answers, in one line for people, where what is asked for is no model's files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.facts.on_hub import UNREACHABLE, causes_of

NOT_ALLOWED = (401, 403)


@contextmanager
def answers_as_errors(what: str, other: str) -> Iterator[None]:
    """Turn what the hub answers to a question into one message.

    Args:
        what: What is asked for, as it begins a sentence: `owner/name`.
        other: What to write in its place.

    Raises:
        ChatVecError: The hub does not have it or give it, or cannot be reached.
    """
    try:
        yield
    except ChatVecError:
        raise
    except Exception as error:
        told = _explained(error, what, other)
        if told is None:
            raise
        raise told from error


def _explained(error: Exception, what: str, other: str) -> ChatVecError | None:
    causes = list(causes_of(error))

    def are(*types: type[BaseException]) -> bool:
        return any(isinstance(cause, types) for cause in causes)

    if are(GatedRepoError):
        return ChatVecError(
            f"{what} is gated, and you are not logged in with an account that may read it.",
            "Ask for access on its page and log in with `hf auth login`.",
            code="model-gated",
        )
    if are(RevisionNotFoundError):
        return ChatVecError(
            f"{what}: the hub has no such revision.",
            "Leave out the @ and what is behind it for the newest, or write another name there.",
            code="no-such-revision",
        )
    if are(RepositoryNotFoundError, HFValidationError):
        return ChatVecError(
            f"{what} is neither here nor on the hub (or private, of somebody else).",
            other,
            code="no-such-model",
        )
    if are(LocalTokenNotFoundError):
        return ChatVecError("you are not logged in to the hub.", "Run `hf auth login`.")
    if are(OfflineModeIsEnabled, LocalEntryNotFoundError, ConnectionError):
        return _unreachable(what)
    refusal = next((cause for cause in causes if isinstance(cause, HfHubHTTPError)), None)
    if refusal is not None and not are(EntryNotFoundError):
        if refusal.response is not None and refusal.response.status_code in NOT_ALLOWED:
            return ChatVecError(
                f"{what}: the hub does not let you ({first_line(refusal)}).",
                "Log in with `hf auth login`, with a token that may write and an account that may "
                "do this.",
                code="hub-error",
            )
        return ChatVecError(
            f"{what}: the hub does not give or take it ({first_line(refusal)}).",
            "Try again later; https://status.huggingface.co tells of known trouble.",
            code="hub-error",
        )
    if any(type(cause).__module__.startswith(("httpx", "httpcore")) for cause in causes):
        return _unreachable(what)
    return None


def _unreachable(what: str) -> ChatVecError:
    return ChatVecError(
        f"{what}: the hub ({constants.ENDPOINT}) cannot be reached, or broke off.",
        "Check the network (and HF_HUB_OFFLINE, HF_ENDPOINT), and run this again.",
        code=UNREACHABLE,
    )
