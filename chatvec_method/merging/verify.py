"""An output held against the hashes of what was written and against its recipe, by reading alone.

By its hashes, every byte of weights and files is what was written. By the recipe, names, shapes,
dtypes, index, config, tokenizer, template and stop tokens are what it makes; where there are no
hashes, as in what stock mergekit wrote, every element is looked at for NaN and infinity. Deep,
every element is computed again from the models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from mergekit.options import MergeOptions
from torch import Tensor

from chatvec_method.errors import DIFFERS, ChatVecError
from chatvec_method.facts.survey import ReadySurvey, Survey
from chatvec_method.facts.survey import survey as survey_recipe
from chatvec_method.finishing.hashes_file import read_hashes, unhashed_files
from chatvec_method.finishing.output import RECIPE_FILE, recipe_of
from chatvec_method.intake import check_folder
from chatvec_method.merging.read_back import check_file, read_back
from chatvec_method.merging.structure import AGAIN, OnBytes, Output, differences, structure
from chatvec_method.merging.unfinished import unfinished
from chatvec_method.method.computed import is_computed
from chatvec_method.progress import Progress
from chatvec_method.weights.fetching import fetched
from chatvec_method.weights.reading import Reader
from chatvec_method.weights.stored import StoredTensors, forget
from chatvec_method.workers import Workers, workers

SAMPLE = 1 << 12
"""Elements of each tensor that are computed again where not all of them are."""
OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Verification:
    """How much of an output was compared, all of it right."""

    tensors: int
    bytes: int
    """Of all tensors."""
    hashed: bool
    """Whether all of them, and the other files, are what was written, by the hashes beside them."""
    unhashed: tuple[str, ...] = ()
    """Files of which the hashes tell nothing: the card, and what came later."""
    unheld: str = ""
    """Why it was not held against its recipe; empty if it was."""
    elements: int = 0
    """Computed again from the models."""
    unfinished: tuple[str, ...] = ()
    """Files that `chatvec finish` would change, as stock mergekit wrote them."""


def verify(
    folder: Path,
    survey: Survey | None,
    options: MergeOptions,
    *,
    deep: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> Verification:
    """Hold a merge's output against its hashes and its recipe.

    What the system holds of its files in memory is forgotten first, where that can be asked for, so
    that they come from the disk.

    Args:
        folder: The output, of `chatvec merge` or of stock mergekit.
        survey: Of the recipe; None for the recipe in the output. Where there is none or its models
            cannot be found, hashes are enough, unless deep.
        options: mergekit's.
        deep: Whether all elements are computed again, which reads the models.
        on_progress: Is told how far it is.

    Returns:
        How much was compared, all of it right.

    Raises:
        ChatVecError: The output is not what it should be (its code is `errors.DIFFERS`) and what is
            wrong first; or that cannot be told.
    """
    if not folder.is_dir():
        raise ChatVecError(
            f"there is no folder {folder}.",
            "Write the folder of a merge's output, or `owner/name` of the hub.",
        )
    with differences():
        check_folder(folder)
        forget(folder)
        written = read_hashes(folder)

    def on_bytes(done: int, total: int) -> None:
        on_progress(Progress("verify", done, total))

    size = 0
    if written is not None and not deep:
        size = read_back(folder, written, on_bytes)
    elif written is not None and survey is None and (folder / RECIPE_FILE).is_file():
        check_file(RECIPE_FILE, folder, written)  # it is about to be believed
    unhashed = unhashed_files(folder, written) if written is not None else ()
    try:
        ready = (survey or survey_recipe(recipe_of(folder), options)).ready()
    except ChatVecError as error:
        if survey is not None or deep or written is None:
            raise
        return Verification(
            len(written.tensors), size, hashed=True, unhashed=unhashed, unheld=str(error)
        )
    if deep:
        ready = fetched(ready, on_progress)
    output = structure(folder, ready)
    left = unfinished(output, ready, written)
    elements = 0
    if deep:  # before hashes, which know no elements
        elements = output.recomputed(
            ready,
            Reader(ready.plan.checkpoints, lazy_unpickle=options.lazy_unpickle),
            on_bytes=lambda done, total: on_progress(Progress("recompute", done, total)),
        )
        if written is not None:
            read_back(folder, written, on_bytes)
    elif written is None:
        _check_all_finite(output, on_bytes)
    return Verification(
        tensors=len(output.stored.headers),
        bytes=output.bytes,
        hashed=written is not None,
        unhashed=unhashed,
        elements=elements,
        unfinished=left,
    )


def verify_written(
    out: Path, survey: ReadySurvey, reader: Reader, on_bytes: OnBytes
) -> Verification:
    """Hold an output that has just been written and finished against its hashes and its recipe.

    Besides, some elements of each tensor are computed again, on the CPU.

    Args:
        out: The output, with its hashes.
        survey: Of the recipe, with all models' files here.
        reader: Of the models' files.
        on_bytes: Is told how many bytes of tensors have been read, and how many there are.

    Raises:
        ChatVecError: The output is not what it should be.
    """
    written = read_hashes(out)
    assert written is not None
    size = read_back(out, written, on_bytes)
    elements = structure(out, survey).recomputed(survey, reader, elements_per_tensor=SAMPLE)
    return Verification(
        len(written.tensors),
        size,
        hashed=True,
        unhashed=unhashed_files(out, written),
        elements=elements,
    )


def _check_all_finite(output: Output, on_bytes: OnBytes) -> None:
    done, stored = 0, output.stored
    with workers() as at_work:
        for name, header in stored.headers.items():
            if header.dtype.is_floating_point and not is_computed(name, header.shape):
                _check_finite(stored, name, at_work)
            done += header.bytes
            on_bytes(done, output.bytes)


def _check_finite(stored: StoredTensors, name: str, at_work: Workers) -> None:
    def is_finite(part: slice) -> bool:
        # NaN wins over all else; eight times as fast as `isfinite` over all elements.
        ends: Tensor = torch.stack(torch.aminmax(stored.elements(name, part)))
        return bool(ends.isfinite().all())

    if not all(at_work.pool.map(is_finite, stored.chunks(name))):
        raise ChatVecError(f"{name} has NaN or infinite elements in the output.", AGAIN, DIFFERS)
