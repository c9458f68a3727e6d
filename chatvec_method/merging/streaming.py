"""The output's weights, computed part by part and each part written to its place.

mergekit's own writer collects shards of 5 GB in memory and copies them once more. Here the sum goes
from the inputs, mapped from their files, through a few buffers to its place in the output's: no
tensor of it is ever whole in memory. Each thread computes a part, and writes it.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mergekit.io import TensorWriter
from mergekit.options import MergeOptions
from torch import Tensor

from chatvec_method import hashes
from chatvec_method.facts.output import in_stock_order
from chatvec_method.facts.plan import PlannedTensor
from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.weights.inputs import Inputs
from chatvec_method.weights.matching import Matching, matching_of
from chatvec_method.weights.read_ahead import read_ahead
from chatvec_method.weights.reading import Reader
from chatvec_method.weights.shards import MERGEKIT_VERSION, ShardWriter, lay_out
from chatvec_method.weights.sums import Sum
from chatvec_method.workers import Workers, workers


def stream_weights(
    survey: ReadySurvey,
    folder: Path,
    reader: Reader,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> dict[str, str]:
    """Write the output's weights and their index into a folder, as mergekit's writer would.

    What is written has no NaN or infinite elements.

    Args:
        survey: Of the recipe, with all models' files here.
        folder: An empty folder.
        reader: Of the models' files.
        on_bytes: Is told how many more bytes have been written.

    Returns:
        The hash of each tensor as it was in memory.

    Raises:
        ChatVecError: A model's weights are at fault.
        OSError: The folder cannot be written to, or the disk is full.
    """
    tensors = in_stock_order(survey.plan)
    matching = matching_of(survey)
    merges = merges_of(survey, tensors, reader, matching, _devices(survey.options))
    if not survey.options.safe_serialization:
        return _write_pickles(merges, survey, folder, on_bytes)
    headers = {tensor.name: survey.headers[tensor.name] for tensor in tensors}
    layout = lay_out(headers, survey.options.out_shard_size, MERGEKIT_VERSION)
    with (
        ShardWriter(folder, layout) as writer,
        read_ahead(survey, tensors) as reading,
        _parts(writer) as parts,
    ):
        for merge in merges:
            reading(merge.name)
            parts.put(merge)
            on_bytes(headers[merge.name].bytes)
    return parts.hashes()


def part_length(dtype: torch.dtype) -> int:
    """Return how many elements are computed, and written or compared, in one go: a block's."""
    return hashes.BLOCK // dtype.itemsize


def merges_of(
    survey: ReadySurvey,
    tensors: Iterable[PlannedTensor],
    reader: Reader,
    matching: Matching | None,
    devices: Iterable[torch.device],
) -> Iterator[Sum]:
    """Yield the merge of each tensor, of which nothing is read yet.

    Args:
        survey: Of the recipe, with all models' files here.
        tensors: Which ones.
        reader: Of the models' files.
        matching: How rows are matched by token; None where they go by their number.
        devices: Where sums are formed, in turn.

    Raises:
        ChatVecError: A model's weights are at fault.
    """
    turns = itertools.cycle(devices)
    for tensor in tensors:
        inputs = Inputs(survey, reader, matching, tensor)
        yield Sum(tensor, inputs, survey.headers[tensor.name].dtype, next(turns))


def _devices(options: MergeOptions) -> list[torch.device]:
    """Return where sums are formed: on all accelerators in turn, if there are to be several."""
    device = torch.device(options.device)
    if options.multi_gpu and torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        assert kind is not None
        return [torch.device(kind.type, i) for i in range(torch.accelerator.device_count())]
    return [device]


def _write_pickles(
    merges: Iterator[Sum],
    survey: ReadySurvey,
    folder: Path,
    on_bytes: Callable[[int], None],
) -> dict[str, str]:
    """Write the weights as `.bin` files, by mergekit's own writer, which collects whole shards."""
    written = {}
    writer = TensorWriter(
        str(folder), max_shard_size=survey.options.out_shard_size, safe_serialization=False
    )
    with workers() as at_work:
        for merge in merges:
            out = torch.empty(merge.shape, dtype=merge.dtype)
            flat = out.view(-1)

            def compute(elements: slice, merge: Sum = merge, flat: Tensor = flat) -> None:
                part = flat[elements].to(merge.device)
                flat[elements] = merge.part(elements, part).cpu()

            at_work.for_ranges(flat.numel(), compute)
            written[merge.name] = hashes.hash_of(flat.view(torch.uint8).numpy().data)
            writer.save_tensor(merge.name, out)
            on_bytes(out.nbytes)
    writer.finalize()
    return written


class _Parts:
    """Tensors computed and written part by part, each part in the next thread that is free."""

    def __init__(self, writer: ShardWriter, workers: Workers) -> None:
        self._writer = writer
        self._workers = workers
        self._digests: dict[str, dict[int, bytes]] = {}
        self._under_way: deque[Future[None]] = deque()
        self._buffers = threading.local()

    def put(self, merge: Sum) -> None:
        """Have a tensor computed and written; its last parts may still be under way.

        Raises:
            ChatVecError: A model's weights are at fault, those of this tensor or one before it.
            OSError: A part could not be written.
        """
        size = merge.shape.numel()
        length = part_length(merge.dtype)
        self._digests[merge.name] = {}
        for start in range(0, size, length):
            self.wait(2 * self._workers.count)
            part = slice(start, min(start + length, size))
            self._under_way.append(self._workers.pool.submit(self._write, merge, part))

    def wait(self, parts: int = 0) -> None:
        """Wait until no more than so many parts are under way."""
        while len(self._under_way) > parts:
            self._under_way.popleft().result()

    def hashes(self) -> dict[str, str]:
        """Return the hash of each tensor, once all of them are written."""
        return {
            name: hashes.joined(digests[start] for start in sorted(digests))
            for name, digests in self._digests.items()
        }

    def _write(self, merge: Sum, part: slice) -> None:
        elements = merge.part(part, self._buffer(merge)[: part.stop - part.start])
        elements = elements.cpu().contiguous()
        digest = hashes.digest(elements.view(torch.uint8).numpy().data)
        self._digests[merge.name][part.start] = digest  # each part's own place
        self._writer.write_elements(merge.name, part.start, elements)

    def _buffer(self, merge: Sum) -> Tensor:
        """Return this thread's own."""
        kept: dict[Any, Tensor] = self._buffers.__dict__
        key = (merge.dtype, merge.device)
        if key not in kept:
            length = part_length(merge.dtype)
            kept[key] = torch.empty(length, dtype=merge.dtype, device=merge.device)
        return kept[key]


@contextmanager
def _parts(writer: ShardWriter) -> Iterator[_Parts]:
    """Yield what computes tensors and writes them; at the end all of them are written."""
    with workers() as at_work:
        parts = _Parts(writer, at_work)
        yield parts
        parts.wait()
