"""Why a checkpoint cannot be dequantised here, and what to write instead of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub import ModelCardData

from chatvec_method.facts.models import TensorHeader
from chatvec_method.facts.quantisation.formats import (
    BYTE_DTYPES,
    FP8_DTYPES,
    UNSIGNED_DTYPES,
    Quantisation,
)
from chatvec_method.facts.quantisation.stored import stored_weights

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


def unexplained(
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


def refused(
    method: str, tensors: Mapping[str, TensorHeader], card: ModelCardData | None
) -> Quantisation | None:
    """Return why a checkpoint is refused whose config names a method that is not undone here."""
    program = METHOD_NAMES.get(method, f"`{method}`")
    reason, _ = unexplained(tensors, tensors)
    if reason or stored_weights(tensors, {}):
        problem = reason if program in reason else ""
        problem = problem or f"its weights are quantised by {program}, which is not undone here"
        return Quantisation(program, problem=problem, fix=unquantised_instead(card))
    if method in QUANTISED_WHILE_LOADING:
        return None
    return Quantisation(
        program,
        problem=f"its config says that its weights are quantised by {program}, which is not "
        "undone here, but nothing in its files looks so",
        fix="Delete `quantization_config` from its config.json if they are plain weights. If not: "
        + unquantised_instead(card),
    )


def unquantised_instead(card: ModelCardData | None) -> str:
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
