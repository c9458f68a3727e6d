"""Models of the hub brought here, and looked at before any library opens what is in them.

A library that is given a model's name downloads and believes at once. So the small files come
first, after the hub has told their sizes, and are looked at; then the weights that they name. What
has come before is taken from the hub's cache where the hub cannot be asked.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelInfo, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from chatvec_method.intake import TEMPLATES, check_size, read_json
from chatvec_method.quiet import quiet
from chatvec_method.stated import (
    ADAPTER_CONFIG,
    INDEX_FORMS,
    check_adapter,
    check_indexes,
    check_model,
)

SMALL = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py")
NOT_OURS = ("*.gguf", "*.pth", "*.h5", "*.msgpack", "*.onnx", "original/*", "onnx/*")
"""What a repository may hold of the same model for other programs."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""In the order in which transformers looks for them, each after its index."""
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
"""In the order in which peft looks for them."""
SECONDS = 20.0
"""So long the hub may take to tell what it has."""


@dataclass(frozen=True)
class Snapshot:
    """A model of the hub, of which the small files are here and have been looked at."""

    name: str
    revision: str | None
    cache: str | None
    folder: Path
    info: ModelInfo | None
    """What the hub tells; None where it cannot be asked."""
    is_adapter: bool = False

    def with_weights(self) -> Path:
        """Return the folder, after the weights that transformers or peft would load have come.

        Raises:
            ChatVecError: An index names what no model's index does.
            OSError: The hub does not give them.
        """
        check_indexes(self.folder)
        if self.info is not None:
            # A pipe gets no bars.
            with nullcontext() if sys.stderr.isatty() else quiet():
                _download(self.name, self.revision, self.cache, allow_patterns=self._weights())
        return self.folder

    def _weights(self) -> list[str]:
        assert self.info is not None
        names = {sibling.rfilename for sibling in self.info.siblings or ()}
        if self.is_adapter:
            return [name for name in ADAPTER_WEIGHTS if name in names][:1]
        for file, index in zip(WEIGHTS, INDEX_FORMS, strict=True):
            if file in names:
                return [file]
            if (self.folder / index).is_file():
                return sorted({*read_json(self.folder / index)["weight_map"].values()})
        return []


def snapshot_of(name: str, revision: str | None = None, cache: str | None = None) -> Snapshot:
    """Return a model of the hub, once its small files are here and nothing is wrong with them.

    Args:
        name: `owner/name`.
        revision: A branch, tag or commit; None for the newest.
        cache: Where downloads are kept; None for where huggingface_hub keeps them.

    Raises:
        ChatVecError: A file is none, or larger, or says something else than a model's.
        OSError: There is no such model, or the hub does not give it.
    """
    info = _asked(name, revision)
    patterns = [*SMALL, *(f"{folder}/*" for folder in TEMPLATES)]
    with quiet():
        folder = _download(
            name,
            revision,
            cache,
            allow_patterns=patterns,
            ignore_patterns=list(NOT_OURS),
            local_files_only=info is None,
        )
    check_model(folder)
    return Snapshot(name, revision, cache, folder, info)


def adapter_snapshot_of(
    name: str, revision: str | None = None, cache: str | None = None
) -> Snapshot:
    """Return an adapter of the hub, once its config is here and nothing is wrong with it.

    Arguments and errors are those of `snapshot_of`.
    """
    info = _asked(name, revision)
    with quiet():
        folder = _download(
            name,
            revision,
            cache,
            allow_patterns=[ADAPTER_CONFIG],
            local_files_only=info is None,
        )
    check_adapter(folder)
    return Snapshot(name, revision, cache, folder, info, is_adapter=True)


def whole_snapshot(name: str, revision: str | None = None, cache: str | None = None) -> Path:
    """Return where all of a model's files are, after they have come and been looked at.

    Arguments and errors are those of `snapshot_of`.
    """
    here = snapshot_of(name, revision, cache)
    if here.info is not None:
        _download(name, revision, cache, ignore_patterns=list(NOT_OURS))
        check_model(here.folder)
    check_indexes(here.folder)
    return here.folder


def _asked(name: str, revision: str | None) -> ModelInfo | None:
    """Return what the hub tells of a model; None where it cannot be asked."""
    try:
        info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=SECONDS)
    except (GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except OSError:
        return None
    except Exception as error:
        if not type(error).__module__.startswith(("httpx", "httpcore")):
            raise
        return None
    for sibling in info.siblings or ():
        check_size(sibling.rfilename, sibling.size or 0, f"{sibling.rfilename} of {name}")
    return info


def _download(name: str, revision: str | None, cache: str | None, **which: Any) -> Path:
    return Path(snapshot_download(name, revision=revision, cache_dir=cache, **which))
