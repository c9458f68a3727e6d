"""Dequantised weights are what transformers and the formats' definitions say, to the last bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from quantising import (
    FP4_VALUES,
    FP8_MAX,
    Quantiser,
    Stored,
    all_dequantised,
    as_transformers_has_it,
    by_block,
    compressed,
    config_in,
    described,
    fine_grained,
    fp4_bits,
    fp4_pairs,
    fp8,
    is_quantised,
    model_folder,
    powers_of_two,
    quantise_folder,
    quantised_in_blocks,
    quantised_per_channel,
    quantised_per_tensor,
    quantised_to_int8,
    quantised_to_int8_with_zero_points,
    quantised_to_mxfp4,
    quantised_to_packed_integers,
    small_integers,
    spread,
    whole,
)
from torch import Tensor
from transformers import (
    CompressedTensorsConfig,
    DeepseekV3Config,
    FineGrainedFP8Config,
    GptOssConfig,
    LlamaConfig,
    Ministral3Config,
    PretrainedConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)
from transformers.integrations.finegrained_fp8 import Fp8Dequantize, Fp8Quantize
from transformers.utils.quantization_config import Mxfp4Config

from chatvec_method.errors import ChatVecError
from chatvec_method.weights import dequantise
from chatvec_method.weights.dequantise import dequantised

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
EXPERTS: dict[str, Any] = {"moe_intermediate_size": 16, "num_experts_per_tok": 2}
LATENT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
MODELS: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(**SIZES),
    "qwen3": lambda: Qwen3Config(**SIZES),
    "qwen3-moe": lambda: Qwen3MoeConfig(**SIZES, **EXPERTS, num_experts=4),
    "deepseek-v3": lambda: DeepseekV3Config(**SIZES | EXPERTS | LATENT),
    "ministral3": lambda: Ministral3Config(**SIZES),
    "gpt-oss": lambda: GptOssConfig(
        **SIZES | {"hidden_size": 64, "intermediate_size": 32},
        num_local_experts=4,
        num_experts_per_tok=2,
    ),
}


def equal_where_loaded(ours: Stored, theirs: Stored, dtype: torch.dtype) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        expected = ours[name].to(tensor.dtype)
        assert tensor.dtype == dtype or not is_quantised(name)
        assert torch.equal(expected, tensor), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("model", "block", "quantise", "format_"),
    [
        (
            "deepseek-v3",
            [4, 8],
            quantised_in_blocks(4, 8),
            "FP8, one scale for each block of 4 x 8",
        ),
        (
            "qwen3",
            [16, 16],
            quantised_in_blocks(16, 16, torch.bfloat16),
            "FP8, one scale for each block of 16 x 16",
        ),
        (
            "qwen3-moe",
            [8, 8],
            quantised_in_blocks(8, 8, torch.bfloat16),
            "FP8, one scale for each block of 8 x 8",
        ),
        (
            "deepseek-v3",
            [8, 8],
            quantised_in_blocks(8, 8, name="scale"),
            "FP8, one scale for each block of 8 x 8",
        ),
        (
            "ministral3",
            None,
            quantised_per_tensor(
                (), torch.bfloat16, weights="weight_scale_inv", activations="activation_scale"
            ),
            "FP8, one scale for each tensor",
        ),
        (
            "ministral3",
            None,
            quantised_per_tensor(
                (), torch.float32, weights="qscale_weight", activations="activation_scale"
            ),
            "FP8, one scale for each tensor",
        ),
    ],
)
def test_fp8_is_what_transformers_makes_of_it(
    model: str,
    block: list[int] | None,
    quantise: Quantiser,
    format_: str,
    dtype: torch.dtype,
    tmp_path: Path,
) -> None:
    folder = model_folder(tmp_path / "model", MODELS[model]())
    stored = quantise_folder(folder, fine_grained(block), quantise)
    quantisation, ours = all_dequantised(stored, config_in(folder))
    assert quantisation.format == format_
    theirs = as_transformers_has_it(
        folder, dtype, FineGrainedFP8Config(dequantize=True), tmp_path / "out"
    )
    equal_where_loaded(ours, theirs, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gpt_oss_is_what_transformers_makes_of_it(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", MODELS["gpt-oss"]())
    stored = quantise_folder(folder, {"quant_method": "mxfp4"}, quantised_to_mxfp4)
    quantisation, ours = all_dequantised(stored, config_in(folder))
    assert quantisation.format == "MXFP4"
    assert "model.layers.0.mlp.experts.gate_up_proj" in quantisation.weights
    assert "model.layers.0.mlp.experts.gate_up_proj_bias" in ours
    theirs = as_transformers_has_it(folder, dtype, Mxfp4Config(dequantize=True), tmp_path / "out")
    equal_where_loaded(ours, theirs, dtype)


@pytest.mark.parametrize(
    ("block", "quantise"),
    [
        (
            compressed({"num_bits": 8, "type": "float", "strategy": "channel"}),
            quantised_per_channel(torch.float32),
        ),
        (
            compressed({"num_bits": 8, "type": "float", "strategy": "channel"}),
            quantised_per_channel(torch.bfloat16),
        ),
        (
            compressed({"num_bits": 8, "type": "float", "strategy": "tensor"}, "naive-quantized"),
            quantised_per_tensor(
                (1,), torch.float32, weights="weight_scale", activations="input_scale"
            ),
        ),
        (
            compressed(
                {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [20, 20]}
            ),
            quantised_in_blocks(20, 20, name="weight_scale"),
        ),
        (
            compressed({"num_bits": 8, "type": "int", "strategy": "channel"}, "int-quantized"),
            quantised_to_int8,
        ),
        (
            compressed(
                {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": False},
                "int-quantized",
            ),
            quantised_to_int8_with_zero_points,
        ),
        (
            compressed(
                {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 8},
                "pack-quantized",
            ),
            quantised_to_packed_integers(4, 8, symmetric=True),
        ),
        (
            compressed(
                {
                    "num_bits": 8,
                    "type": "int",
                    "strategy": "group",
                    "group_size": 16,
                    "symmetric": False,
                },
                "pack-quantized",
            ),
            quantised_to_packed_integers(8, 16, symmetric=False),
        ),
    ],
    ids=[
        "channel",
        "channel-bf16",
        "tensor",
        "cut-blocks",
        "int8",
        "int8-zero-points",
        "int4-packed",
        "int8-packed-zero-points",
    ],
)
@pytest.mark.filterwarnings("ignore:You passed .quantization_config.")
def test_compressed_tensors_are_what_their_own_library_makes_of_them(
    block: dict[str, Any], quantise: Quantiser, tmp_path: Path
) -> None:
    pytest.importorskip("compressed_tensors")
    folder = model_folder(tmp_path / "model", MODELS["llama"]())
    stored = quantise_folder(folder, block, quantise)
    _, ours = all_dequantised(stored, config_in(folder))
    how = CompressedTensorsConfig(dequantize=True)
    for dtype in (torch.float32, torch.bfloat16):
        theirs = as_transformers_has_it(folder, dtype, how, tmp_path / f"{dtype}")
        if any(t.dtype == torch.bfloat16 for n, t in stored.items() if "scale" in n):
            # The library multiplies in the scales' dtype; rounded to it, ours are the same.
            theirs = {n: t.bfloat16() for n, t in theirs.items()}
        equal_where_loaded(ours, theirs, next(iter(theirs.values())).dtype)


@pytest.mark.parametrize("scales", ["float", "ue8m0"])
@pytest.mark.parametrize("shape", [(64, 96), (3, 32, 96)])
def test_what_transformers_quantises_is_what_it_dequantises(
    scales: str, shape: tuple[int, ...]
) -> None:
    config = FineGrainedFP8Config(weight_block_size=(16, 32), scale_fmt=scales)
    holder = SimpleNamespace(quantization_config=config)
    quantise, dequantise_ = Fp8Quantize(holder), Fp8Dequantize(holder)  # type: ignore[no-untyped-call]
    stored = quantise.convert({"experts.down_proj": matrix(*shape)})  # type: ignore[arg-type]
    _, ours = all_dequantised(stored, {"quantization_config": config.to_dict()})
    pair: dict[str, Any] = {
        "x.weight": stored["experts.down_proj"],
        "x.weight_scale_inv": stored["experts.down_proj_scale_inv"],
    }
    theirs = dequantise_.convert(pair)["x.weight"][0]
    assert torch.equal(ours["experts.down_proj"].to(theirs.dtype), theirs)


# --- by definition, where transformers has none or another ------------------------------------


def matrix(*shape: int, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(shape) * torch.logspace(-3, 1, shape[-2])[:, None]


def product(values: Tensor, scale: Tensor) -> Tensor:
    """Return the rounded float32 product, formed in float64 where no factor of it is rounded."""
    return (values.double() * scale.double()).float()


def test_blocks_that_are_cut_short_take_their_own_scale() -> None:
    weight = matrix(576, 200)
    scale = by_block(weight, 128, 128) / FP8_MAX
    assert scale.shape == (5, 2)
    large = spread(scale, 128, 128, (576, 200))
    stored = {"a.weight": fp8(weight, large), "a.weight_scale_inv": scale}
    for config in ({}, {"quantization_config": fine_grained([128, 128])}):
        _, ours = all_dequantised(stored, config)
        assert torch.equal(ours["a.weight"], product(stored["a.weight"], large))
    with pytest.raises(ValueError, match="not divisible"):  # so transformers does not load it
        Fp8Dequantize(None).convert(  # type: ignore[no-untyped-call]
            {"weight": stored["a.weight"], "weight_scale_inv": scale}
        )


def test_the_config_s_blocks_count_and_not_an_even_division() -> None:
    weight = matrix(192, 192)
    scale = by_block(weight, 128, 128) / FP8_MAX
    large = spread(scale, 128, 128, (192, 192))
    stored = {"a.weight": fp8(weight, large), "a.weight_scale_inv": scale}
    _, ours = all_dequantised(stored, {"quantization_config": fine_grained([128, 128])})
    assert torch.equal(ours["a.weight"], product(stored["a.weight"], large))


def test_without_a_config_all_weights_together_tell_the_block() -> None:
    stored: Stored = {}
    for name, shape in {"a": (8, 8), "b": (6, 8), "c": (4, 10)}.items():
        stored |= quantised_in_blocks(4, 4)(f"{name}_proj.weight", matrix(*shape))
    quantisation = described(stored)
    assert {w.block for w in quantisation.weights.values()} == {(4, 4)}


EXPERT_SCALES = {
    "one for all": ((), (4, 12)),
    "one each": ((3,), (4, 12)),
    "one each, kept": ((3, 1, 1), (4, 12)),
    "a row's": ((3, 4), (1, 12)),
    "a row's, kept": ((3, 4, 1), (1, 12)),
    "a column's": ((3, 12), (4, 1)),
    "a column's, kept": ((3, 1, 12), (4, 1)),
    "blocks": ((3, 2, 3), (2, 4)),
    "blocks, cut short": ((3, 2, 3), (3, 5)),
}


@pytest.mark.parametrize("kind", EXPERT_SCALES)
def test_fused_experts_take_scales_of_every_shape(kind: str) -> None:
    shape, (rows, columns) = EXPERT_SCALES[kind]
    values = matrix(3, 4, 12).clamp(-8, 8).to(torch.float8_e4m3fn)
    scale = torch.rand(shape) + 0.1
    stored = {"e.gate_up_proj": values, "e.gate_up_proj_scale": scale}
    config = {"quantization_config": fine_grained([rows, columns])}
    _, ours = all_dequantised(stored, config)
    grid = scale.reshape(-1, -(-4 // rows), -(-12 // columns))
    expected = product(values, spread(grid, rows, columns, (3, 4, 12)))
    assert torch.equal(ours["e.gate_up_proj"], expected)


def test_modelopt_s_own_shapes_of_scales() -> None:
    weight = matrix(16, 24)
    vector = weight.abs().amax(1) / FP8_MAX
    blocks = by_block(weight, 8, 8) / FP8_MAX
    large = spread(blocks, 8, 8, (16, 24))
    stored = {
        "a.weight": fp8(weight, vector[:, None]),
        "a.weight_scale": vector,
        "b.weight": fp8(weight, large),
        "b.weight_scale": blocks[:, None, :, None],
    }
    quantisation, ours = all_dequantised(stored)
    assert quantisation.format == (
        "FP8, one scale for each channel and FP8, one scale for each block of 8 x 8"
    )
    assert torch.equal(ours["a.weight"], product(stored["a.weight"], vector[:, None]))
    assert torch.equal(ours["b.weight"], product(stored["b.weight"], large))


@pytest.mark.parametrize("as_bytes", [False, True])
def test_exponents_are_powers_of_two_in_both_dtypes(as_bytes: bool) -> None:
    values = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).repeat(32)
    values = values.reshape(256, 32)[:254]
    exponents = torch.arange(254, dtype=torch.uint8)[:, None]  # 2^-127 to 2^126
    scale = exponents if as_bytes else exponents.view(torch.float8_e8m0fnu)
    stored = {"a.weight": values, "a.weight_scale_inv": scale}
    quantisation, ours = all_dequantised(stored)
    assert quantisation.format == "MXFP8"
    expected = product(values, torch.pow(2.0, exponents.double() - 127))
    assert torch.equal(ours["a.weight"].nan_to_num(), expected.nan_to_num())


@pytest.mark.parametrize("names", ["DeepSeek-V4", "ModelOpt", "compressed-tensors"])
def test_mxfp4_outside_gpt_oss(names: str) -> None:
    weight = matrix(6, 64)
    exponents = powers_of_two(by_block(weight, 1, 32) / 6)
    scale = spread((exponents.double() - 127).exp2(), 1, 32, (6, 64))
    pairs = fp4_pairs(weight / scale)
    stored = {
        "DeepSeek-V4": {
            "a.weight": pairs.view(torch.int8),
            "a.scale": exponents.view(torch.float8_e8m0fnu),
        },
        "ModelOpt": {"a.weight": pairs, "a.weight_scale": exponents},
        "compressed-tensors": {"a.weight_packed": pairs, "a.weight_scale": exponents},
    }[names]
    quantisation, ours = all_dequantised(stored)
    assert quantisation.format == "MXFP4"
    bits = fp4_bits(weight / scale)
    values = FP4_VALUES[(bits & 7).long()] * torch.where(bits < 8, 1, -1)
    assert torch.equal(ours["a.weight"], product(values, scale))


@pytest.mark.parametrize("names", ["ModelOpt", "compressed-tensors"])
def test_nvfp4_takes_both_its_scales(names: str) -> None:
    weight = matrix(6, 64)
    second = whole(weight) / 6 / FP8_MAX
    scale = (by_block(weight, 1, 16) / 6 / second).to(torch.float8_e4m3fn)
    if names == "ModelOpt":
        both = scale.float() * second
        beside = {"a.weight_scale_2": second, "a.input_scale": torch.tensor(1.0)}
    else:
        both = scale.float() / (1 / second)
        beside = {
            "a.weight_global_scale": (1 / second).reshape(1),
            "a.input_global_scale": torch.ones(1),
        }
    large = spread(both, 1, 16, (6, 64))
    values_name = "a.weight" if names == "ModelOpt" else "a.weight_packed"
    stored = {values_name: fp4_pairs(weight / large), "a.weight_scale": scale} | beside
    quantisation, ours = all_dequantised(stored)
    assert quantisation.format == "NVFP4"
    assert ours.keys() == {"a.weight"}
    bits = fp4_bits(weight / large)
    values = FP4_VALUES[(bits & 7).long()] * torch.where(bits < 8, 1, -1)
    assert torch.equal(ours["a.weight"], product(values, large))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("chunk", [1, 2**22])
def test_packed_integers_are_exact_in_float32(
    bits: int, symmetric: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("compressed_tensors")
    monkeypatch.setattr(dequantise, "CHUNK", chunk)
    weight = matrix(100, 48)
    stored = quantised_to_packed_integers(bits, 16, symmetric)("a_proj.weight", weight)
    arguments = {"num_bits": bits, "type": "int", "strategy": "group", "group_size": 16}
    config = {"quantization_config": compressed({**arguments, "symmetric": symmetric})}
    quantisation, ours = all_dequantised(stored, config)
    assert quantisation.format == f"int{bits}, one scale for each group of 16"
    whole_weight = ours["a_proj.weight"]
    values, scale, zero_point = small_integers(weight, bits, 16, symmetric)
    large = [t.double().repeat_interleave(16, 1) for t in (scale, zero_point)]
    # bfloat16 times few bits: nothing is rounded
    assert torch.equal(whole_weight.double(), (values.double() - large[1]) * large[0])
    tensors = [stored[part] for part in quantisation.parts["a_proj.weight"]]
    for first, last in ((0, 1), (31, 33), (40, 100), (99, 100), (50, 50)):
        rows = dequantised(quantisation, "a_proj.weight", tensors, slice(first, last))
        assert torch.equal(rows, whole_weight[first:last])


# --- a part of the rows, and memory -----------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 50, 2**22])
def test_any_rows_are_those_of_the_whole(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dequantise, "CHUNK", chunk)
    stored: Stored = {}
    for make in (
        quantised_in_blocks(4, 8),
        quantised_per_channel(torch.float32, flat=True),
        quantised_per_tensor(
            (1,), torch.float32, weights="weight_scale", activations="input_scale"
        ),
        quantised_to_int8_with_zero_points,
    ):
        stored |= make(f"{len(stored)}_proj.weight", matrix(10, 20))
    stored |= quantised_to_mxfp4("mlp.experts.gate_up_proj", matrix(5, 64, 6))
    values = matrix(5, 6, 7).to(torch.float8_e4m3fn)
    stored |= {"e.down_proj": values, "e.down_proj_scale_inv": torch.rand(5, 2, 1)}
    config = {"quantization_config": fine_grained([4, 8])}
    quantisation, ours = all_dequantised(stored, config)
    monkeypatch.setattr(dequantise, "CHUNK", 2**22)
    assert len(quantisation.weights) == 6
    for name, parts in quantisation.parts.items():
        tensors = [stored[part] for part in parts]
        assert torch.equal(ours[name], dequantised(quantisation, name, tensors))
        rows = ours[name].shape[0]
        for first, last in itertools.product(range(0, rows, 3), range(0, rows + 1, 3)):
            part = dequantised(quantisation, name, tensors, slice(first, last))
            assert torch.equal(part, ours[name][first:last]), (name, first, last)


def test_a_transformers_that_multiplies_otherwise_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = quantised_in_blocks(4, 4)("a_proj.weight", matrix(8, 8))
    monkeypatch.setattr(transformers, "__version__", "5.99")
    for convert in (lambda *_: {}, lambda _, d: {"x.weight": [d["x.weight"][0].bfloat16()]}):
        monkeypatch.setattr(Fp8Dequantize, "convert", convert)
        with pytest.raises(ChatVecError, match=r"transformers 5\.99"):
            all_dequantised(stored)
