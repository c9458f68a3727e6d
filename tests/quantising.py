"""Small checkpoints quantised by the formats' definitions, and as transformers dequantises them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig

from chatvec_method.facts.models import TensorHeader
from chatvec_method.facts.quantisation import Quantisation, quantisation_of
from chatvec_method.weights.dequantise import dequantised

FP8 = torch.float8_e4m3fn
FP8_MAX = torch.finfo(FP8).max
FP4_VALUES = torch.tensor([0.0, 0.5, 1, 1.5, 2, 3, 4, 6])
Stored = dict[str, Tensor]
Quantiser = Callable[[str, Tensor], Stored]


def whole(weight: Tensor) -> Tensor:
    """Return a matrix's largest magnitude."""
    return weight.abs().amax()


def by_block(weight: Tensor, rows: int, columns: int) -> Tensor:
    """Return each block's largest magnitude; the last blocks may be cut short."""
    *experts, height, width = weight.shape
    padding = (0, -width % columns, 0, -height % rows)
    padded = torch.nn.functional.pad(weight.float(), padding).abs()
    grid = (math.ceil(height / rows), rows, math.ceil(width / columns), columns)
    return padded.reshape(*experts, *grid).amax(dim=(-3, -1))


def spread(scale: Tensor, rows: int, columns: int, shape: tuple[int, ...]) -> Tensor:
    """Return for each element the scale of its block."""
    large = scale.repeat_interleave(rows, dim=-2).repeat_interleave(columns, dim=-1)
    return large[..., : shape[-2], : shape[-1]]


def fp8(weight: Tensor, scale: Tensor) -> Tensor:
    """Return a weight over its scales (of its shape, or one for all) in FP8."""
    return (weight.float() / scale.float()).clamp(-FP8_MAX, FP8_MAX).to(FP8)


def fp4_bits(weight: Tensor) -> Tensor:
    """Return the nearest four-bit floats as numbers of 0 to 15."""
    nearest = (weight.float().abs()[..., None] - FP4_VALUES).abs().argmin(-1)
    return (nearest + 8 * (weight < 0)).to(torch.uint8)


def fp4_pairs(weight: Tensor) -> Tensor:
    """Return four-bit floats, two in a byte along the last axis, the first in the lower bits."""
    bits = fp4_bits(weight)
    return bits[..., 0::2] | bits[..., 1::2] << 4


def powers_of_two(scale: Tensor) -> Tensor:
    """Return the exponents of the next powers of two, as bytes with 127 for 2^0."""
    return (scale.float().clamp(2.0**-100).log2().ceil() + 127).to(torch.uint8)


def is_quantised(name: str) -> bool:
    return name.endswith("_proj.weight")


def quantised_in_blocks(
    rows: int, columns: int, dtype: torch.dtype = torch.float32, name: str = "weight_scale_inv"
) -> Quantiser:
    """Return what quantises as DeepSeek and Qwen do."""

    def quantise(key: str, weight: Tensor) -> Stored:
        if not is_quantised(key):
            return {key: weight}
        scale = (by_block(weight, rows, columns) / FP8_MAX).to(dtype)
        values = fp8(weight, spread(scale, rows, columns, weight.shape))
        return {key: values, key.removesuffix("weight") + name: scale}

    return quantise


def quantised_per_channel(dtype: torch.dtype, flat: bool = False) -> Quantiser:
    """Return what quantises as llm-compressor does, or (flat) ModelOpt."""

    def quantise(key: str, weight: Tensor) -> Stored:
        if not is_quantised(key):
            return {key: weight}
        scale = (weight.float().abs().amax(1, keepdim=True) / FP8_MAX).to(dtype)
        return {key: fp8(weight, scale), f"{key}_scale": scale.flatten() if flat else scale}

    return quantise


def quantised_per_tensor(shape: tuple[int, ...], dtype: torch.dtype, **names: str) -> Quantiser:
    """Return what quantises as Mistral, AutoFP8 and ModelOpt do, activations' scales beside."""

    def quantise(key: str, weight: Tensor) -> Stored:
        if not is_quantised(key):
            return {key: weight}
        scale = (whole(weight) / FP8_MAX).to(dtype)
        stem = key.removesuffix("weight")
        return {
            key: fp8(weight, scale),
            stem + names["weights"]: scale.reshape(shape),
            stem + names["activations"]: torch.rand(shape).to(dtype),
        }

    return quantise


def quantised_to_int8(key: str, weight: Tensor) -> Stored:
    if not is_quantised(key):
        return {key: weight}
    scale = weight.float().abs().amax(1, keepdim=True) / 127
    return {key: (weight.float() / scale).round().to(torch.int8), f"{key}_scale": scale}


def quantised_to_int8_with_zero_points(key: str, weight: Tensor) -> Stored:
    if not is_quantised(key):
        return {key: weight}
    low, high = weight.float().aminmax(dim=1, keepdim=True)
    scale = (high - low) / 255
    zero_point = (-128 - low / scale).round().clamp(-128, 127)
    values = (weight.float() / scale + zero_point).round().clamp(-128, 127).to(torch.int8)
    return {
        key: values,
        f"{key}_scale": scale,
        f"{key}_zero_point": zero_point.to(torch.int8),
    }


def small_integers(
    weight: Tensor, bits: int, group: int, symmetric: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a matrix as integers of some bits, their scales in bfloat16, and zero points."""
    grouped = weight.float().reshape(len(weight), -1, group)
    half = 2 ** (bits - 1)
    low, high = grouped.aminmax(dim=2)
    scale = grouped.abs().amax(2) / half if symmetric else (high - low) / (2 * half - 1)
    scale = scale.bfloat16()
    zero_point = (-half - low / scale.float()).round().clamp(-half, half - 1)
    zero_point = torch.zeros_like(zero_point) if symmetric else zero_point
    values = grouped / scale[..., None].float() + zero_point[..., None]
    values = values.round().clamp(-half, half - 1).reshape(weight.shape)
    return values.to(torch.int8), scale, zero_point.to(torch.int8)


def quantised_to_packed_integers(bits: int, group: int, symmetric: bool) -> Quantiser:
    """Return what quantises as llm-compressor's W4A16, packed by compressed-tensors itself."""

    def quantise(key: str, weight: Tensor) -> Stored:
        from compressed_tensors.compressors.pack_quantized.helpers import (  # type: ignore[import-untyped]
            pack_to_int32,
        )

        if not is_quantised(key):
            return {key: weight}
        values, scale, zero_point = small_integers(weight, bits, group, symmetric)
        stored = {
            f"{key}_packed": pack_to_int32(values, bits),
            f"{key}_scale": scale,
            f"{key}_shape": torch.tensor(weight.shape),
        }
        if not symmetric:
            stored[f"{key}_zero_point"] = pack_to_int32(zero_point, bits, packed_dim=0)
        return stored

    return quantise


def quantised_to_mxfp4(key: str, weight: Tensor) -> Stored:
    """Quantise as gpt-oss is: fused experts, transposed, 32 values along the input an exponent."""
    if not key.endswith("experts.gate_up_proj") and not key.endswith("experts.down_proj"):
        return {key: weight}
    rows = weight.transpose(1, 2)
    scales = powers_of_two(by_block(rows, 1, 32) / 6)
    values = rows.float() / spread((scales.float() - 127).exp2(), 1, 32, tuple(rows.shape))
    experts, height, width = rows.shape
    blocks = fp4_pairs(values).reshape(experts, height, width // 32, 16)
    return {f"{key}_blocks": blocks, f"{key}_scales": scales}


def fine_grained(block: list[int] | None) -> dict[str, Any]:
    return {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": block}


def compressed(weights: dict[str, Any], format_: str = "float-quantized") -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": {"symmetric": True, "dynamic": False} | weights}
    return {
        "quant_method": "compressed-tensors",
        "format": format_,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


def headers_of(stored: Mapping[str, Tensor]) -> dict[str, TensorHeader]:
    return {
        n: TensorHeader(t.dtype, tuple(t.shape), "model.safetensors") for n, t in stored.items()
    }


def described(
    stored: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
) -> Quantisation:
    """Return how tensors are quantised, which must be so."""
    quantisation = quantisation_of(headers_of(stored), config or {}, None)
    assert quantisation is not None
    return quantisation


def all_dequantised(
    stored: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
) -> tuple[Quantisation, Stored]:
    """Return all weights of a checkpoint: the quantised in float32, the others as stored."""
    quantisation = described(stored, config)
    assert quantisation.problem == ""
    used = {part for parts in quantisation.parts.values() for part in parts}
    plain = {n: t for n, t in stored.items() if n not in used | quantisation.dropped}
    for name, parts in quantisation.parts.items():
        plain[name] = dequantised(quantisation, name, [stored[part] for part in parts])
        assert tuple(plain[name].shape) == quantisation.shapes[name]
    return quantisation, plain


def model_folder(folder: Path, config: PretrainedConfig, seed: int = 0) -> Path:
    """Save a model of random bfloat16 weights, of very different sizes."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model = model.to(torch.bfloat16)
    for parameter in model.parameters():
        size = 10.0 ** torch.empty(parameter.shape[:1]).uniform_(-3, 1)
        values = torch.randn(parameter.shape) * size.view(-1, *[1] * (parameter.ndim - 1))
        parameter.data = values.to(torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def tensors_in(folder: Path) -> Stored:
    return {n: t for f in sorted(folder.glob("*.safetensors")) for n, t in load_file(f).items()}


def quantise_folder(folder: Path, block: dict[str, Any] | None, quantise: Quantiser) -> Stored:
    """Quantise a folder's tensors in place: `quantise` gives what is stored in one's stead."""
    stored: Stored = {}
    for name, tensor in tensors_in(folder).items():
        stored |= quantise(name, tensor)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    save_file({n: t.contiguous() for n, t in stored.items()}, folder / "model.safetensors")
    file = folder / "config.json"
    config = json.loads(file.read_text())
    if block is not None:
        config["quantization_config"] = block
    file.write_text(json.dumps(config))
    return stored


def config_in(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def as_transformers_has_it(folder: Path, dtype: torch.dtype, how: object, out: Path) -> Stored:
    """Return what transformers makes of a quantised folder when it dequantises, saved again."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, quantization_config=how)
    model.save_pretrained(out)
    return tensors_in(out)
