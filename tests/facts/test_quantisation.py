"""Quantised checkpoints are told from plain ones by their tensors, whatever their config says."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import quantising
import torch
from huggingface_hub import ModelCardData
from mergekit.common import ModelReference
from torch import Tensor
from transformers import FineGrainedFP8Config, LlamaConfig

from chatvec_method.facts.models import TensorHeader, look_up
from chatvec_method.facts.quantisation import Quantisation, quantisation_of

FP8 = torch.float8_e4m3fn
PROJ = "model.layers.0.self_attn.q_proj"
EXPERTS = "model.layers.0.mlp.experts.gate_up_proj"
Header = tuple[torch.dtype, tuple[int, ...]]
PLAIN: dict[str, Header] = {
    "model.embed_tokens.weight": (torch.bfloat16, (640, 256)),
    "model.layers.0.input_layernorm.weight": (torch.bfloat16, (256,)),
    "model.layers.0.self_attn.k_proj.weight": (torch.bfloat16, (64, 256)),
    "model.norm.weight": (torch.bfloat16, (256,)),
}
FP8_WEIGHT: dict[str, Header] = {
    f"{PROJ}.weight": (FP8, (256, 256)),
    f"{PROJ}.weight_scale_inv": (torch.float32, (2, 2)),
}


def quantisation(
    tensors: Mapping[str, Header],
    block: Mapping[str, Any] | None = None,
    card: ModelCardData | None = None,
) -> Quantisation | None:
    headers = {
        name: TensorHeader(dtype, shape, "model.safetensors")
        for name, (dtype, shape) in (PLAIN | dict(tensors)).items()
    }
    return quantisation_of(headers, {"quantization_config": block} if block else {}, card)


def recognised(
    tensors: Mapping[str, Header], block: Mapping[str, Any] | None = None
) -> Quantisation:
    result = quantisation(tensors, block)
    assert result is not None
    assert (result.problem, result.fix) == ("", "")
    return result


def refused(
    tensors: Mapping[str, Header],
    block: Mapping[str, Any] | None = None,
    card: ModelCardData | None = None,
) -> Quantisation:
    result = quantisation(tensors, block, card)
    assert result is not None
    assert result.problem
    assert not result.problem.endswith(".")
    assert result.fix.endswith(".")
    return result


# --- what can be dequantised ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensors", "parts", "dropped", "shape", "format_"),
    [
        (
            FP8_WEIGHT,
            (f"{PROJ}.weight", f"{PROJ}.weight_scale_inv"),
            set(),
            (256, 256),
            "FP8, one scale for each block of 128 x 128",
        ),
        (
            {
                f"{PROJ}.weight": (FP8, (256, 128)),
                f"{PROJ}.weight_scale": (torch.float32, ()),
                f"{PROJ}.input_scale": (torch.float32, ()),
                "model.layers.0.self_attn.k_proj.k_scale": (torch.float32, ()),
                "model.layers.0.self_attn.v_proj.v_scale": (torch.float32, ()),
            },
            (f"{PROJ}.weight", f"{PROJ}.weight_scale"),
            {
                f"{PROJ}.input_scale",
                "model.layers.0.self_attn.k_proj.k_scale",
                "model.layers.0.self_attn.v_proj.v_scale",
            },
            (256, 128),
            "FP8, one scale for each tensor",
        ),
        (
            {
                f"{PROJ}.weight": (FP8, (256, 128)),
                f"{PROJ}.weight_scale": (torch.bfloat16, (256, 1)),
                f"{PROJ}.input_scale_ub": (torch.float32, (1,)),
            },
            (f"{PROJ}.weight", f"{PROJ}.weight_scale"),
            {f"{PROJ}.input_scale_ub"},
            (256, 128),
            "FP8, one scale for each channel",
        ),
        (
            {
                f"{PROJ}.weight": (torch.uint8, (256, 128)),
                f"{PROJ}.weight_scale": (FP8, (256, 16)),
                f"{PROJ}.weight_scale_2": (torch.float32, ()),
                f"{PROJ}.input_scale": (torch.float32, ()),
            },
            (f"{PROJ}.weight", f"{PROJ}.weight_scale", f"{PROJ}.weight_scale_2"),
            {f"{PROJ}.input_scale"},
            (256, 256),
            "NVFP4",
        ),
        (
            {
                f"{EXPERTS}_blocks": (torch.uint8, (4, 128, 2, 16)),
                f"{EXPERTS}_scales": (torch.uint8, (4, 128, 2)),
                f"{EXPERTS}_bias": (torch.bfloat16, (4, 128)),
            },
            (f"{EXPERTS}_blocks", f"{EXPERTS}_scales"),
            set(),
            (4, 64, 128),
            "MXFP4",
        ),
    ],
    ids=["DeepSeek", "ModelOpt FP8", "FBGEMM", "ModelOpt NVFP4", "gpt-oss"],
)
def test_weights_are_known_by_their_tensors_alone(
    tensors: dict[str, Header],
    parts: tuple[str, ...],
    dropped: set[str],
    shape: tuple[int, ...],
    format_: str,
) -> None:
    result = recognised(tensors)
    logical = EXPERTS if "experts" in parts[0] else f"{PROJ}.weight"
    assert result.parts == {logical: parts}
    assert result.shapes == {logical: shape}
    assert result.dropped == dropped
    assert result.format == format_


def test_a_block_of_the_config_may_be_nested_or_an_object() -> None:
    tensors = {
        f"{PROJ}.weight": (FP8, (192, 192)),
        f"{PROJ}.weight_scale_inv": (torch.float32, (2, 2)),
    }
    block = FineGrainedFP8Config(weight_block_size=(100, 100))
    # as a config of transformers holds it, and as config.json does
    headers = {n: TensorHeader(d, s, "") for n, (d, s) in tensors.items()}
    for config in (
        {"quantization_config": block},
        {"quantization_config": None, "text_config": {"quantization_config": block.to_dict()}},
    ):
        result = quantisation_of(headers, config, None)
        assert result is not None
        assert result.weights[f"{PROJ}.weight"].block == (100, 100)


@pytest.mark.parametrize(
    "method", ["fp8", "modelopt", "compressed-tensors", "mxfp4", "bitsandbytes"]
)
def test_plain_weights_are_plain_though_the_block_was_left(method: str) -> None:
    assert quantisation({}) is None
    assert quantisation({}, {"quant_method": method}) is None


def test_only_a_quantised_cache_leaves_the_weights_plain() -> None:
    result = recognised({"model.layers.0.self_attn.k_scale": (torch.float32, (1,))})
    assert not result.weights
    assert result.dropped == {"model.layers.0.self_attn.k_scale"}


@pytest.mark.parametrize(
    "tensors",
    [
        {"transformer.h.0.attn.bias": (torch.uint8, (1, 1, 64, 64))},
        {"model.layers.0.q_norm.scale": (torch.bfloat16, (16,))},
        {"model.layers.0.router.per_expert_scale": (torch.bfloat16, (16,))},
        {"model.embed_scale": (torch.float32, (1,)), "logit_scale": (torch.float32, ())},
        {"vision.position_ids": (torch.int64, (1, 64))},
    ],
)
def test_what_plain_models_have_is_not_taken_for_quantisation(tensors: dict[str, Header]) -> None:
    assert quantisation(tensors) is None


# --- what is refused --------------------------------------------------------------------------

OTHER_FORMATS: dict[str, dict[str, Header]] = {
    "GPTQ": {
        f"{PROJ}.qweight": (torch.int32, (32, 256)),
        f"{PROJ}.qzeros": (torch.int32, (2, 32)),
        f"{PROJ}.scales": (torch.float16, (2, 256)),
        f"{PROJ}.g_idx": (torch.int32, (256,)),
    },
    "AWQ": {
        f"{PROJ}.qweight": (torch.int32, (256, 32)),
        f"{PROJ}.qzeros": (torch.int32, (2, 32)),
        f"{PROJ}.scales": (torch.float16, (2, 256)),
    },
    "bitsandbytes": {
        f"{PROJ}.weight": (torch.uint8, (32768, 1)),
        f"{PROJ}.weight.absmax": (torch.uint8, (1024,)),
        f"{PROJ}.weight.quant_map": (torch.float32, (16,)),
        f"{PROJ}.weight.quant_state.bitsandbytes__nf4": (torch.uint8, (80,)),
    },
    "bitsandbytes, 8 bit": {
        f"{PROJ}.weight": (torch.int8, (256, 256)),
        f"{PROJ}.SCB": (torch.float32, (256,)),
        f"{PROJ}.weight_format": (torch.uint8, ()),
    },
    "HQQ": {f"{PROJ}.W_q": (torch.uint8, (128, 256)), f"{PROJ}.meta": (torch.uint8, (8,))},
    "AQLM": {
        f"{PROJ}.codes": (torch.int16, (256, 32, 1)),
        f"{PROJ}.codebooks": (torch.float16, (1, 256, 1, 8)),
        f"{PROJ}.scales": (torch.float16, (256, 1, 1, 1)),
    },
    "Quanto": {
        f"{PROJ}.weight._data": (torch.int8, (256, 256)),
        f"{PROJ}.weight._scale": (torch.bfloat16, (256, 1)),
    },
    "MLX": {
        f"{PROJ}.weight": (torch.uint32, (256, 32)),
        f"{PROJ}.scales": (torch.bfloat16, (256, 4)),
        f"{PROJ}.biases": (torch.bfloat16, (256, 4)),
    },
    "EETQ": {
        f"{PROJ}.weight": (torch.int8, (256, 256)),
        f"{PROJ}.weight_scales": (torch.float16, (256,)),
    },
}
UNKNOWN: dict[str, dict[str, Header]] = {
    "BitNet's bytes": {
        f"{PROJ}.weight": (torch.uint8, (64, 256)),
        f"{PROJ}.weight_scale": (torch.bfloat16, (1,)),
    },
    "int8 without scales": {f"{PROJ}.weight": (torch.int8, (256, 256))},
    "a vector in FP8": {f"{PROJ}.bias": (FP8, (256,))},
    "bytes": {f"{PROJ}.weight": (torch.uint8, (256, 256))},
    "blocks without scales": {f"{EXPERTS}_blocks": (torch.uint8, (4, 128, 2, 16))},
    "OpenAI's own names": {
        "block.0.mlp.mlp1_weight.blocks": (torch.uint8, (4, 128, 2, 16)),
        "block.0.mlp.mlp1_weight.scales": (torch.uint8, (4, 128, 2)),
    },
    "NVFP4 of many second scales": {
        f"{PROJ}.weight": (torch.uint8, (256, 128)),
        f"{PROJ}.weight_scale": (FP8, (256, 16)),
        f"{PROJ}.weight_scale_2": (torch.float32, (256,)),
    },
    "NVFP4 packed down the rows": {
        EXPERTS: (torch.uint8, (4, 64, 128)),
        f"{EXPERTS}_weight_scale": (FP8, (4, 8, 128)),
        f"{EXPERTS}_weight_scale_2": (torch.float32, ()),
    },
    "a scale alone": {f"{PROJ}.weight_scale": (torch.float32, ())},
    "packed integers": {
        f"{PROJ}.weight_packed": (torch.int32, (256, 32)),
        f"{PROJ}.weight_scale": (torch.bfloat16, (256, 2)),
    },
}


@pytest.mark.parametrize("kind", OTHER_FORMATS)
@pytest.mark.parametrize("configured", [False, True])
def test_other_programs_formats_are_refused_by_name(kind: str, configured: bool) -> None:
    program = kind.split(",")[0]
    result = refused(OTHER_FORMATS[kind], {"quant_method": program.lower()} if configured else None)
    assert result.format == program
    assert f"quantised by {program}" in result.problem
    assert "unquantised model" in result.fix


@pytest.mark.parametrize("kind", UNKNOWN)
def test_nothing_unknown_is_taken_for_weights(kind: str) -> None:
    result = refused(UNKNOWN[kind])
    assert PROJ in result.problem or EXPERTS in result.problem or "mlp1" in result.problem


def test_methods_that_nobody_knows_are_named() -> None:
    assert "`newest_method`" in refused({}, {"quant_method": "newest_method"}).problem


def test_a_block_of_gptq_over_plain_weights_asks_what_they_are() -> None:
    result = refused({}, {"quant_method": "gptq", "bits": 4})
    assert "GPTQ" in result.problem
    assert "Delete `quantization_config`" in result.fix


def test_fp8_whose_scales_are_missing_is_not_taken_for_weights() -> None:
    result = refused({f"{PROJ}.weight": (FP8, (256, 256))})
    assert f"`{PROJ}.weight`" in result.problem
    assert "no scale" in result.problem


def test_weights_may_be_named_as_scales_of_activations_are() -> None:
    tensors = FP8_WEIGHT | {"altup.correct_output_scale": (torch.bfloat16, (256,))}
    assert not recognised(tensors).dropped
    assert quantisation({"altup.correct_output_scale": (torch.bfloat16, (256,))}) is None


def test_fused_experts_own_scales_of_activations_are_dropped() -> None:
    result = recognised(
        {
            EXPERTS: (FP8, (4, 64, 32)),
            f"{EXPERTS}_weight_scale": (torch.float32, (4,)),
            f"{EXPERTS}_input_scale": (torch.float32, (4,)),
        }
    )
    assert result.parts == {EXPERTS: (EXPERTS, f"{EXPERTS}_weight_scale")}
    assert result.dropped == {f"{EXPERTS}_input_scale"}


PACKED: dict[str, Header] = {
    f"{PROJ}.weight_packed": (torch.int32, (256, 32)),
    f"{PROJ}.weight_scale": (torch.bfloat16, (256, 2)),
    f"{PROJ}.weight_shape": (torch.int64, (2,)),
}


def mixed_groups(bits: int, *, symmetric: bool = True) -> dict[str, Any]:
    integers = {
        "num_bits": bits,
        "type": "int",
        "strategy": "group",
        "group_size": 128,
        "symmetric": symmetric,
    }
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float"}},
            "group_1": {"targets": [r"re:.*q_proj$"], "weights": integers},
        },
    }


def test_packed_integers_take_the_group_that_names_them() -> None:
    result = recognised(PACKED, mixed_groups(4))
    assert result.shapes == {f"{PROJ}.weight": (256, 256)}
    assert result.format == "int4, one scale for each group of 128"


def test_packed_integers_with_zero_points_need_their_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chatvec_method.facts.quantisation.checkpoint.find_spec", lambda _: None)
    assert not recognised(PACKED, mixed_groups(4)).problem
    zero_points = {f"{PROJ}.weight_zero_point": (torch.int32, (32, 2))}
    result = refused(PACKED | zero_points, mixed_groups(4, symmetric=False))
    assert "compressed-tensors, which is not installed" in result.problem
    assert "chatvec-method[quantised]" in result.fix


def test_packed_integers_without_a_config_may_be_of_any_size() -> None:
    assert "does not tell into how many bits" in refused(PACKED).problem


def test_an_old_transformers_is_told_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("transformers.__version__", "5.7.1")
    result = refused(FP8_WEIGHT)
    assert "transformers 5.7.1" in result.problem
    assert "transformers>=5.8" in result.fix


@pytest.mark.parametrize(
    ("shapes", "block"),
    [
        ({(192, 192): (2, 2)}, 128),
        ({(48, 72): (2, 3)}, 24),  # not 32, though that fits as well: two lengths divide evenly
        ({(576, 512): (5, 4)}, 128),
        ({(6, 6): (2, 2), (8, 8): (2, 2)}, 4),
        ({(30, 30): (3, 3), (10, 10): (1, 1)}, 10),
    ],
)
def test_without_a_config_all_shapes_together_tell_the_block(
    shapes: dict[tuple[int, int], tuple[int, int]], block: int
) -> None:
    tensors: dict[str, Header] = {}
    for i, (shape, grid) in enumerate(shapes.items()):
        tensors[f"model.layers.{i}.q_proj.weight"] = (FP8, shape)
        tensors[f"model.layers.{i}.q_proj.weight_scale_inv"] = (torch.float32, grid)
    for weight in recognised(tensors).weights.values():
        assert all(b == min(block, n) for b, n in zip(weight.block, weight.shape, strict=True))


def test_packed_integers_of_other_sizes_are_refused() -> None:
    assert "not packed in the way" in refused(PACKED, mixed_groups(8)).problem


def test_many_headers_are_looked_at_in_no_time() -> None:
    tensors = {
        name.replace("layers.0", f"layers.{i}"): header
        for i in range(5000)
        for name, header in FP8_WEIGHT.items()
    }
    start = time.perf_counter()
    assert len(recognised(tensors).weights) == 5000
    assert time.perf_counter() - start < 10  # each name against all others would take minutes


@pytest.mark.parametrize("shape", [(3, 2), (256,), (2, 2, 2)])
def test_scales_that_fit_no_matrix_are_refused(shape: tuple[int, ...]) -> None:
    result = refused(
        {
            f"{PROJ}.weight": (FP8, (100, 256)),
            f"{PROJ}.weight_scale": (torch.float32, shape),
        }
    )
    assert f"{list(shape)}" in result.problem


def test_a_vector_of_scales_for_square_experts_fits_in_two_ways() -> None:
    refused({EXPERTS: (FP8, (4, 64, 64)), f"{EXPERTS}_scale": (torch.float32, (4, 64))})
    recognised({EXPERTS: (FP8, (4, 64, 32)), f"{EXPERTS}_scale": (torch.float32, (4, 64))})


def test_plain_weights_beside_scales_may_be_multiplied_or_not() -> None:
    result = refused(
        {
            f"{PROJ}.weight": (torch.bfloat16, (256, 256)),
            f"{PROJ}.weight_scale": (torch.float32, ()),
        }
    )
    assert "stored in bfloat16 and has a scale" in result.problem


@pytest.mark.parametrize(
    ("extra", "block", "word"),
    [
        ({f"{PROJ}.pre_quant_scale": (torch.bfloat16, (256,))}, {}, "pre_quant_scale"),
        ({}, {"sparsity_config": {"format": "sparse-24-bitmask"}}, "sparse-24-bitmask"),
        ({}, {"transform_config": {"config_groups": {"R1": {}}}}, "rotated"),
    ],
)
def test_what_scales_alone_do_not_undo_is_refused(
    extra: dict[str, Header], block: dict[str, Any], word: str
) -> None:
    assert (
        word in refused(FP8_WEIGHT | extra, {"quant_method": "compressed-tensors", **block}).problem
    )


@pytest.mark.parametrize(
    ("card", "fix"),
    [
        (
            {"base_model": "Qwen/Qwen3-8B", "base_model_relation": "quantized"},
            "Write `Qwen/Qwen3-8B` in its place, the unquantised model that its card names.",
        ),
        (
            {"base_model": ["meta-llama/Llama-2-7b-chat-hf"], "quantized_by": "TheBloke"},
            "Write `meta-llama/Llama-2-7b-chat-hf` in its place, the unquantised model that its "
            "card names.",
        ),
        (
            {"base_model": "https://huggingface.co/google/gemma-2-9b"},
            "Write the unquantised model in its place: its card gives `google/gemma-2-9b` as "
            "base_model, which it may be.",
        ),
        (
            {"base_model": "google/gemma-2-9b", "base_model_relation": "finetune"},
            "Write the unquantised model in its place: its card does not name it, but mostly it "
            "has the same name without the ending that tells of the quantisation.",
        ),
        (
            {},
            "Write the unquantised model in its place: its card does not name it, but mostly it "
            "has the same name without the ending that tells of the quantisation.",
        ),
    ],
)
def test_the_unquantised_model_is_named_where_the_card_tells_it(
    card: dict[str, Any], fix: str
) -> None:
    assert refused(OTHER_FORMATS["AWQ"], card=ModelCardData(**card)).fix == fix
    assert refused(OTHER_FORMATS["AWQ"], {"quant_method": "awq"}, ModelCardData(**card)).fix == fix


# --- as folders hold it -----------------------------------------------------------------------


def quantisation_in(folder: Path) -> Quantisation:
    model = look_up(ModelReference.parse(str(folder)))
    assert model.tensors is not None
    result = quantisation_of(model.tensors, model.config.to_dict(), model.card)
    assert result is not None
    return result


LLAMA = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)


@pytest.mark.parametrize("configured", [False, True])
def test_modelopt_s_own_file_in_place_of_the_block_changes_nothing(
    configured: bool, tmp_path: Path
) -> None:
    folder = quantising.model_folder(tmp_path, LLAMA)
    block = {"quant_method": "modelopt", "quant_algo": "FP8"} if configured else None
    names = {"weights": "weight_scale", "activations": "input_scale"}
    quantise = quantising.quantised_per_tensor((), torch.float32, **names)
    stored = quantising.quantise_folder(folder, block, quantise)
    (folder / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "FP8"}}')
    result = quantisation_in(folder)
    assert result.format == "FP8, one scale for each tensor"
    assert len(result.weights) == 14
    assert result.dropped == {name for name in stored if name.endswith("input_scale")}
    assert result.problem == ""


def test_a_card_in_the_folder_names_the_unquantised_model(tmp_path: Path) -> None:
    folder = quantising.model_folder(tmp_path, LLAMA)

    def packed(name: str, weight: Tensor) -> dict[str, Tensor]:
        if not quantising.is_quantised(name):
            return {name: weight}
        module = name.removesuffix(".weight")
        rows, columns = weight.shape
        return {
            f"{module}.qweight": torch.zeros(columns // 8, rows, dtype=torch.int32),
            f"{module}.g_idx": torch.zeros(columns, dtype=torch.int32),
        }

    quantising.quantise_folder(folder, {"quant_method": "gptq", "bits": 4}, packed)
    card = "---\nbase_model: owner/model\nbase_model_relation: quantized\n---\n"
    (folder / "README.md").write_text(card)
    assert "Write `owner/model` in its place" in quantisation_in(folder).fix
