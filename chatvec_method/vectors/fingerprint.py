"""Some rows of base, kept with its vector, by which a cp of another base is told.

Continual pretraining turns the rows of a model a little (cosines above 0.9), and those of another
model point elsewhere (about 0); so a few rows are enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from chatvec_method.method.vector import FINGERPRINT_FILE
from chatvec_method.vectors.pairs import Pair, Pairs
from chatvec_method.weights.reading import Reader

MATRICES = 12
"""Of so many, evenly over the model, the middle row is kept."""


def save_fingerprint(pairs: Pairs, reader: Reader, folder: Path) -> None:
    """Write the middle rows of some of base's matrices, by the names of the vector's tensors."""
    matrices = [p for p in pairs.pairs if p.kind not in ("embeddings", "head", "norms")]
    matrices = [p for p in matrices if len(p.shape) == 2]
    rows = {pair.name: _middle(pairs, pair, reader) for pair in _evenly(matrices)}
    save_file(rows, folder / FINGERPRINT_FILE, {"format": "pt"})


def _middle(pairs: Pairs, pair: Pair, reader: Reader) -> Tensor:
    assert pair.base is not None
    row = pair.shape[0] // 2
    part = slice(row, row + 1)
    if pair.base.conversion is None:
        kept = reader.rows(pairs.base.reference, pair.base, part)
    else:
        kept = reader.tensor(pairs.base.reference, pair.base)[part]
    return kept.reshape(-1).to(torch.float32).contiguous()


def _evenly(pairs: Sequence[Pair]) -> list[Pair]:
    step = max(len(pairs) / MATRICES, 1)
    return [pairs[int(i * step)] for i in range(min(MATRICES, len(pairs)))]
