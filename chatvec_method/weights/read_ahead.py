"""What is read next, told to the system, so that it is there when it is looked at.

Checkpoints are mapped. Left to itself, the system sees one page missing after the other, reads some
megabytes around it and lets us wait, and at the end of what is needed reads on into what is not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeAlias

from chatvec_method.facts.models import Model, TensorHeader
from chatvec_method.facts.plan import PlannedTensor, header_of
from chatvec_method.facts.survey import Survey

STEP = 1 << 20
"""Bytes that are asked for at a time: of more, Linux reads as much as its read-ahead allows."""

MOST = 1 << 28
"""Bytes of a tensor that are read ahead. A small machine has no room for all of the largest ones,
and once a tensor is being read in its order, the system reads on by itself."""

Ask: TypeAlias = Callable[[Model, TensorHeader | None, int, int], None]
"""Asks for a part of a tensor of a model: from which byte on, and how many bytes."""


@contextmanager
def asking() -> Iterator[Ask]:
    """Yield what asks for data, where the system can be asked and the data lie here unpacked."""
    opened: dict[Path, int] = {}
    with ExitStack() as files:

        def descriptor(file: Path) -> int:
            if file not in opened:
                opened[file] = files.enter_context(file.open("rb", buffering=0)).fileno()
            return opened[file]

        def ask(model: Model, header: TensorHeader | None, start: int, length: int) -> None:
            if model.folder is None or header is None or header.start is None:
                return
            file = descriptor(model.folder / header.file)
            first, end = header.start + start, header.start + start + length
            for position in range(first, end, STEP):
                step = min(STEP, end - position)
                os.posix_fadvise(file, position, step, os.POSIX_FADV_WILLNEED)

        yield ask if hasattr(os, "posix_fadvise") else lambda *_: None


@contextmanager
def read_ahead(survey: Survey, names: Sequence[str]) -> Iterator[Callable[[str], None]]:
    """Yield what is to be told of each tensor that is being read, and asks for the one after it.

    Args:
        survey: Of a recipe without problems.
        names: The tensors, in the order in which they will be read; the first is asked for now.
    """
    assert survey.plan is not None
    by_name = {tensor.name: tensor for tensor in survey.plan.tensors}
    planned = [by_name[name] for name in names]
    after = dict(zip(names, planned[1:], strict=False))
    with asking() as ask:

        def ask_for(tensor: PlannedTensor) -> None:
            for reference in tensor.readers:
                model = survey.models[reference]
                header = header_of(model, tensor.inputs[reference])
                ask(model, header, 0, min(header.bytes, MOST) if header else 0)

        def read(name: str) -> None:
            if name in after:
                ask_for(after[name])

        for tensor in planned[:1]:
            ask_for(tensor)
        yield read
