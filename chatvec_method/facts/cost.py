"""What a merge reads, writes and needs, held against what this machine has."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from chatvec_method.facts.output import expected_headers
from chatvec_method.facts.survey import ReadySurvey, Survey

LIBRARIES_BYTES = 600_000_000
"""What torch, transformers and mergekit take once they are loaded; measured on Linux."""


MEMORY_FIX = (
    "Close other programs, or merge on a machine with more memory; where the output is to be "
    "pickled, `--out-shard-size 1B` takes less."
)


@dataclass(frozen=True)
class Cost:
    """Sizes in bytes; None where a model's headers are not known."""

    download: int
    """Weights that are on the hub and not in a folder here."""
    read: int | None
    """Of the inputs, what the sum needs: base and chat are not read where the ratio is 0."""
    write: int | None
    memory: int | None
    """Peak, an estimate: the libraries, tensors made of several or dequantised, and a shard where
    the output is to be pickled."""
    free_disk: int
    free_memory: int


def cost_of(survey: Survey | ReadySurvey, out: Path) -> Cost:
    """Return what a merge costs; `out` is where its output will be."""
    plan = survey.plan
    read = write = largest = 0
    expected = expected_headers(plan, survey.vocabulary) if plan else {}
    for tensor in plan.tensors if plan else ():
        header = expected[tensor.name]
        if header is None:
            continue
        matched = survey.vocabulary is not None and tensor.weight.vocabulary_axis is not None
        readers = tuple(tensor.inputs) if matched else tensor.readers
        sources = [source for model in readers if (source := tensor.sources.get(model))]
        read += sum(source.bytes_read for source in sources)
        write += header.bytes
        # What is mapped is read in parts; only what has to be made of it is held as a whole.
        held = sum(source.header.bytes for source in sources if not source.mapped)
        largest = max(largest, held)
    whole = plan is not None and None not in expected.values()
    pickles = 0 if survey.options.safe_serialization else survey.options.out_shard_size
    return Cost(
        download=sum(
            header.bytes
            for model in survey.models.values()
            if model.folder is None
            for header in (model.tensors or {}).values()
        ),
        read=read if whole else None,
        write=write if whole else None,
        memory=LIBRARIES_BYTES + min(pickles, write) + largest if whole else None,
        free_disk=shutil.disk_usage(_existing(out)).free,
        free_memory=psutil.virtual_memory().available,
    )


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
