"""Tensors of old checkpoints that are computed, and not learnt: masks, and angles of rotation."""

from __future__ import annotations

import re
from collections.abc import Sequence

COMPUTED = re.compile(r"rotary_emb\.(?:inv_freq|cos_cached|sin_cached)$|\.masked_bias$")
CAUSAL_MASK = re.compile(r"(?:attn|attention)\.bias$")
"""A mask, where it has four axes, and a bias where it has one."""


def is_computed(name: str, shape: Sequence[int]) -> bool:
    """Tell whether every program makes a tensor anew, so that what is stored means nothing."""
    if CAUSAL_MASK.search(name):
        return len(shape) == 4
    return bool(COMPUTED.search(name))
