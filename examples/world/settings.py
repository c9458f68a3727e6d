"""What makes one world another: its seed, the size of its models, and the word order of B."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from transformers import LlamaConfig, PreTrainedTokenizerFast

from .language import Translate
from .training import Schedule
from .word_order import AS_A, ORDERS


@dataclass(frozen=True)
class Size:
    """How large the models are, and how much of each schedule they need."""

    hidden: int
    mlp: int
    layers: int
    rows: int  # of a batch
    rate: float = 1.0  # of the learning rate of the small world; wide models want less

    def config(self, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
        """Return the architecture."""
        return LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden,
            intermediate_size=self.mlp,
            num_hidden_layers=self.layers,
            num_attention_heads=8,
            max_position_embeddings=128,
            # Positions turn fast enough to tell neighbours apart in a context this short.
            rope_parameters={"rope_type": "default", "rope_theta": 100.0},
            # With the usual 0.02, a model this narrow never learns to copy.
            initializer_range=0.09 * math.sqrt(128 / self.hidden),
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )

    def schedule(self, small: Schedule) -> Schedule:
        """Return the schedule of a stage, given that of the small world."""
        return replace(small, peak=small.peak * self.rate)


SIZES = {
    "small": Size(hidden=128, mlp=256, layers=3, rows=16),  # 0.5 M parameters
    "medium": Size(hidden=256, mlp=512, layers=4, rows=16, rate=0.5),  # 3 M
    "large": Size(hidden=512, mlp=1024, layers=8, rows=64, rate=0.3),  # 21 M; for a GPU
}


@dataclass(frozen=True)
class World:
    """A world to train."""

    seed: int = 0
    size: Size = SIZES["small"]
    order: str = AS_A  # of the words of B, one of ORDERS

    @property
    def translate(self) -> Translate:
        """Return the translation into this world's B."""
        return ORDERS[self.order]
