"""A model of the hub with all its files, in the cache that huggingface_hub keeps."""

from __future__ import annotations

from pathlib import Path

from chatvec_method.hub.asking import answers_as_errors
from chatvec_method.hub.named import place_on_hub
from chatvec_method.snapshots import whole_snapshot


def folder_of(out: str, cache: str | None = None) -> Path:
    """Return where the output of a merge lies, after it has been downloaded where it is on the hub.

    Args:
        out: A folder, or `owner/name` or an address of the hub, perhaps with `@revision`.
        cache: Where downloads are kept; None for where huggingface_hub keeps them.

    Raises:
        ChatVecError: The hub does not have it or give it, or cannot be reached; or it holds what no
            model does.
    """
    place = place_on_hub(out)
    if place is None:
        return Path(out)
    with answers_as_errors(str(place), "Write a folder, or a model's name on the hub."):
        return whole_snapshot(place.repository, place.revision, cache)
