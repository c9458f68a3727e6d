"""Which kinds of finding a recipe may accept, and which nobody can.

A check that judges by names, tokens or sizes can be mistaken, and what it warns of may be meant: a
recipe says so with `chatvec: {accept: [CODE, ...]}`. What makes the merge impossible, or wrong
whoever looks at it, stays an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class Nature(Enum):
    """What a kind of finding rests on."""

    JUDGEMENT = "A person may know better: it may be meant."
    FACT = "The merge cannot be made as the recipe has it, or cannot come out right."


JUDGEMENTS = (
    # whose role is whose
    "roles-look-swapped",
    "same-model",
    "looks-like-a-vector",
    "not-a-vector",
    "vector-of-another-base",
    "zero-vector",
    # configs and weights
    "config-differs",
    "config-does-not-fit",
    "dtype-rounds-inputs",
    "lora-rounded",
    "mixed-dtypes",
    "pickled-weights",
    "tied-head",
    # ratios
    "filter-matches-more",
    "list-interpolated",
    "list-without-depth",
    "ratio-never-counts",
    # tokens
    "cp-tokens-lost",
    "padding-lost",
    "tokenizer-unreadable",
    "tokens-dropped",
    "tokens-of-cp",
    "tokens-without-base",
    "tokens-without-chat",
    "tokens-without-cp",
    "tokens-without-row",
    "vocabulary-order",
    # chatting and stopping
    "auto-template-not-chat",
    "auto-template-tie",
    "marker-missing",
    "marker-unknown",
    "marker-untrained",
    "marker-untrained-row",
    "no-chat-template",
    "no-stop-token",
    "stop-token-ignored",
    "template-broken",
    "template-differs",
    # parts that others do not have, or not in this form
    "dequantised",
    "tensors-kept",
    # what only stock mergekit does
    "compressed-vector",
    "stock-does-not-stop",
    "stock-drops-generation-config",
    "stock-drops-tensors",
    "stock-has-no-template",
    "stock-rounds-lora",
    "stock-refuses-architectures",
    "stock-renames-tensors",
    # this machine
    "memory-tight",
)
FACTS = (
    # the recipe
    "accept-unknown",
    "accept-impossible",
    "base-model-of-another-architecture",
    "chat-vector-by-algebra",
    "filter-hidden",
    "filter-matches-nothing",
    "layer-range",
    "misplaced-key",
    "misplaced-ratio",
    "no-base-model",
    "no-such-recipe",
    "recipe-refused",
    "repeated-key",
    "unknown-key",
    "unknown-parameter",
    # finding the models
    "config-unreadable",
    "hub-error",
    "hub-unreachable",
    "model-gated",
    "model-is-a-file",
    "no-such-model",
    "no-such-revision",
    "remote-code",
    "unsafe-file",
    # what they are
    "adapter-does-not-fit",
    "adapter-with-new-tokens",
    "damaged-files",
    "depth-expanded",
    "head-missing",
    "head-not-tied",
    "layers-missing",
    "no-lora-cache",
    "no-such-adapter",
    "not-finite",
    "not-related",
    "quantised",
    "tensor-missing",
    "vector-under-another-role",
    # tokens
    "no-such-padding",
    "row-only-as-difference",
    "tokenizer-not-built",
    "tokens-beyond-rows",
    "truncated-embeddings",
    "vector-adds-tokens",
    "vector-moved-tokens",
    "vocabulary-sizes",
    # this machine
    "disk-too-small",
)
NATURES: Mapping[str, Nature] = {
    **dict.fromkeys(JUDGEMENTS, Nature.JUDGEMENT),
    **dict.fromkeys(FACTS, Nature.FACT),
}
"""Every code that a finding can have."""
