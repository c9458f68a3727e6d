"""A compressed vector in full, as stock mergekit-yaml reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from mergekit.common import ModelReference
from mergekit.options import MergeOptions

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.checkpoint import Checkpoint
from chatvec_method.facts.models import TensorHeader, look_up
from chatvec_method.intake import (
    LARGEST_OF_TOKENS_BYTES,
    WEIGHTS,
    check_folder,
    check_inside,
    read_bytes,
)
from chatvec_method.method.vector import (
    ADAPTER_FOLDER,
    ADDED_ROWS_FILE,
    FINGERPRINT_FILE,
    vector_facts,
)
from chatvec_method.progress import Progress
from chatvec_method.vectors.extract import PART
from chatvec_method.vectors.packing import bytes_of
from chatvec_method.weights.fetching import with_files
from chatvec_method.weights.reading import Reader
from chatvec_method.weights.shards import MERGEKIT_VERSION, ShardWriter, lay_out
from chatvec_method.weights.staging import staged

BESIDE = (ADDED_ROWS_FILE, FINGERPRINT_FILE)
"""The files with tensors that a vector in full has, too."""


def expand(
    vector: ModelReference,
    out: Path,
    options: MergeOptions,
    *,
    overwrite: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> None:
    """Write a vector with every element by itself: packed ones in float32, others as they are.

    Args:
        vector: A vector that `extract` wrote.
        out: The folder to be.
        options: mergekit's.
        overwrite: Whether it may replace a model or a vector.
        on_progress: Is told how much has been downloaded, and how much has been written.

    Raises:
        ChatVecError: It is no vector, cannot be read, or `out` cannot be written.
    """
    model = look_up(vector, options.trust_remote_code)
    if vector_facts(model.config) is None:
        raise ChatVecError(
            f"model {vector} is not a chat vector that `chatvec vector extract` wrote.",
            "Write the folder or the name of one.",
        )
    model = with_files([model], options, on_progress).get(vector, model)
    model.check_files()
    checkpoint = Checkpoint(model)
    checkpoint.check_quantisation()
    headers = {
        name: TensorHeader(
            torch.float32 if weight.quantised else weight.header.dtype, weight.header.shape, ""
        )
        for name, weight in checkpoint.weights.items()
    }
    total, written = bytes_of(headers), 0
    assert model.folder is not None
    with staged(out, overwrite=overwrite, models=[model.folder]) as staging:
        reader = Reader({vector: checkpoint})
        layout = lay_out(headers, options.out_shard_size, MERGEKIT_VERSION)
        with ShardWriter(staging.folder, layout) as writer:
            for name, header in headers.items():
                source = checkpoint.stored([name])
                assert source is not None
                elements = reader.tensor(vector, source).contiguous().view(-1)
                for start in range(0, len(elements), PART):
                    writer.write_elements(name, start, elements[start : start + PART])
                written += header.bytes
                on_progress(Progress("merge", written, total))
        _copy_small_files(model.folder, staging.folder)
        staging.publish()


def _copy_small_files(folder: Path, out: Path) -> None:
    for file in sorted(folder.iterdir()):
        # Any other file of weights could have the name of one that has just been written.
        left_out = WEIGHTS.fullmatch(file.name) and file.name not in BESIDE
        if not file.is_file() or left_out or file.name.endswith(".index.json"):
            continue
        check_inside(file, folder)
        (out / file.name).write_bytes(read_bytes(file, LARGEST_OF_TOKENS_BYTES))
    if (folder / ADAPTER_FOLDER).is_dir():
        _copy_adapter(folder / ADAPTER_FOLDER, folder, out / ADAPTER_FOLDER)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config.pop("quantization_config", None)
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (out / "config.json").write_text(text, encoding="utf-8")


def _copy_adapter(adapter: Path, folder: Path, out: Path) -> None:
    """Copy the files of a vector's adapter, and nothing that is no file."""
    check_folder(adapter)
    out.mkdir()
    for file in adapter.iterdir():
        check_inside(file, folder)
        if file.is_file():
            shutil.copyfile(file, out / file.name)
