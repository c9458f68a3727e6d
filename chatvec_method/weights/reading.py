"""The tensors of a merge's models, read from their files.

Files are opened once, and not by name for the life of the process as mergekit's own loaders do it:
they may have changed since, and several merges may be under way in one process.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import torch
from mergekit.common import ModelReference
from mergekit.io.loader import TensorLoader
from safetensors import SafetensorError
from torch import Tensor

from chatvec_method import aftermath
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.checkpoint import Checkpoint, Source, Weight
from chatvec_method.method.settings import dtype_name
from chatvec_method.method.vector import (
    ADDED_ROWS_FILE,
    KEPT_INDEX,
    KEPT_ROWS_FILE,
    vector_facts,
)
from chatvec_method.weights.dequantise import dequantised


class Reader:
    """Opens the files of models as they are needed; any thread may ask."""

    def __init__(
        self, checkpoints: Mapping[ModelReference, Checkpoint], *, lazy_unpickle: bool = False
    ) -> None:
        self.checkpoints = checkpoints
        self.lazy_unpickle = lazy_unpickle
        self._lock = threading.Lock()
        self._opened: dict[Path, TensorLoader] = {}

    def tensor(self, model: ModelReference, source: Source) -> Tensor:
        """Return a tensor of a model, on the CPU.

        Of one that is stored as it stands, in a file that can be mapped, nothing is read yet.
        """
        if source.conversion is None:
            return self._weight(model, source.weights[0])
        tensors = {weight.name: self._weight(model, weight) for weight in source.weights}
        return source.conversion.parameters(tensors)[source.parameter]

    def rows(self, model: ModelReference, source: Source, rows: slice | Tensor) -> Tensor:
        """Return some rows of a tensor, along its first axis; of a quantised one, only these.

        Not for what has to be converted, of which there is all or nothing; and by their numbers,
        int64 in any order, only where `rows_stand_alone`.
        """
        return self._weight(model, source.weights[0], rows)

    def rows_stand_alone(self, model: ModelReference, source: Source) -> bool:
        """Tell whether any rows of a tensor can be dequantised without others."""
        quantisation = self.checkpoints[model].quantisation
        weight = source.weights[0]
        if source.conversion is not None or not weight.quantised or quantisation is None:
            return False
        return quantisation.weights[weight.name].rows_stand_alone

    def added_rows(self, vector: ModelReference, source: Source) -> Tensor:
        """Return chat's own rows of the tokens that a vector adds.

        Raises:
            ChatVecError: They are not there, or not as many as its config has tokens.
        """
        weight = source.weights[0]
        facts = vector_facts(self.checkpoints[vector].model.config)
        try:
            rows = self._of_file(vector, ADDED_ROWS_FILE, weight.name)
        except (OSError, SafetensorError) as error:
            raise ChatVecError(
                f"vector {vector}: {ADDED_ROWS_FILE} has no rows of {weight.name}, for the tokens "
                "that its config says it adds.",
                "Download it again.",
            ) from error
        wanted = (len(facts.added_tokens) if facts else 0, *weight.header.shape[1:])
        if tuple(rows.shape) != wanted or not rows.dtype.is_floating_point:
            raise ChatVecError(
                f"vector {vector}: {ADDED_ROWS_FILE} has {weight.name} as {_shown(rows)}, and its "
                f"config says that there are rows of the shape {list(wanted)}.",
                "Download or extract it again.",
            )
        return rows

    def kept_rows(self, model: ModelReference, name: str) -> tuple[Tensor, Tensor] | None:
        """Return the rows of a compressed vector that are kept in full, and which rows they are.

        None where none are.

        Raises:
            ChatVecError: They are no rows of the tensor.
        """
        folder = self.checkpoints[model].model.folder
        assert folder is not None
        if not (folder / KEPT_ROWS_FILE).is_file():
            return None
        shape = self.checkpoints[model].weights[name].header.shape
        try:
            held = self._loader(folder / KEPT_ROWS_FILE).keys()
            if name + KEPT_INDEX not in held:
                return None
            numbers = self._of_file(model, KEPT_ROWS_FILE, name + KEPT_INDEX)
            rows = self._of_file(model, KEPT_ROWS_FILE, name)
            fit = rows.shape == (len(numbers), *shape[1:]) and rows.dtype.is_floating_point
            fit &= numbers.dtype == torch.int64 and numbers.ndim == 1 and len(numbers) <= shape[0]
            if fit and (not len(numbers) or 0 <= numbers.min() <= numbers.max() < shape[0]):
                return numbers, rows
        except (OSError, SafetensorError, TypeError):
            pass
        raise ChatVecError(
            f"vector {model}: {KEPT_ROWS_FILE} has something else than rows of {name}, which has "
            f"the shape {list(shape)}.",
            "Download or extract it again.",
        )

    def let_go(self) -> None:
        """Close all files; what is asked for next opens them anew."""
        with self._lock:
            self._opened.clear()

    def _weight(
        self, model: ModelReference, weight: Weight, rows: slice | Tensor | None = None
    ) -> Tensor:
        parts = [self._stored(model, name) for name in weight.parts]
        quantisation = self.checkpoints[model].quantisation
        if not weight.quantised or quantisation is None:
            return parts[0] if rows is None else parts[0][rows]
        out = dequantised(quantisation, weight.name, parts, rows)
        kept = self.kept_rows(model, weight.name)
        if kept is not None and len(kept[0]):
            wanted = torch.arange(weight.header.shape[0])[slice(None) if rows is None else rows]
            numbers, places = kept[0].sort()
            place = torch.searchsorted(numbers, wanted).clamp_(max=len(numbers) - 1)
            held = numbers[place] == wanted
            out[held] = kept[1][places[place[held]]].to(out.dtype)
        return out

    def _stored(self, model: ModelReference, name: str) -> Tensor:
        holder = self.checkpoints[model].model
        assert holder.tensors is not None
        return self._of_file(model, holder.tensors[name].file, name)

    def _of_file(self, model: ModelReference, file_name: str, name: str) -> Tensor:
        folder = self.checkpoints[model].model.folder
        assert folder is not None
        tensor: Tensor = self._loader(folder / file_name).get_tensor(name)
        return tensor

    def _loader(self, file: Path) -> TensorLoader:
        with self._lock:
            if file not in self._opened:
                aftermath.note_mapped(file)
                self._opened[file] = TensorLoader.get(
                    str(file), use_lazy_unpickle=self.lazy_unpickle
                )
            return self._opened[file]


def _shown(tensor: Tensor) -> str:
    return f"{dtype_name(tensor.dtype)} {list(tensor.shape)}"
