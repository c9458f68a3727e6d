"""How a whole checkpoint is quantised, from its headers, config and card."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.util import find_spec
from typing import Any

import transformers
from huggingface_hub import ModelCardData
from packaging.version import Version

from chatvec_method.facts.models import TensorHeader
from chatvec_method.facts.quantisation.blocks import with_blocks
from chatvec_method.facts.quantisation.config_block import (
    block_sizes,
    method_of,
    quantization_block,
    wider_problem,
)
from chatvec_method.facts.quantisation.formats import Packing, Quantisation, QuantisedWeight
from chatvec_method.facts.quantisation.refusal import (
    METHOD_NAMES,
    UNDONE,
    refused,
    unexplained,
    unquantised_instead,
)
from chatvec_method.facts.quantisation.stored import meaningless, stored_weights
from chatvec_method.facts.quantisation.words import format_in_words

TRANSFORMERS_FLOOR = "5.8"
"""The first whose `Fp8Dequantize` takes any pair of a weight and its scales."""


def quantisation_of(
    tensors: Mapping[str, TensorHeader],
    config: Mapping[str, Any],
    card: ModelCardData | None = None,
) -> Quantisation | None:
    """Return how a checkpoint's weights are quantised; None if they are plain numbers.

    Args:
        tensors: The headers of all its tensors.
        config: Its config.json.
        card: Its model card's metadata, which may name the unquantised model.
    """
    block = quantization_block(config)
    method = method_of(block)
    if method and method not in UNDONE:
        return refused(method, tensors, card)
    stored = stored_weights(tensors, block)
    weights: dict[str, QuantisedWeight] = {}
    problems = [wider_problem(block), ""]
    for name, weight in with_blocks(stored, tensors, block_sizes(block)):
        if isinstance(weight, str):
            problems.append(weight)
        else:
            weights[name] = weight
    parts = {part for weight in stored.values() for part in weight.parts.values()}
    dropped = meaningless(tensors.keys() - parts, tensors, stored)
    accounted = parts | dropped
    rest = {name: header for name, header in tensors.items() if name not in accounted}
    problems[1], program = unexplained(rest, tensors)
    if not stored and not problems[1]:
        return Quantisation("FP8 key-value cache", dropped=dropped) if dropped else None
    problem = next(filter(None, problems), "")
    fix = unquantised_instead(card) if problem else ""
    if not problem:
        problem, fix = _library_problem(weights.values())
    return Quantisation(
        format_in_words(weights, tensors) or METHOD_NAMES.get(program, "unknown"),
        weights,
        dropped,
        problem,
        fix,
    )


def _library_problem(weights: Collection[QuantisedWeight]) -> tuple[str, str]:
    """Return which library is missing or too old, and how to install it."""
    packings = {weight.packing for weight in weights}
    needs_library = any(weight.needs_library for weight in weights)
    if needs_library and find_spec("compressed_tensors") is None:
        return (
            "its weights are packed by compressed-tensors, which is not installed",
            "Install it: `pip install 'chatvec-method[quantised]'`.",
        )
    version = transformers.__version__
    if packings & {Packing.PLAIN, Packing.FP4} and Version(version) < Version(TRANSFORMERS_FLOOR):
        return (
            f"its weights are quantised, and transformers {version} is too old to undo that",
            f"Install a newer one: `pip install --upgrade 'transformers>={TRANSFORMERS_FLOOR}'`.",
        )
    return "", ""
