"""What a merge reads, writes and needs, held against what this machine has."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from chatvec_method.facts.output import can_stream, expected_header
from chatvec_method.facts.plan import header_of
from chatvec_method.facts.survey import Survey

LIBRARIES_BYTES = 600_000_000
"""What torch, transformers and mergekit take once they are loaded; measured on Linux."""


MEMORY_FIX = "Close other programs, or write `--out-shard-size 1B`: where mergekit's own writer is "
MEMORY_FIX += "needed, it collects a shard in memory."


@dataclass(frozen=True)
class Cost:
    """Sizes in bytes; None where a model's headers are not known."""

    download: int
    """Weights that are on the hub and not in a folder here."""
    read: int | None
    """Of the inputs, what the sum needs: base and chat are not read where the ratio is 0."""
    write: int | None
    memory: int | None
    """Peak, an estimate: the libraries, aligned embeddings, and where the output cannot be streamed
    also a shard and a tensor in the making."""
    free_disk: int
    free_memory: int


def cost_of(survey: Survey, out: Path) -> Cost:
    """Return what a merge costs; `out` is where its output will be."""
    read = write = largest = 0
    known, streamed = survey.plan is not None, can_stream(survey)
    for tensor in survey.plan.tensors if survey.plan else ():
        header = expected_header(survey, tensor)
        aligned = survey.vocabulary is not None and tensor.weight.vocabulary_axis is not None
        readers = tuple(tensor.inputs) if aligned else tensor.readers
        inputs = [header_of(survey.models[m], tensor.inputs[m]) for m in readers]
        if header is None or any(found is None for found in inputs):
            continue
        sizes = [found.bytes for found in inputs if found is not None]
        read += sum(sizes)
        write += header.bytes
        # Aligned embeddings are copies; other inputs are mapped files.
        held = len(sizes) if aligned else 0
        largest = max(largest, header.bytes * (held if streamed else held + 1))
    joined = _joined_experts(survey) if known else 0
    known = known and all(model.tensors is not None for model in survey.models.values())
    shard = 0 if streamed else min(survey.options.out_shard_size, write + joined)
    return Cost(
        download=sum(
            header.bytes
            for model in survey.models.values()
            if model.folder is None
            for header in (model.tensors or {}).values()
        ),
        read=read + 3 * joined if known else None,
        write=write + joined if known else None,
        memory=LIBRARIES_BYTES + shard + largest if known else None,
        free_disk=shutil.disk_usage(_existing(out)).free,
        free_memory=psutil.virtual_memory().available,
    )


def _joined_experts(survey: Survey) -> int:
    """Return the bytes of cp's tensors that the plan has under other names (joined experts)."""
    if survey.plan is None:
        return 0
    cp = survey.models[survey.plan.roles.cp]
    missing = [
        tensor
        for tensor in survey.plan.tensors
        if header_of(cp, tensor.inputs[survey.plan.roles.cp]) is None
    ]
    if not missing or cp.tensors is None:
        return 0
    planned = {tensor.name for tensor in survey.plan.tensors}
    return sum(header.bytes for name, header in cp.tensors.items() if name not in planned)


def in_bytes(size: int) -> str:
    """Return a size as people say it."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit in ("B", "KB") else f"{size:.1f} {unit}"
        size = size / 1000  # type: ignore[assignment]
    return f"{size:.1f} TB"


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
