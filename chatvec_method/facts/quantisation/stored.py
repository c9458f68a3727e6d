"""Which stored tensors make one weight, told by their names, dtypes and shapes."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import regex  # type: ignore[import-untyped]
import torch

from chatvec_method.errors import ChatVecError
from chatvec_method.facts.models import TensorHeader
from chatvec_method.facts.quantisation.config_block import config_groups
from chatvec_method.facts.quantisation.formats import (
    FP8_DTYPES,
    MX_GROUP,
    NV_GROUP,
    POWER_DTYPES,
    SCHEME_KEYS,
    WORD_BITS,
    Packing,
    Part,
)

SCALE_ENDINGS = ("_scale_inv", "_scale", "_weight_scale_inv", "_weight_scale")
"""What a scale's name adds to its weight's: ModelOpt names those of fused experts at length."""
SCALES_BESIDE = ("scale_inv", "scale", "qscale_weight")
"""Or what stands in the place of `weight`: DeepSeek-V4's and Mistral's names."""
ACTIVATION_NAMES = re.compile(
    r"[._](input|output|activation|act)_(scale|scale_inv|scale_ub|zero_point|global_scale)$"
    r"|\.qscale_act$"
)
"""Scales of what a layer takes and gives, which mean nothing for its weight."""
CACHE_NAMES = re.compile(r"\.(q|k|v|kv|prob)_(scale|zero_point)$")
"""Scales of attention and of the key-value cache."""

STRATEGIES = ("group", "channel")
"""Of compressed-tensors: which packed integers share a scale."""
PATTERN_SECONDS = 1.0
"""For all patterns on all modules; one that names modules takes a millionth of that."""


@dataclass(frozen=True)
class Stored:
    """A weight's tensors by their part; `problem` if they do not make a weight."""

    parts: Mapping[Part, str]
    shape: tuple[int, ...]
    packing: Packing = Packing.PLAIN
    problem: str = ""
    scheme: Mapping[str, Any] = field(default_factory=dict)


def stored_weights(
    tensors: Mapping[str, TensorHeader], block: Mapping[str, Any]
) -> dict[str, Stored]:
    """Return all quantised weights by their logical names, except those of unknown formats."""
    weights: dict[str, Stored] = {}
    patterns = _Patterns()
    for name, header in tensors.items():
        if _is_scale(name):
            continue
        if name.endswith("_blocks") and name.removesuffix("_blocks") + "_scales" in tensors:
            if header.dtype == torch.uint8:
                logical = name.removesuffix("_blocks")
                weights[logical] = _gpt_oss_weight(logical, tensors)
        elif name.endswith(".weight_packed") or (
            name.endswith("_packed") and f"{name.removesuffix('_packed')}_shape" in tensors
        ):
            is_bytes = header.dtype == torch.uint8
            if is_bytes:
                weight = _fp4_weight(name, tensors)
            else:
                logical = name.removesuffix("_packed")
                weight = _packed(logical, tensors, _weight_arguments(logical, block, patterns))
            if weight is not None:
                weights[name.removesuffix("_packed")] = weight
        elif header.dtype in FP8_DTYPES and len(header.shape) > 1:
            weights[name] = _plain_weight(name, tensors)
        elif header.dtype in (torch.int8, torch.uint8) and len(header.shape) > 1:
            weight = _byte_weight(name, tensors)
            if weight is not None:
                weights[name] = weight
    return weights


def _is_scale(name: str) -> bool:
    return name.endswith((*SCALE_ENDINGS, *(f".{n}" for n in SCALES_BESIDE), "_scale_2", "_scales"))


def meaningless(
    names: Iterable[str], tensors: Mapping[str, TensorHeader], stored: Mapping[str, Stored]
) -> frozenset[str]:
    """Return which tensors are scales of activations or of the cache.

    A weight may be named so too (Gemma 3n has a `correct_output_scale`), so it counts where it
    is, and how large.
    """
    modules = {re.sub(r"\.weight$", "", name) for name in stored}
    return frozenset(
        name
        for name in names
        if (math.prod(tensors[name].shape) == 1 and CACHE_NAMES.search(name))
        or (
            stored
            and ACTIVATION_NAMES.search(name)
            and (math.prod(tensors[name].shape) == 1 or ACTIVATION_NAMES.sub("", name) in modules)
        )
    )


def _scale_of(name: str, tensors: Mapping[str, TensorHeader]) -> str:
    """Return the name of a weight's scale; empty if there is none."""
    stem = name.removesuffix("_packed")
    candidates = [stem + ending for ending in SCALE_ENDINGS]
    if stem.endswith(".weight"):
        candidates += [f"{stem.removesuffix('weight')}{beside}" for beside in SCALES_BESIDE]
    return next((c for c in candidates if c in tensors), "")


def _plain_weight(name: str, tensors: Mapping[str, TensorHeader]) -> Stored:
    """Return a weight of one float8 or int8 for each value."""
    scale, zero_point = _scale_of(name, tensors), f"{name}_zero_point"
    problem = "" if scale else f"`{name}` is stored in FP8, and no scale for it is in the files"
    parts = {Part.VALUES: name, Part.SCALE: scale}
    if zero_point in tensors:
        parts[Part.ZERO_POINT] = zero_point
    return Stored(parts if scale else {Part.VALUES: name}, tensors[name].shape, problem=problem)


def _byte_weight(name: str, tensors: Mapping[str, TensorHeader]) -> Stored | None:
    """Return a weight stored in whole bytes; None if it is another program's, of other names."""
    scale = _scale_of(name, tensors)
    if not scale:
        return None
    if tensors[name].dtype == torch.int8 and tensors[scale].dtype not in POWER_DTYPES:
        return _plain_weight(name, tensors)
    return _fp4_weight(name, tensors)


def _fp4_weight(name: str, tensors: Mapping[str, TensorHeader]) -> Stored | None:
    """Return a weight of four-bit floats, NVFP4 or MXFP4 outside gpt-oss; None if it is neither."""
    scale, packed = _scale_of(name, tensors), tensors[name].shape
    if not scale:
        return None
    parts = {Part.VALUES: name, Part.SCALE: scale}
    seconds = {
        Part.SECOND_SCALE: f"{scale}_2",
        Part.DIVISOR: f"{name.removesuffix('_packed')}_global_scale",
    }
    parts |= {part: second for part, second in seconds.items() if second in tensors}
    header, shape = tensors[scale], (*packed[:-1], 2 * packed[-1])
    if header.dtype not in (POWER_DTYPES if len(parts) == 2 else FP8_DTYPES):
        return None
    values_a_scale = MX_GROUP if len(parts) == 2 else NV_GROUP
    fits = header.shape == (*packed[:-1], shape[-1] // values_a_scale) and all(
        math.prod(tensors[parts[part]].shape) == 1 for part in seconds.keys() & parts.keys()
    )
    problem = "" if fits else f"the scales of `{name}` do not fit its shape"
    return Stored(parts, shape, Packing.FP4, problem)


def _packed(
    logical: str, tensors: Mapping[str, TensorHeader], arguments: Mapping[str, Any]
) -> Stored | None:
    """Return a weight of small integers in int32s; None if its scales are missing."""
    name, scale = f"{logical}_packed", f"{logical}_scale"
    if scale not in tensors or len(tensors[name].shape) not in (2, 3):  # 3 of joined experts
        return None
    parts = {Part.VALUES: name, Part.SCALE: scale, Part.SHAPE: f"{logical}_shape"}
    if not arguments.get("symmetric", True):
        parts[Part.ZERO_POINT] = f"{logical}_zero_point"
    present = {part: stored for part, stored in parts.items() if stored in tensors}
    if not _tells_bits(arguments):
        problem = f"`{name}` is packed, and its config does not tell into how many bits"
        return Stored(present, tensors[name].shape, Packing.INT32, problem)
    bits, (*rows, words) = arguments["num_bits"], tensors[name].shape
    columns = words * WORD_BITS // bits
    scales = tensors[scale].shape
    if arguments["strategy"] == "group" and scales:
        columns = scales[-1] * arguments["group_size"]
    fits = (
        present == parts
        and tensors[name].dtype == torch.int32
        and tensors[scale].dtype.is_floating_point
        and scales[:-1] == tuple(rows)
        and min(*rows, columns, *scales) > 0
        and math.ceil(columns * bits / WORD_BITS) == words
        and (arguments["strategy"] == "group" or scales[-1] == 1)
    )
    if fits and Part.ZERO_POINT in parts:
        zero_point = tensors[parts[Part.ZERO_POINT]]
        fits = zero_point.dtype == torch.int32 and zero_point.shape == (
            math.ceil(math.prod(rows) * bits / WORD_BITS),
            scales[-1],
        )
    problem = "" if fits else f"`{name}` is not packed in the way that is known here"
    return Stored(present, (*rows, columns), Packing.INT32, problem, arguments)


def _tells_bits(arguments: Mapping[str, Any]) -> bool:
    """Tell whether a config says how integers are packed, in the words of compressed-tensors."""
    bits, strategy = arguments.get("num_bits"), arguments.get("strategy")
    size = arguments.get("group_size")
    return (
        type(bits) is int
        and 0 < bits <= WORD_BITS
        and WORD_BITS % bits == 0
        and arguments.get("type") == "int"
        and isinstance(arguments.get("symmetric", True), bool)
        and strategy in STRATEGIES
        and (strategy != "group" or (type(size) is int and size > 0))
    )


def _weight_arguments(
    logical: str, block: Mapping[str, Any], patterns: _Patterns
) -> dict[str, Any]:
    """Return how compressed-tensors quantised a weight: that of the group that names it first."""
    module = logical.removesuffix(".weight")
    by_class: dict[str, Any] = {}
    for group in config_groups(block):
        arguments = group.get("weights")
        if not isinstance(arguments, Mapping):
            continue
        scheme = {key: arguments[key] for key in SCHEME_KEYS if arguments.get(key) is not None}
        targets = group.get("targets")
        for target in targets if isinstance(targets, list) else ():
            is_pattern = str(target).startswith("re:")
            if patterns.match(target[3:], module) if is_pattern else module.endswith(str(target)):
                return scheme
            if not is_pattern:
                by_class = by_class or scheme
    return by_class


class _Patterns:
    """Patterns of a stranger's, which have so much time together."""

    def __init__(self) -> None:
        self._left = PATTERN_SECONDS

    def match(self, pattern: str, module: str) -> bool:
        """Tell whether a pattern matches; one that is broken does not.

        Raises:
            ChatVecError: They take too long.
        """
        begun = time.monotonic()
        try:
            return regex.match(pattern, module, timeout=max(self._left, 0.01)) is not None
        except (regex.error, RecursionError):
            return False
        except TimeoutError as error:
            raise ChatVecError(
                f"the pattern {pattern!r} under `quantization_config` takes too long to be "
                "matched.",
                "Write the unquantised model in its place.",
                code="config-unreadable",
            ) from error
        finally:
            self._left -= time.monotonic() - begun


def _gpt_oss_weight(logical: str, tensors: Mapping[str, TensorHeader]) -> Stored:
    blocks, scales = f"{logical}_blocks", f"{logical}_scales"
    shape, scale_shape = tensors[blocks].shape, tensors[scales].shape
    parts = {Part.VALUES: blocks, Part.SCALE: scales}
    if len(shape) != 4 or shape[:-1] != scale_shape or 2 * shape[-1] != MX_GROUP:
        problem = f"the scales of `{blocks}` do not fit its shape"
        return Stored(parts, shape, Packing.GPT_OSS, problem)
    experts, rows, groups, _ = shape
    return Stored(parts, (experts, groups * MX_GROUP, rows), Packing.GPT_OSS)
