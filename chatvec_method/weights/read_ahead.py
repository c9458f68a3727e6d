"""What is read next, told to the system, so that it is there when it is looked at.

Checkpoints are mapped. Left to itself, the system sees one page missing after the other, reads some
megabytes around it and lets us wait, and at the end of what is needed reads on into what is not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

from chatvec_method.facts.models import Model, TensorHeader
from chatvec_method.facts.plan import PlannedTensor
from chatvec_method.facts.survey import ReadySurvey

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
def read_ahead(
    survey: ReadySurvey, tensors: Sequence[PlannedTensor]
) -> Iterator[Callable[[str], None]]:
    """Yield what is to be told of each tensor that is being read, and asks for the one after it.

    Args:
        survey: Of the recipe.
        tensors: The tensors, in the order in which they will be read; the first is asked for now.
    """
    after = {one.name: other for one, other in pairwise(tensors)}
    with asking() as ask:

        def ask_for(tensor: PlannedTensor) -> None:
            for reference in tensor.readers:
                source, model = tensor.sources.get(reference), survey.models[reference]
                for weight in source.weights if source else ():
                    header = (model.tensors or {}).get(weight.parts[0])
                    ask(model, header, 0, min(header.bytes, MOST) if header else 0)

        def read(name: str) -> None:
            if name in after:
                ask_for(after[name])

        for tensor in tensors[:1]:
            ask_for(tensor)
        yield read
