"""mergekit's plan, run by mergekit's executor, with every tensor written to its place as it comes.

mergekit's own writer collects shards of 5 GB in memory and copies them once more. Here the sum goes
from the inputs, mapped from their files, through a buffer in cache to its place in the output's:
no tensor of it is ever whole in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from mergekit.architecture import get_architecture_info
from mergekit.common import dtype_from_name
from mergekit.graph import Executor, Task
from mergekit.io.tasks import SaveTensor
from mergekit.plan import MergePlanner
from torch import Tensor

from chatvec_method.method import computed_by
from chatvec_method.models import TensorHeader
from chatvec_method.plan import MergePlan
from chatvec_method.quiet import quiet
from chatvec_method.recipe import tokenizer_source
from chatvec_method.shards import DTYPE_NAMES, ShardWriter, lay_out
from chatvec_method.survey import Survey, expected_header
from chatvec_method.tensor_merge import TensorMerge
from chatvec_method.workers import ForRanges, workers

MERGEKIT_VERSION = "0.1.5"
"""As mergekit's writer has it in every index."""


def can_stream(survey: Survey) -> bool:
    """Tell whether the output's tensors are known beforehand and go to safetensors files.

    Not known are experts, which checkpoints have one by one and mergekit joins while it loads, and
    all where headers cannot be read. With `source: union`, mergekit numbers the tokens anew each
    time, so that its rows and its tokenizer have to come from one run.
    """
    options, config = survey.options, survey.recipe.config
    if survey.plan is None or not options.safe_serialization or options.multi_gpu:
        return False
    if tokenizer_source(config) == "union":
        return False
    headers = _headers(survey, survey.plan)
    return all(header and header.dtype in DTYPE_NAMES for header in headers.values())


def stream_weights(
    survey: Survey, folder: Path, on_bytes: Callable[[int], None] = lambda _: None
) -> None:
    """Write the output's weights and their index into a folder, as mergekit's writer would.

    Args:
        survey: One that `can_stream`, without problems.
        folder: An empty folder.
        on_bytes: Is told how many more bytes have been written.

    Raises:
        ChatVecError: A model's weights are at fault.
        OSError: The folder cannot be written to, or the disk is full.
    """
    saves, order = _planned(survey, folder)
    headers = _headers(survey, survey.plan) if survey.plan else {}
    layout = lay_out(
        {name: headers[name] for name in order if headers[name] is not None},  # type: ignore[misc]
        survey.options.out_shard_size,
        MERGEKIT_VERSION,
    )
    names = {save.tensor_task: save for save in saves}
    with ShardWriter(folder, layout) as writer, workers() as for_ranges:
        streamed: set[str] = set()

        def compute(merge: TensorMerge) -> Tensor:
            _write_in_parts(merge, writer, for_ranges)
            streamed.add(merge.name)
            on_bytes(headers[merge.name].bytes)  # type: ignore[union-attr]
            return torch.zeros((), dtype=merge.dtype).expand(merge.shape)  # stands for the result

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


def _headers(survey: Survey, plan: MergePlan) -> Mapping[str, TensorHeader | None]:
    return {tensor.name: expected_header(survey, tensor) for tensor in plan.tensors}


def _write_in_parts(merge: TensorMerge, writer: ShardWriter, for_ranges: ForRanges) -> None:
    """Compute a tensor and put it in its place, a range of its elements in each thread."""

    def write(elements: slice) -> None:
        start = elements.start
        for part in merge.parts(elements):
            writer.write_elements(merge.name, start, part)
            start += part.numel()

    if merge.cuttable():
        for_ranges(merge.shape.numel(), write)
    else:
        write(slice(0, merge.shape.numel()))
