"""A model's files besides its weights, where it lies or on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelInfo, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from mergekit.common import ModelPath

from chatvec_method.errors import ChatVecError, first_line
from chatvec_method.intake import LARGEST_OF_TOKENS_BYTES, check_size, json_of, read_bytes
from chatvec_method.method.vector import FINGERPRINT_FILE, LARGEST_FINGERPRINT_BYTES
from chatvec_method.quiet import quiet


@dataclass(frozen=True)
class SmallFiles:
    """Configs, tokenizer and the like; on the hub, each is downloaded when it is asked for."""

    path: ModelPath
    folder: Path | None
    """None on the hub."""
    names: frozenset[str]
    """Of all files of the model but those in folders of their own, its weights among them."""
    commit: str | None = None
    """Of the hub's repository; None for a folder."""

    @classmethod
    def in_folder(cls, path: ModelPath, folder: Path) -> SmallFiles:
        """Return the files of a model that lies in a folder."""
        names = frozenset(file.name for file in folder.iterdir() if file.is_file())
        return cls(path, folder, names)

    @classmethod
    def on_hub(cls, path: ModelPath, info: ModelInfo) -> SmallFiles:
        """Return the files of a model on the hub, as the hub lists them.

        Raises:
            ChatVecError: One is larger than a file of its name can be.
        """
        for sibling in info.siblings or ():
            name = sibling.rfilename
            check_size(name, sibling.size or 0, f"{name} of {path}")
            if name == FINGERPRINT_FILE and (sibling.size or 0) > LARGEST_FINGERPRINT_BYTES:
                raise ChatVecError(
                    f"{name} of {path} has {sibling.size} bytes, and no vector's has so many.",
                    "Write another vector.",
                    code="unsafe-file",
                )
        listed = (sibling.rfilename for sibling in info.siblings or ())
        names = frozenset(name for name in listed if "/" not in name and "\\" not in name)
        return cls(path, None, names, info.sha)

    def file(self, name: str) -> Path | None:
        """Return where a file is, after it has been downloaded; None if there is none."""
        if name not in self.names:
            return None
        if self.folder is not None:
            return self.folder / name
        revision = self.commit or self.path.revision
        try:
            with quiet():
                return Path(hf_hub_download(self.path.path, name, revision=revision))
        except EntryNotFoundError:
            return None

    def bytes(self, name: str) -> bytes | None:
        """Return a file's content; None if there is none.

        Raises:
            ChatVecError: It is no file, or larger than one of its name can be.
        """
        file = self.file(name)
        if file is None:
            return None
        content = read_bytes(file, LARGEST_OF_TOKENS_BYTES)
        check_size(name, len(content), file)
        return content

    def text(self, name: str) -> str | None:
        """Return a file's text; None if there is none.

        Raises:
            ChatVecError: It is no text.
        """
        content = self.bytes(name)
        if content is None:
            return None
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ChatVecError(
                f"{self._called(name)} is no text ({first_line(error)}).",
                "Download or save the model again.",
            ) from error

    def json(self, name: str) -> dict[str, Any] | None:
        """Return what a JSON file says; None if there is none, or if it is no mapping.

        Raises:
            ChatVecError: It is no JSON.
        """
        text = self.text(name)
        if text is None:
            return None
        content = json_of(text, self._called(name))
        return content if isinstance(content, dict) else None

    def _called(self, name: str) -> object:
        return self.folder / name if self.folder else f"{name} of {self.path}"
