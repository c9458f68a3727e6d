"""The rows of embeddings and head that tuning moved most, kept in full beside the packed ones.

Each row is one token's: those of turn markers and other tokens of the chat format have moved far,
and carry much of what the chat model learnt.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from chatvec_method.method.vector import KEPT_INDEX, KEPT_ROWS_FILE
from chatvec_method.vectors.pairs import Differences, Pairs
from chatvec_method.weights.reading import Reader

SHARE = 0.01
"""Of all rows."""
CHUNK = 1 << 20
"""Elements that are looked at in one go."""


def save_kept_rows(pairs: Pairs, names: Iterable[str], reader: Reader, folder: Path) -> None:
    """Write the rows of some tensors that moved most, in float32.

    Args:
        pairs: Of chat and base.
        names: The tensors, of one row for each token.
        reader: Of both models' files.
        folder: The vector's.
    """
    wanted = frozenset(names)
    kept: dict[str, Tensor] = {}
    for pair in pairs.pairs:
        if pair.name not in wanted:
            continue
        differences = Differences(pairs, pair, reader)
        count, step = pair.shape[0], max(CHUNK // pair.shape[1], 1)
        lengths = torch.cat(
            [
                differences.rows(first, min(first + step, count)).float().norm(dim=1)
                for first in range(0, count, step)
            ]
        )
        most = lengths.topk(max(int(SHARE * count), 1)).indices.sort().values
        rows = [differences.rows(i, i + 1).float() for i in most.tolist()]
        kept[pair.name] = torch.cat(rows)
        kept[pair.name + KEPT_INDEX] = most
    if kept:
        save_file(kept, folder / KEPT_ROWS_FILE, {"format": "pt"})
