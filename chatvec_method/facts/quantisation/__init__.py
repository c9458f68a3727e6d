"""How a checkpoint's weights are quantised, told from its tensors' names, dtypes and shapes.

What a weight is made of (a value for each element and the scales that it is multiplied by), what
else lies beside it, and whether `chatvec_method.weights.dequantise` can form the numbers again. The
tensors decide and not the config: a `quantization_config` may be missing, or left over.
"""

from __future__ import annotations

from chatvec_method.facts.quantisation.blocks import scale_grid
from chatvec_method.facts.quantisation.checkpoint import TRANSFORMERS_FLOOR, quantisation_of
from chatvec_method.facts.quantisation.formats import (
    WORD_BITS,
    Packing,
    Part,
    Quantisation,
    QuantisedWeight,
)

__all__ = [
    "TRANSFORMERS_FLOOR",
    "WORD_BITS",
    "Packing",
    "Part",
    "Quantisation",
    "QuantisedWeight",
    "quantisation_of",
    "scale_grid",
]
