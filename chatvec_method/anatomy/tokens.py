"""Which tokens' rows chat training moved most, and whether cp left them untrained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from mergekit.common import ModelReference
from torch import Tensor

from chatvec_method.facts.token_text import holds_bytes, is_part_of_character, text_of

MOST = 20
"""So many tokens are named."""
TRAINED = 1e-3
"""How far a row must have moved, as a share of a typical row's norm, to count as trained."""


@dataclass(frozen=True)
class TokenMove:
    """How far a token's row was moved, as a share of the typical norm of base's rows."""

    token: str | None
    """None for a row without a token."""
    text: str | None
    """What the token stands for; None also where that is only a part of a character."""
    row: int
    """Of the output."""
    by_chat: float
    """‖τ‖ of the row."""
    by_cp: float | None
    """‖λ‖ of the row; None where base is not here."""

    @property
    def name(self) -> str:
        """The token's text in quotes, or the row."""
        return f"row {self.row}" if self.text is None else repr(self.text)

    @property
    def untrained(self) -> bool:
        """Whether cp is known to have left the row as it was in base."""
        return self.by_cp is not None and self.by_cp < TRAINED


@dataclass(frozen=True)
class TokenMoves:
    """The rows of the embeddings or of the head."""

    tensor: str
    chat: ModelReference
    rows: int
    typical_norm: float
    """‖base‖ / √rows: the root mean square of the norms of base's rows; of cp's, where base is not
    here."""
    most: tuple[TokenMove, ...]
    """Those that chat moved most."""
    moved_by_chat: int
    untrained_by_cp: int | None
    """Rows; None where base is not here."""
    both: int
    """Rows that chat moved and cp is known to have left untrained."""


def token_moves(
    tensor: str,
    chat: ModelReference,
    base: Tensor,
    vector: Tensor,
    other: Tensor | None,
    names: Mapping[int, str],
) -> TokenMoves:
    """Return how far each row was moved.

    Args:
        tensor: Its name.
        chat: Whose vector it is.
        base: Σ b² of each row, (rows,); Σ cp² where base is not here.
        vector: Σ τ² of each row.
        other: Σ λ² of each row; None where it is not known.
        names: The tokens by row.
    """
    typical = float(base.mean().sqrt()) or 1.0
    by_chat = vector.sqrt() / typical
    by_cp = other.sqrt() / typical if other is not None else None
    order = by_chat.argsort(descending=True, stable=True)[:MOST].tolist()
    in_bytes = holds_bytes(set(names.values()))

    def text(row: int) -> str | None:
        token = names.get(row)
        if token is None or (in_bytes and is_part_of_character(token)):
            return None
        return text_of(token)

    untrained = by_cp < TRAINED if by_cp is not None else torch.zeros(len(base), dtype=torch.bool)
    moved = by_chat >= TRAINED
    return TokenMoves(
        tensor=tensor,
        chat=chat,
        rows=len(base),
        typical_norm=typical,
        most=tuple(
            TokenMove(
                *(names.get(i), text(i), i, float(by_chat[i])),
                by_cp=float(by_cp[i]) if by_cp is not None else None,
            )
            for i in order
            if by_chat[i] > 0
        ),
        moved_by_chat=int(moved.sum()),
        untrained_by_cp=int(untrained.sum()) if by_cp is not None else None,
        both=int((moved & untrained).sum()),
    )
