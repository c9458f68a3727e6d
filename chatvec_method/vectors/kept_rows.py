"""The rows of embeddings and head that tuning moved most, kept in full beside the packed ones.

Each row is one token's: those of turn markers and other tokens of the chat format have moved far,
and carry much of what the chat model learnt.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from chatvec_method.method.vector import KEPT_INDEX, KEPT_ROWS_FILE
from chatvec_method.vectors.pairs import Differences, Pairs
from chatvec_method.weights.reading import Reader

SHARE = 0.01
"""Of all rows."""


def save_kept_rows(
    pairs: Pairs, lengths: Mapping[str, Tensor | None], reader: Reader, folder: Path
) -> None:
    """Write the rows of packed embeddings and heads that moved most, in float32.

    Args:
        pairs: Of chat and base.
        lengths: Of each row of each packed tensor; None of others.
        reader: Of both models' files.
        folder: The vector's.
    """
    kept: dict[str, Tensor] = {}
    for pair in pairs.pairs:
        of_rows = lengths[pair.name]
        if of_rows is None:
            continue
        most = of_rows.topk(max(int(SHARE * len(of_rows)), 1)).indices.sort().values
        differences = Differences(pairs, pair, reader)
        rows = [differences.rows(i, i + 1).float() for i in most.tolist()]
        kept[pair.name] = torch.cat(rows)
        kept[pair.name + KEPT_INDEX] = most
    if kept:
        save_file(kept, folder / KEPT_ROWS_FILE, {"format": "pt"})
