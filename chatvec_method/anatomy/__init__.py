"""Where in a model a chat vector and a language vector live, and where they collide.

The chat vector is τ = chat − base, the language vector λ = cp − base. `examine` reads the models
once and returns their figures; `summary` says what they mean, and `suggested_schedule` what one
might try.
"""

from __future__ import annotations

from chatvec_method.anatomy.measure import examine
from chatvec_method.anatomy.passes import why_slow
from chatvec_method.anatomy.report import Anatomy, Pair, TensorAnatomy
from chatvec_method.anatomy.suggestion import agreement, suggested_schedule
from chatvec_method.anatomy.summary import summary
from chatvec_method.anatomy.sums import Sums
from chatvec_method.anatomy.tokens import TokenMove, TokenMoves

__all__ = [
    "Anatomy",
    "Pair",
    "Sums",
    "TensorAnatomy",
    "TokenMove",
    "TokenMoves",
    "agreement",
    "examine",
    "suggested_schedule",
    "summary",
    "why_slow",
]
