"""mergekit's plan, run by mergekit's executor, with every tensor written to its place as it comes.

mergekit's own writer collects shards of 5 GB in memory and copies them once more. Here the sum goes
from the inputs, mapped from their files, through a few buffers to its place in the output's: no
tensor of it is ever whole in memory. Each thread computes a part, and writes it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import torch
from mergekit.architecture import get_architecture_info
from mergekit.common import dtype_from_name
from mergekit.graph import Executor, Task
from mergekit.io.tasks import SaveTensor
from mergekit.plan import MergePlanner
from torch import Tensor

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.models import TensorHeader
from chatvec_method.facts.output import expected_headers
from chatvec_method.facts.plan import PlannedTensor
from chatvec_method.facts.survey import Survey
from chatvec_method.kernel import all_finite
from chatvec_method.method.plugin import computed_by
from chatvec_method.method.tensor_merge import TensorMerge
from chatvec_method.quiet import quiet
from chatvec_method.weights.loading import load_tensor
from chatvec_method.weights.read_ahead import read_ahead
from chatvec_method.weights.shards import ShardWriter, lay_out
from chatvec_method.workers import Workers, workers

MERGEKIT_VERSION = "0.1.5"
"""As mergekit's writer has it in every index."""
PART = 1 << 21
"""Elements that are computed, and then written, in one go."""


def stream_weights(
    survey: Survey, folder: Path, on_bytes: Callable[[int], None] = lambda _: None
) -> None:
    """Write the output's weights and their index into a folder, as mergekit's writer would.

    What is written has no NaN or infinite elements.

    Args:
        survey: One that `can_stream`, without problems.
        folder: An empty folder.
        on_bytes: Is told how many more bytes have been written.

    Raises:
        ChatVecError: A model's weights are at fault.
        OSError: The folder cannot be written to, or the disk is full.
    """
    saves, order = _planned(survey, folder)
    headers = {
        name: header for name, header in expected_headers(survey).items() if header is not None
    }
    in_order = {name: headers[name] for name in order}
    layout = lay_out(in_order, survey.options.out_shard_size, MERGEKIT_VERSION)
    kept = {tensor.name: tensor for tensor in _kept(survey, headers)}
    mixed = [name for name in order if name not in kept]
    names = {save.tensor_task: save for save in saves if save.tensor_name not in kept}
    with (
        ShardWriter(folder, layout) as writer,
        read_ahead(survey, [*kept, *mixed]) as reading,
        _parts(writer) as parts,
    ):
        streamed: set[str] = set()

        def stream(merge: TensorMerge) -> None:
            reading(merge.name)
            parts.put(merge)
            streamed.add(merge.name)
            on_bytes(headers[merge.name].bytes)

        def compute(merge: TensorMerge) -> Tensor:
            stream(merge)
            return torch.zeros((), dtype=merge.dtype).expand(merge.shape)  # stands for the result

        for tensor in kept.values():
            stream(_cp_alone(tensor, headers[tensor.name].dtype))
        executor = Executor(
            targets=list(names),
            math_device=survey.options.device,
            storage_device=survey.options.device if survey.options.low_cpu_memory else "cpu",
        )
        with computed_by(compute), quiet():
            for task, tensor in executor.run(quiet=True):
                save = names[task]
                if save.tensor_name in streamed:
                    continue
                if save.dtype:  # buffers of integers, and what mergekit passes by the method
                    tensor = tensor.to(dtype=dtype_from_name(save.dtype))
                if tensor.is_floating_point() and not all_finite(tensor):
                    raise ChatVecError(
                        f"{save.tensor_name} has NaN or infinite elements.",
                        "Download or convert the models again.",
                    )
                writer.write(save.tensor_name, tensor.cpu())
                on_bytes(tensor.nbytes)


def _planned(survey: Survey, folder: Path) -> tuple[list[SaveTensor], list[str]]:
    """Return what mergekit would save, and the names in the order in which it would."""
    config = survey.recipe.config.model_copy(deep=True)
    donor = survey.models[config.base_model]
    with quiet():
        planner = MergePlanner(
            config,
            get_architecture_info(config, survey.options),
            options=survey.options,
            out_model_config=donor.config,
        )
        targets: list[Task] = planner.plan_to_disk(out_path=str(folder))
    saves = [target for target in targets if isinstance(target, SaveTensor)]
    schedule = Executor(targets=saves).schedule.tasks
    tasks = (handle.task() for handle in schedule)
    return saves, [task.tensor_name for task in tasks if isinstance(task, SaveTensor)]


def _kept(survey: Survey, headers: Mapping[str, TensorHeader]) -> Iterator[PlannedTensor]:
    """Yield the tensors that are cp's own, with which base and chat have nothing to do.

    mergekit would open all three, and that alone makes the system read some of each.
    """
    assert survey.plan is not None
    for tensor in survey.plan.tensors:
        by_token = survey.vocabulary is not None and tensor.weight.vocabulary_axis is not None
        cast_on_load = survey.recipe.config.dtype or tensor.weight.force_dtype
        plain = headers[tensor.name].dtype.is_floating_point and not by_token and not cast_on_load
        if plain and tensor.readers == (tensor.roles.cp,):
            yield tensor


def _cp_alone(tensor: PlannedTensor, dtype: torch.dtype) -> TensorMerge:
    roles = tensor.roles
    own = load_tensor(tensor, roles.cp)
    assert own is not None  # a header has been seen
    return TensorMerge(
        tensor.name, {roles.cp: own}, cp=roles.cp, base=roles.base, ratios={}, dtype=dtype
    )


class _Parts:
    """Tensors computed and written part by part, each part in the next thread that is free."""

    def __init__(self, writer: ShardWriter, workers: Workers) -> None:
        self._writer = writer
        self._workers = workers
        self._under_way: deque[Future[None]] = deque()
        self._buffers = threading.local()

    def put(self, merge: TensorMerge) -> None:
        """Have a tensor computed and written; its last parts may still be under way.

        Raises:
            ChatVecError: A model's weights are at fault, those of this tensor or one before it.
            OSError: A part could not be written.
        """
        if not merge.cuttable():
            self._writer.write(merge.name, merge.whole())
            return
        size = merge.shape.numel()
        for start in range(0, size, PART):
            self.wait(2 * self._workers.count)
            part = slice(start, min(start + PART, size))
            self._under_way.append(self._workers.pool.submit(self._write, merge, part))

    def wait(self, parts: int = 0) -> None:
        """Wait until no more than so many parts are under way."""
        while len(self._under_way) > parts:
            self._under_way.popleft().result()

    def _write(self, merge: TensorMerge, part: slice) -> None:
        elements = merge.part(part, self._buffer(merge)[: part.stop - part.start])
        self._writer.write_elements(merge.name, part.start, elements)

    def _buffer(self, merge: TensorMerge) -> Tensor:
        """Return this thread's own."""
        device = merge.tensors[merge.cp].device
        kept: dict[tuple[torch.dtype, torch.device], Tensor] = self._buffers.__dict__
        key = (merge.dtype, device)
        if key not in kept:
            kept[key] = torch.empty(PART, dtype=merge.dtype, device=device)
        return kept[key]


@contextmanager
def _parts(writer: ShardWriter) -> Iterator[_Parts]:
    """Yield what computes tensors and writes them; at the end all of them are written."""
    with workers() as at_work:
        parts = _Parts(writer, at_work)
        yield parts
        parts.wait()
