"""What a config says of quantisation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chatvec_method.errors import ChatVecError

MOST_TARGETS = 20_000
"""Of all groups together; usual ones have a few."""


def quantization_block(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the block of a config that tells of quantisation; an empty one if there is none."""
    for holder in (config, config.get("text_config")):
        if not isinstance(holder, Mapping):
            continue
        for key in ("quantization_config", "compression_config", "quantization"):
            block: Any = holder.get(key)
            block = block.to_dict() if hasattr(block, "to_dict") else block
            if isinstance(block, Mapping) and block:
                return block
    return {}


def method_of(block: Mapping[str, Any]) -> str:
    """Return the method that a block names, in transformers' words; empty without a block."""
    if not block:
        return ""
    if block.get("load_in_4bit") or block.get("load_in_8bit"):
        return "bitsandbytes"
    method = block.get("quant_method")
    method = str(getattr(method, "value", method) or "").lower()
    if method.startswith("modelopt") or (not method and "quant_algo" in str(block)):
        return "modelopt"
    if not method and {"bits", "group_size"} <= block.keys():
        return "mlx"
    return method


def block_sizes(block: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Return the sizes of blocks that the config names: rows, columns."""
    sizes = [block.get("weight_block_size")]
    for group in config_groups(block):
        weights = group.get("weights")
        if not isinstance(weights, Mapping):
            continue
        sizes += [weights.get("block_structure"), [1, weights.get("group_size")]]
    return [
        (rows, columns)
        for rows, columns in (s for s in sizes if isinstance(s, list | tuple) and len(s) == 2)
        if isinstance(rows, int) and isinstance(columns, int) and min(rows, columns) > 0
    ]


def config_groups(block: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the groups of a compressed-tensors block, each with how its weights are quantised.

    Raises:
        ChatVecError: They name more modules than anybody would hold against each other.
    """
    groups = block.get("config_groups")
    if isinstance(groups, Mapping):
        targets = [g.get("targets") for g in groups.values() if isinstance(g, Mapping)]
        count = len(groups) + sum(len(each) for each in targets if isinstance(each, list))
        if count > MOST_TARGETS:
            raise ChatVecError(
                f"`quantization_config` names {count} groups and targets, and {MOST_TARGETS} is "
                "the most that are looked at.",
                "Write the unquantised model in its place.",
                code="config-unreadable",
            )
    for group in groups.values() if isinstance(groups, Mapping) else ():
        if isinstance(group, Mapping):
            yield group


def wider_problem(block: Mapping[str, Any]) -> str:
    """Return what more than scales a compressed-tensors checkpoint's weights went through."""
    settings = block.get("sparsity_config") or {}
    sparsity = settings.get("format", "dense") if isinstance(settings, Mapping) else settings
    if sparsity != "dense":
        return f"its weights are stored sparsely ({sparsity}), which is not undone here"
    if block.get("transform_config"):
        return (
            "its weights were rotated before they were quantised (`transform_config`), and are "
            "not those of the unquantised model"
        )
    return ""
