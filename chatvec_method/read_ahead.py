"""What is read next, told to the system, so that it is there when it is looked at.

Checkpoints are mapped. Left to itself, the system sees one page missing after the other, reads some
around it and lets the merge wait, and at the end of what is needed reads on into what is not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from chatvec_method.plan import PlannedTensor, header_of
from chatvec_method.survey import Survey

STEP = 1 << 20
"""Bytes that are asked for at a time: of more, Linux reads as much as its read-ahead allows."""


class ReadAhead:
    """Asks for the data of tensors that come in a known order."""

    def __init__(self, survey: Survey, names: Sequence[str], files: ExitStack) -> None:
        assert survey.plan is not None
        self._survey = survey
        self._files = files
        self._opened: dict[Path, int] = {}
        by_name = {tensor.name: tensor for tensor in survey.plan.tensors}
        planned = [by_name[name] for name in names]
        self._after = dict(zip(names, planned[1:], strict=False))
        for tensor in planned[:1]:
            self._ask_for(tensor)

    def after(self, name: str) -> None:
        """Ask for what comes after a tensor, now that this one is being read."""
        if name in self._after:
            self._ask_for(self._after[name])

    def _ask_for(self, tensor: PlannedTensor) -> None:
        if not hasattr(os, "posix_fadvise"):
            return
        for reference in tensor.readers:
            model = self._survey.models[reference]
            header = header_of(model, tensor.inputs[reference])
            if model.folder is None or header is None or header.start is None:
                continue  # on the hub, packed, or put together while it is loaded
            descriptor = self._descriptor(model.folder / header.file)
            for start in range(header.start, header.start + header.bytes, STEP):
                length = min(STEP, header.start + header.bytes - start)
                os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_WILLNEED)

    def _descriptor(self, file: Path) -> int:
        if file not in self._opened:
            stream = self._files.enter_context(file.open("rb", buffering=0))
            self._opened[file] = stream.fileno()
        return self._opened[file]


@contextmanager
def read_ahead(survey: Survey, names: Sequence[str]) -> Iterator[ReadAhead]:
    """Yield what asks for the data of tensors, and has asked for that of the first.

    Args:
        survey: Of a recipe without problems.
        names: The tensors, in the order in which they will be read.
    """
    with ExitStack() as files:
        yield ReadAhead(survey, names, files)
