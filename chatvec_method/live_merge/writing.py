"""Parameters written in place, each from cp, base and chats: never from what it was before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import torch
from torch import Tensor

from chatvec_method.facts.survey import ReadySurvey
from chatvec_method.live_merge.keeping import Keeper, Kept
from chatvec_method.live_merge.places import Place
from chatvec_method.weights.sums import Sum
from chatvec_method.workers import Workers, workers

PART = 1 << 21
"""Elements of a tensor that a thread computes in one go, on a CPU."""


def write_places(survey: ReadySurvey, places: Sequence[Place], keeper: Keeper) -> None:
    """Write what a merge has in some places.

    Args:
        survey: Of the recipe, with the ratios that count.
        places: Where to write.
        keeper: Has the models.

    Raises:
        ChatVecError: A model's weights are at fault, or a sum does not fit its dtype. Then some of
            the places are written, and others are not.
    """
    tensors = {tensor.name: tensor for tensor in survey.plan.tensors}

    def sums(place: Place) -> list[Sum]:
        """Return the sums of a place's tensors, their elements within reach of its device."""
        every = []
        for tensor in (tensors[name] for name in place.names):
            elements = keeper.elements(survey, tensor)
            if _accelerates(place.device) and keeper.keep != "device":
                whole = elements.part(slice(0, elements.shape.numel()))
                sent = {m: t.to(place.device, non_blocking=True) for m, t in whole.items()}
                elements = Kept(elements.shape, sent, elements.subtracted)
            dtype = survey.headers[tensor.name].dtype
            every.append(Sum(tensor, elements, dtype, place.device))
        return every

    with torch.no_grad():
        _write_in_parts([p for p in places if not _accelerates(p.device)], sums)
        sent_ahead = keeper.keep != "device"
        _write_whole([p for p in places if _accelerates(p.device)], sums, sent_ahead)


def _accelerates(device: torch.device) -> bool:
    """Tell whether a device computes whole tensors faster than threads their parts."""
    return device.type != "cpu"


def _write_in_parts(places: Sequence[Place], sums: Callable[[Place], list[Sum]]) -> None:
    """Write parameters on the CPU, each part of a tensor in the next thread that is free."""
    if not places:
        return
    with workers() as at_work:
        parts = _Parts(at_work)
        try:
            for place in places:
                every = sums(place)
                targets = [_target(place, each) for each in every]
                for each, target in zip(every, targets, strict=True):
                    parts.put(each, target.view(-1))
                if not _is_direct(place):
                    parts.wait()
                    place.write({each.name: t for each, t in zip(every, targets, strict=True)})
            parts.wait()
        finally:
            parts.give_up()


def _write_whole(
    places: Sequence[Place], sums: Callable[[Place], list[Sum]], sent_ahead: bool
) -> None:
    """Write parameters on an accelerator, a tensor at a time, the next one on its way meanwhile."""
    with ThreadPoolExecutor(1) as sender:
        prepared = _one_ahead(places, sums, sender) if sent_ahead else map(sums, places)
        for place, every in zip(places, prepared, strict=True):
            targets = [_target(place, each) for each in every]
            for each, target in zip(every, targets, strict=True):
                _write(each, slice(0, each.shape.numel()), target.view(-1))
            if not _is_direct(place):
                place.write({each.name: t for each, t in zip(every, targets, strict=True)})


def _one_ahead(
    places: Sequence[Place], sums: Callable[[Place], list[Sum]], thread: ThreadPoolExecutor
) -> Iterator[list[Sum]]:
    """Yield the sums of each place while a thread prepares those of the next."""
    under_way = thread.submit(sums, places[0]) if places else None
    for following in (*places[1:], None):
        if under_way is None:
            return
        every = under_way.result()
        under_way = None if following is None else thread.submit(sums, following)
        yield every


def _is_direct(place: Place) -> bool:
    """Tell whether a sum's elements can be written where they stand in the parameter."""
    return place.conversion is None and place.parameters[0].is_contiguous()


def _target(place: Place, each: Sum) -> Tensor:
    """Return what a sum is written to: the parameter, or memory of its own on the way there."""
    if _is_direct(place):
        return place.parameters[0]
    return torch.empty(each.shape, dtype=each.dtype, device=place.device)


def _write(each: Sum, elements: slice, target: Tensor) -> None:
    """Write some elements of a sum, rounded a second time where the target has another dtype."""
    out = target[elements]
    if each.dtype != target.dtype:
        out = torch.empty(out.shape, dtype=each.dtype, device=target.device)
    written = each.part(elements, out)
    if written.data_ptr() != target[elements].data_ptr():
        target[elements].copy_(written)


class _Parts:
    """Parts of tensors that threads compute."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._under_way: deque[Future[None]] = deque()

    def put(self, each: Sum, target: Tensor) -> None:
        """Have a sum written to a row of elements; its last parts may still be under way."""
        size = target.numel()
        for start in range(0, size, PART):
            self.wait(2 * self._workers.count)
            part = slice(start, min(start + PART, size))
            self._under_way.append(self._workers.pool.submit(_write, each, part, target))

    def wait(self, parts: int = 0) -> None:
        """Wait until no more than so many parts are under way."""
        while len(self._under_way) > parts:
            self._under_way.popleft().result()

    def give_up(self) -> None:
        """Wait until nothing is under way, whatever becomes of it."""
        for part in self._under_way:
            part.cancel()
        for part in self._under_way:
            with suppress(Exception):
                part.result()
