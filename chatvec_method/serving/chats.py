"""The chat models themselves, each loaded when it is first asked: the live merge cannot become one.

Its sum begins with cp, and its rows are those of the merge's tokenizer. So a chat model needs its
own size of memory besides; where that is not free, it is refused.
"""

from __future__ import annotations

from dataclasses import replace

import psutil

from chatvec_method.errors import ChatVecError
from chatvec_method.live_merge.model import LiveMerge
from chatvec_method.talk.speaker import Speaker, load

NO_ROOM = "no-memory"
"""The code of the error that a chat model does not fit beside the merge."""


class Chats:
    """The chat models of a live merge's recipe."""

    def __init__(self, live: LiveMerge, device: str) -> None:
        """Load none yet.

        Args:
            live: The merge.
            device: Where they go.
        """
        self._live = live
        self._device = device
        self._loaded: dict[str, Speaker] = {}

    def speaker(self, name: str) -> Speaker:
        """Return a chat model as one that can be talked to: with its own tokenizer and template.

        Without a template, or stop tokens that end a turn, it takes the merge's.

        Args:
            name: As the recipe has it.

        Raises:
            ChatVecError: It cannot be loaded, or has no room (`NO_ROOM`).
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> Speaker:
        model = self._live.models[name]
        size = sum(header.bytes for header in (model.tensors or {}).values())
        if size > psutil.virtual_memory().available:
            raise ChatVecError(
                f"{name} needs {size / 1e9:.1f} GB of memory besides the merge, and there are not "
                "as many.",
                "Ask the merge, or cp.",
                NO_ROOM,
            )
        speaker = load(
            str(model.folder),
            device=self._device,
            like=self._live.speaker,
            trust_remote_code=self._live.trusts_remote_code,
        )
        return replace(speaker, name=name)
