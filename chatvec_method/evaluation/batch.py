"""How many requests fit into memory at once."""

from __future__ import annotations

import math

import psutil
import torch
from transformers import PreTrainedModel

TOKENS = 2048
"""Of a prompt and its answer: what is planned for. Longer ones make memory run out, and are then
put in smaller batches."""
TOKENS_SCORED = 1024
"""Of a text that is read, for which there are scores of the whole vocabulary at every token."""
BYTES_A_SCORE = 8
"""In float32, and once more as log-probabilities."""
SHARE = 0.5
"""Of the memory that is free."""
MOST_ON_CPU, MOST = 32, 64
"""From there on a batch is as slow as two, and waits for its longest answer."""


def batch_size(model: PreTrainedModel) -> int:
    """Return how many requests to put at once: a power of two, so that it seldom changes.

    Args:
        model: The model, where it will be asked.
    """
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    longest = getattr(config, "max_position_embeddings", None) or TOKENS
    cache = 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize
    scores = config.vocab_size * BYTES_A_SCORE
    need = max(min(TOKENS, longest) * cache, min(TOKENS_SCORED, longest) * scores)
    most = MOST_ON_CPU if model.device.type == "cpu" else MOST
    fitting = int(min(most, max(1, SHARE * free_memory(model.device) / need)))
    return 1 << int(math.log2(fitting))


def free_memory(device: torch.device) -> int:
    """Return how many bytes a device has free."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
