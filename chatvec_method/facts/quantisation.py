"""How a checkpoint's weights are quantised, told from its tensors' names, dtypes and shapes.

What a weight is made of (a value for each element and the scales that it is multiplied by), what
else lies beside it, and whether `chatvec_method.weights.dequantise` can form the numbers again. The
tensors decide and not the config: a `quantization_config` may be missing, or left over.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import torch
import transformers
from huggingface_hub import ModelCardData
from packaging.version import Version

from chatvec_method.facts.models import TensorHeader

FP8_DTYPES = frozenset(
    {torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz}
)
POWER_DTYPES = frozenset({torch.uint8, getattr(torch, "float8_e8m0fnu", torch.uint8)})
"""Scales in these are exponents of two: 2^(e - 127)."""
BYTE_DTYPES = FP8_DTYPES | POWER_DTYPES
BYTE_DTYPES |= {torch.int8, getattr(torch, "float4_e2m1fn_x2", torch.int8)}
UNSIGNED_DTYPES = frozenset({torch.uint16, torch.uint32, torch.uint64})
MX_GROUP = 32
"""So many values share an exponent in the formats of the Open Compute Project (MXFP4, MXFP8)."""
NV_GROUP = 16
"""And so many a scale in NVIDIA's NVFP4."""
TRANSFORMERS_FLOOR = "5.8"
"""The first whose `Fp8Dequantize` takes any pair of a weight and its scales."""
WORD_BITS = 32
SCHEME_KEYS = ("num_bits", "type", "symmetric", "strategy", "group_size")
"""What compressed-tensors needs to know to take packed integers apart."""

METHOD_NAMES = {
    "aqlm": "AQLM",
    "auto-round": "AutoRound",
    "awq": "AWQ",
    "bitnet": "BitNet",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "eetq": "EETQ",
    "exl2": "EXL2",
    "exl3": "EXL3",
    "fbgemm_fp8": "FBGEMM FP8",
    "fp8": "FP8",
    "gguf": "GGUF",
    "gptq": "GPTQ",
    "higgs": "HIGGS",
    "hqq": "HQQ",
    "mlx": "MLX",
    "modelopt": "ModelOpt",
    "mxfp4": "MXFP4",
    "mxfp8": "MXFP8",
    "nvfp4": "NVFP4",
    "quanto": "Quanto",
    "quark": "Quark",
    "quip#": "QuIP#",
    "spqr": "SpQR",
    "vptq": "VPTQ",
}
UNDONE = frozenset(
    {"compressed-tensors", "fbgemm_fp8", "fp8", "modelopt", "mxfp4", "mxfp8", "nvfp4"}
)
"""The methods of `quantization_config` whose formats are known here."""
QUANTISED_WHILE_LOADING = frozenset({"bitsandbytes"})
"""Their block beside plain weights is no contradiction: transformers then quantises them itself."""

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
QUANTISED_NAMES = {
    r"\.(qweight|qzeros|g_idx)$": "gptq",
    r"\.(SCB|weight_format)$|\.(nested_)?(absmax|quant_map)$|quant_state": "bitsandbytes",
    r"\.W_q$": "hqq",
    r"\.codebooks$": "aqlm",
    r"\.weight\._(data|scale|shift)$": "quanto",
    r"\._?weight_(qdata|scale_and_zero)$": "torchao",
    r"\.weight_scales$": "eetq",
    r"\.(q_weight|q_perm|q_group_size)$": "exl2",
    r"\.trellis$": "exl3",
    r"\.Qidxs$": "quip#",
    r"\.(bitmask|weight_packed|weight_g_idx)$": "compressed-tensors",
    r"\.pre_quant_scale$": "modelopt",
    r"(^|[._])(weight_scale(_inv|_2)?|scale_inv|weight_global_scale)$": "",
    r"\.(weight_zero_point|qscale_weight|weight_shape)$": "",
}
"""Names that only quantised checkpoints have, with the method if they tell it."""
ANY_QUANTISED_NAME = re.compile("|".join(QUANTISED_NAMES))


class Packing(Enum):
    """How the values of a weight lie in its first stored tensor."""

    PLAIN = "one float8 or int8 for each value"
    FP4 = "two four-bit floats in a byte along the last axis, the lower bits first"
    GPT_OSS = "MXFP4 blocks of gpt-oss, which transformers transposes"
    INT32 = "compressed-tensors' integers of some bits, several in an int32"


class Part(Enum):
    """What a stored tensor is to its weight."""

    VALUES = "values"
    SCALE = "scale"
    ZERO_POINT = "subtracted from the values"
    SECOND_SCALE = "multiplied into the scales"
    DIVISOR = "divided out of the scales"
    SHAPE = "the weight's shape"


@dataclass(frozen=True)
class QuantisedWeight:
    """One weight as it is stored."""

    parts: Mapping[Part, str]
    """The stored tensors' names, the values' first."""
    shape: tuple[int, ...]
    """Of the weight itself."""
    packing: Packing
    block: tuple[int, int]
    """So many rows and columns share a scale; the last blocks may be cut short."""
    scale_dtype: torch.dtype
    scheme: Mapping[str, Any] = field(default_factory=dict)
    """Of packed integers: `SCHEME_KEYS` in the words of compressed-tensors."""


@dataclass(frozen=True)
class Quantisation:
    """How a checkpoint is quantised."""

    format: str
    """In words for people: "FP8, one scale for each block of 128 x 128"."""
    weights: Mapping[str, QuantisedWeight] = field(default_factory=dict)
    """By the names of the unquantised checkpoint; weights that are not quantised are not in it."""
    dropped: frozenset[str] = frozenset()
    """Stored tensors that are no weights, and mean nothing after dequantisation."""
    problem: str = ""
    """Why it cannot be dequantised here, for "model X: ..."; empty if it can."""
    fix: str = ""
    """What to write instead, in a sentence."""

    @cached_property
    def parts(self) -> Mapping[str, tuple[str, ...]]:
        """Each quantised weight's stored tensors, in the order that `dequantised` takes them."""
        return {name: tuple(weight.parts.values()) for name, weight in self.weights.items()}

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Each quantised weight's shape."""
        return {name: weight.shape for name, weight in self.weights.items()}


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
    block = _quantization_config(config)
    method = _method(block)
    if method and method not in UNDONE:
        return _refused(method, tensors, card)
    stored = _stored_weights(tensors, block)
    weights: dict[str, QuantisedWeight] = {}
    problems = [_wider_problem(block), ""]
    for name, weight in _with_blocks(stored, tensors, _block_sizes(block)):
        if isinstance(weight, str):
            problems.append(weight)
        else:
            weights[name] = weight
    parts = {part for weight in stored.values() for part in weight.parts.values()}
    dropped = _meaningless(tensors.keys() - parts, tensors, stored)
    accounted = parts | dropped
    rest = {name: header for name, header in tensors.items() if name not in accounted}
    problems[1], program = _unexplained(rest, tensors)
    if not stored and not problems[1]:
        return Quantisation("FP8 key-value cache", dropped=dropped) if dropped else None
    problem = next(filter(None, problems), "")
    fix = _fix(card) if problem else ""
    if not problem:
        problem, fix = _library_problem({weight.packing for weight in stored.values()})
    return Quantisation(
        _format(weights, tensors) or METHOD_NAMES.get(program, "unknown"),
        weights,
        dropped,
        problem,
        fix,
    )


def _library_problem(packings: set[Packing]) -> tuple[str, str]:
    """Return which library is missing or too old, and how to install it."""
    if Packing.INT32 in packings and find_spec("compressed_tensors") is None:
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


# --- what the config says ---------------------------------------------------------------------


def _quantization_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the block of a config that tells of quantisation; an empty one if there is none."""
    for holder in (config, config.get("text_config") or {}):
        for key in ("quantization_config", "compression_config", "quantization"):
            block: Any = holder.get(key)
            block = block.to_dict() if hasattr(block, "to_dict") else block
            if isinstance(block, Mapping) and block:
                return block
    return {}


def _method(block: Mapping[str, Any]) -> str:
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


def _block_sizes(block: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Return the sizes of blocks that the config names: rows, columns."""
    sizes = [block.get("weight_block_size")]
    for group in _config_groups(block):
        weights = group.get("weights") or {}
        sizes += [weights.get("block_structure"), [1, weights.get("group_size")]]
    return [
        (rows, columns)
        for rows, columns in (s for s in sizes if isinstance(s, list | tuple) and len(s) == 2)
        if isinstance(rows, int) and isinstance(columns, int) and min(rows, columns) > 0
    ]


def _config_groups(block: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    groups = block.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        if isinstance(group, Mapping):
            yield group


def _wider_problem(block: Mapping[str, Any]) -> str:
    """Return what more than scales a compressed-tensors checkpoint's weights went through."""
    sparsity = (block.get("sparsity_config") or {}).get("format", "dense")
    if sparsity != "dense":
        return f"its weights are stored sparsely ({sparsity}), which is not undone here"
    if block.get("transform_config"):
        return (
            "its weights were rotated before they were quantised (`transform_config`), and are "
            "not those of the unquantised model"
        )
    return ""


# --- what the tensors say ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Stored:
    """A weight's tensors by their part; `problem` if they do not make a weight."""

    parts: Mapping[Part, str]
    shape: tuple[int, ...]
    packing: Packing = Packing.PLAIN
    problem: str = ""
    scheme: Mapping[str, Any] = field(default_factory=dict)


def _stored_weights(
    tensors: Mapping[str, TensorHeader], block: Mapping[str, Any]
) -> dict[str, _Stored]:
    """Return all quantised weights by their logical names, except those of unknown formats."""
    weights: dict[str, _Stored] = {}
    for name, header in tensors.items():
        if _is_scale(name):
            continue
        if name.endswith("_blocks") and name.removesuffix("_blocks") + "_scales" in tensors:
            if header.dtype == torch.uint8:
                logical = name.removesuffix("_blocks")
                weights[logical] = _gpt_oss_weight(logical, tensors)
        elif name.endswith(".weight_packed"):
            is_bytes = header.dtype == torch.uint8
            weight = _fp4_weight(name, tensors) if is_bytes else _packed(name, tensors, block)
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


def _meaningless(
    names: Iterable[str], tensors: Mapping[str, TensorHeader], stored: Mapping[str, _Stored]
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


def _plain_weight(name: str, tensors: Mapping[str, TensorHeader]) -> _Stored:
    """Return a weight of one float8 or int8 for each value."""
    scale, zero_point = _scale_of(name, tensors), f"{name}_zero_point"
    problem = "" if scale else f"`{name}` is stored in FP8, and no scale for it is in the files"
    parts = {Part.VALUES: name, Part.SCALE: scale}
    if zero_point in tensors:
        parts[Part.ZERO_POINT] = zero_point
    return _Stored(parts if scale else {Part.VALUES: name}, tensors[name].shape, problem=problem)


def _byte_weight(name: str, tensors: Mapping[str, TensorHeader]) -> _Stored | None:
    """Return a weight stored in whole bytes; None if it is another program's, of other names."""
    scale = _scale_of(name, tensors)
    if not scale:
        return None
    if tensors[name].dtype == torch.int8 and tensors[scale].dtype not in POWER_DTYPES:
        return _plain_weight(name, tensors)
    return _fp4_weight(name, tensors)


def _fp4_weight(name: str, tensors: Mapping[str, TensorHeader]) -> _Stored | None:
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
    return _Stored(parts, shape, Packing.FP4, problem)


def _packed(
    name: str, tensors: Mapping[str, TensorHeader], block: Mapping[str, Any]
) -> _Stored | None:
    """Return a weight of small integers in int32s; None if its scales are missing."""
    logical = name.removesuffix("_packed")
    scale, arguments = f"{logical}_scale", _weight_arguments(logical, block)
    if scale not in tensors or len(tensors[name].shape) != 2:
        return None
    parts = {Part.VALUES: name, Part.SCALE: scale, Part.SHAPE: f"{logical}_shape"}
    if not arguments.get("symmetric", True):
        parts[Part.ZERO_POINT] = f"{logical}_zero_point"
    known = {part: stored for part, stored in parts.items() if stored in tensors}
    bits = arguments.get("num_bits")
    if not isinstance(bits, int) or arguments.get("type") != "int":
        problem = f"`{name}` is packed, and its config does not tell into how many bits"
        return _Stored(known, tensors[name].shape, Packing.INT32, problem)
    rows, words = tensors[name].shape
    columns = words * WORD_BITS // bits
    if arguments.get("strategy") == "group":
        columns = tensors[scale].shape[-1] * arguments["group_size"]
    fits = (
        known == parts and WORD_BITS % bits == 0 and math.ceil(columns * bits / WORD_BITS) == words
    )
    problem = "" if fits else f"`{name}` is not packed in the way that is known here"
    return _Stored(known, (rows, columns), Packing.INT32, problem, arguments)


def _weight_arguments(logical: str, block: Mapping[str, Any]) -> dict[str, Any]:
    """Return how compressed-tensors quantised a weight: that of the group that names it first."""
    module = logical.removesuffix(".weight")
    by_class: dict[str, Any] = {}
    for group in _config_groups(block):
        arguments = group.get("weights")
        if not isinstance(arguments, Mapping):
            continue
        known = {key: arguments[key] for key in SCHEME_KEYS if arguments.get(key) is not None}
        for target in group.get("targets") or ():
            is_pattern = target.startswith("re:")
            if re.match(target[3:], module) if is_pattern else module.endswith(target):
                return known
            if not is_pattern:
                by_class = by_class or known
    return by_class


def _gpt_oss_weight(logical: str, tensors: Mapping[str, TensorHeader]) -> _Stored:
    blocks, scales = f"{logical}_blocks", f"{logical}_scales"
    shape, scale_shape = tensors[blocks].shape, tensors[scales].shape
    parts = {Part.VALUES: blocks, Part.SCALE: scales}
    if len(shape) != 4 or shape[:-1] != scale_shape or 2 * shape[-1] != MX_GROUP:
        problem = f"the scales of `{blocks}` do not fit its shape"
        return _Stored(parts, shape, Packing.GPT_OSS, problem)
    experts, rows, groups, _ = shape
    return _Stored(parts, (experts, groups * MX_GROUP, rows), Packing.GPT_OSS)


# --- which values share a scale ---------------------------------------------------------------


def scale_grid(scale: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return over how many rows and columns of blocks the scales of a matrix lie.

    Known are one scale for all, or one for each expert; a vector, one for each row (or column
    of an expert, if only that fits); and a grid, also with axes of 1 between, as ModelOpt writes.

    Args:
        scale: The scales' shape.
        shape: The weight's: rows and columns, with the experts before them if they are fused.

    Returns:
        None if the scales do not fit, or fit in two ways.
    """
    experts, (rows, columns) = shape[:-2], shape[-2:]
    if math.prod(scale) in (1, math.prod(experts)):
        return 1, 1
    if scale[: len(experts)] != experts:
        return None
    grid = scale[len(experts) :]
    if len(grid) == 4 and grid[1] == grid[3] == 1:
        grid = (grid[0], grid[2])
    if len(grid) == 2:
        return grid if grid[0] <= rows and grid[1] <= columns else None
    if grid == (rows,) and (not experts or rows != columns):
        return rows, 1
    return (1, columns) if experts and grid == (columns,) and rows != columns else None


def _with_blocks(
    stored: Mapping[str, _Stored],
    tensors: Mapping[str, TensorHeader],
    sizes: list[tuple[int, int]],
) -> Iterator[tuple[str, QuantisedWeight | str]]:
    """Yield every weight with the size of its blocks, or what is wrong with it."""
    in_grids = {
        name: (weight.shape[-2:], scale_grid(tensors[weight.parts[Part.SCALE]].shape, weight.shape))
        for name, weight in stored.items()
        if not weight.problem and weight.packing in (Packing.PLAIN, Packing.FP4)
    }
    guesses = {}
    for packing in (Packing.PLAIN, Packing.FP4):
        together = [grid for name, grid in in_grids.items() if stored[name].packing is packing]
        guesses[packing] = _common_block(together)
    for name, weight in stored.items():
        if weight.problem:
            yield name, weight.problem
            continue
        scale = tensors[weight.parts[Part.SCALE]]
        block: tuple[int, int] | None = (MX_GROUP, 1)
        if weight.packing is Packing.INT32:
            block = (1, weight.shape[-1] // scale.shape[-1])
        elif name in in_grids:
            block = _block(*in_grids[name], sizes, guesses[weight.packing])
        if block is None:
            yield (
                name,
                f"the scales of `{name}`, of shape {list(scale.shape)}, do not fit its shape "
                f"{list(weight.shape)}",
            )
            continue
        yield (
            name,
            QuantisedWeight(
                weight.parts, weight.shape, weight.packing, block, scale.dtype, weight.scheme
            ),
        )


def _block(
    matrix: tuple[int, ...],
    grid: tuple[int, int] | None,
    sizes: list[tuple[int, int]],
    guess: tuple[int | None, int | None],
) -> tuple[int, int] | None:
    """Return the size of a matrix's blocks: the config's if that makes its grid."""
    if grid is None:
        return None
    for size in sizes:
        if all(math.ceil(n / b) == g for n, b, g in zip(matrix, size, grid, strict=True)):
            return min(size[0], matrix[0]), min(size[1], matrix[1])
    rows, columns = (
        n if g == 1 else 1 if g == n else b if b and math.ceil(n / b) == g else _divided(n, g)
        for n, g, b in zip(matrix, grid, guess, strict=True)
    )
    return (rows, columns) if rows and columns else None


def _divided(length: int, blocks: int) -> int | None:
    return length // blocks if length % blocks == 0 else None


def _common_block(
    weights: Iterable[tuple[tuple[int, ...], tuple[int, int] | None]],
) -> tuple[int | None, int | None]:
    """Return the size of the blocks that all weights share; None along an axis that tells none."""
    lengths: tuple[set[tuple[int, int]], ...] = (set(), set())
    for matrix, grid in weights:
        for axis, blocks in enumerate(grid or ()):
            if 1 < blocks < matrix[axis]:
                lengths[axis].add((matrix[axis], blocks))
    square = _common_length(lengths[0] | lengths[1]) if all(lengths) else None
    return square or _common_length(lengths[0]), square or _common_length(lengths[1])


def _common_length(lengths: set[tuple[int, int]]) -> int | None:
    """Return how long blocks are, of which the last may be cut short.

    One length leaves a range: 576 rows in 5 blocks can be blocks of 116 to 143. All together leave
    less. If different lengths divide evenly into the same, it is that; else makers take powers of
    two.
    """
    if not lengths:
        return None
    if len(lengths) > 1 and len({length / blocks for length, blocks in lengths}) == 1:
        return _divided(*next(iter(lengths)))
    low = max(math.ceil(length / blocks) for length, blocks in lengths)
    high = min(math.ceil(length / (blocks - 1)) - 1 for length, blocks in lengths)
    power: int = 2 ** math.ceil(math.log2(low))
    return power if power <= high else None


# --- what is not known ------------------------------------------------------------------------


def _unexplained(
    rest: Mapping[str, TensorHeader], tensors: Mapping[str, TensorHeader]
) -> tuple[str, str]:
    """Return why the rest of a checkpoint cannot be taken for weights, and the method if known."""
    methods = {
        name: next(m for pattern, m in QUANTISED_NAMES.items() if re.search(pattern, name))
        for name in rest
        # Most names end so, and there may be 100,000.
        if not name.endswith((".weight", ".bias")) and ANY_QUANTISED_NAME.search(name)
    }
    if "gptq" in methods.values() and not any(name.endswith(".g_idx") for name in methods):
        # AWQ names its tensors as GPTQ does, but has no order of columns.
        methods = {name: "awq" if m == "gptq" else m for name, m in methods.items()}
    for name in sorted(methods, key=lambda name: not methods[name]):  # those that tell it first
        if name.endswith(".pre_quant_scale"):
            problem = f"the inputs of its layers are scaled too (`{name}`), not only the weights"
            return problem, methods[name]
        if methods[name]:
            return _stored_by(methods[name], name), methods[name]
        weight = re.sub(r"_scale(_inv|_2)?$|\.scale_inv$|_zero_point$", "", name)
        if weight not in tensors:
            return f"`{name}` is a part of a quantised weight whose other parts are missing", ""
        dtype = tensors[weight].dtype
        if dtype in BYTE_DTYPES:
            return (
                f"`{weight}` is stored in {_word(dtype)} with a `{name}`, a format that is not "
                "known here",
                "",
            )
        return (
            f"`{weight}` is stored in {_word(dtype)} and has a scale (`{name}`): whether it is "
            "multiplied by it already, its files do not tell",
            "",
        )
    for name, header in rest.items():
        if header.dtype in FP8_DTYPES:
            return f"`{name}` is stored in FP8, and no scale for it is in the files", ""
        if len(header.shape) < 2 or _is_mask(header.shape):
            continue
        if header.dtype in BYTE_DTYPES | UNSIGNED_DTYPES:
            stem = name.removesuffix("weight")
            if f"{stem}scales" in rest and f"{stem}biases" in rest:
                return _stored_by("mlx", name), "mlx"
            return f"`{name}` is stored in {_word(header.dtype)}, in no format known here", ""
    return "", ""


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _is_mask(shape: tuple[int, ...]) -> bool:
    """Tell whether it may be the causal mask that old checkpoints of GPT-2 and NeoX hold."""
    return len(shape) == 4 and shape[0] == shape[1] == 1 and shape[2] == shape[3]


def _stored_by(method: str, name: str) -> str:
    program = METHOD_NAMES.get(method, f"`{method}`")
    return f"its weights are quantised by {program} (`{name}`), which is not undone here"


def _refused(
    method: str, tensors: Mapping[str, TensorHeader], card: ModelCardData | None
) -> Quantisation | None:
    """Return why a checkpoint is refused whose config names a method that is not undone here."""
    program = METHOD_NAMES.get(method, f"`{method}`")
    unexplained, _ = _unexplained(tensors, tensors)
    if unexplained or _stored_weights(tensors, {}):
        problem = unexplained if program in unexplained else ""
        problem = problem or f"its weights are quantised by {program}, which is not undone here"
        return Quantisation(program, problem=problem, fix=_fix(card))
    if method in QUANTISED_WHILE_LOADING:
        return None
    return Quantisation(
        program,
        problem=f"its config says that its weights are quantised by {program}, which is not "
        "undone here, but nothing in its files looks so",
        fix="Delete `quantization_config` from its config.json if they are plain weights. If not: "
        + _fix(card),
    )


def _fix(card: ModelCardData | None) -> str:
    """Return what to write instead of a quantised model, by name where its card tells it."""
    data: Mapping[str, Any] = vars(card) if card else {}
    bases = data.get("base_model") or []
    bases = [bases] if isinstance(bases, str) else [b for b in bases if isinstance(b, str)]
    names = " or ".join(f"`{base.removeprefix('https://huggingface.co/')}`" for base in bases)
    relation = data.get("base_model_relation")
    if names and (relation == "quantized" or (relation is None and data.get("quantized_by"))):
        return f"Write {names} in its place, the unquantised model that its card names."
    if names and relation is None:
        return (
            "Write the unquantised model in its place: its card gives "
            f"{names} as base_model, which it may be."
        )
    return (
        "Write the unquantised model in its place: its card does not name it, but mostly it has "
        "the same name without the ending that tells of the quantisation."
    )


# --- in words ---------------------------------------------------------------------------------


def _format(weights: Mapping[str, QuantisedWeight], tensors: Mapping[str, TensorHeader]) -> str:
    """Return the format of most weights first, in words for people."""
    formats: dict[str, int] = defaultdict(int)
    for weight in weights.values():
        formats[_format_of(weight, tensors[weight.parts[Part.VALUES]].dtype)] += 1
    return " and ".join(sorted(formats, key=lambda f: -formats[f]))


def _format_of(weight: QuantisedWeight, dtype: torch.dtype) -> str:
    rows, columns = weight.shape[-2:]
    if weight.packing is Packing.GPT_OSS:
        return "MXFP4"
    if weight.packing is Packing.INT32:
        group = weight.scheme.get("group_size")
        each = f"group of {group}" if weight.scheme.get("strategy") == "group" else "channel"
        return f"int{weight.scheme['num_bits']}, one scale for each {each}"
    if weight.packing is Packing.FP4:
        return "MXFP4" if weight.scale_dtype in POWER_DTYPES else "NVFP4"
    kind = "FP8" if dtype in FP8_DTYPES else "int8"
    if weight.block == (1, MX_GROUP) and weight.scale_dtype in POWER_DTYPES:
        return "MXFP8"
    if weight.block == (rows, columns):
        return f"{kind}, one scale for each tensor"
    if weight.block in ((1, columns), (rows, 1)):
        return f"{kind}, one scale for each channel"
    return f"{kind}, one scale for each block of {weight.block[0]} x {weight.block[1]}"
