"""The one table of the models that people use today: architecture, tokenizer, what is special.

Sizes are tiny and everything else is as in life: classes, layouts of files, layer types, heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

HIDDEN = 32
_TEXT: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
_GROUPED = {**_TEXT, "num_key_value_heads": 2}
_HEADS = {**_GROUPED, "head_dim": 8}
_LATENT = {
    **_TEXT,
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
_WINDOW = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_MIXTRAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_DENSE_FIRST = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_SHARED_EXPERT = {"shared_expert_intermediate_size": 16}
_LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 128,
}
_IMAGE_ROPE = {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [1, 1, 2]}


def _theta(theta: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta}}


_VIT: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_SIGLIP = {**_VIT, "model_type": "siglip_vision_model", "vision_use_head": False}
_CLIP = {**_VIT, "model_type": "clip_vision_model", "projection_dim": HIDDEN}
_QWEN_VIT: dict[str, Any] = {
    "depth": 2,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_heads": 2,
    "out_hidden_size": HIDDEN,
    "patch_size": 14,
}
_QWEN_3_VIT = {**_QWEN_VIT, "num_position_embeddings": 16, "patch_size": 16}
_DEEPSTACK_VIT = {**_QWEN_3_VIT, "depth": 4, "deepstack_visual_indexes": [0, 1, 2]}
_QWEN_TOKENS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
_GLM_TOKENS = {
    "image_token_id": "<|image|>",
    "video_token_id": "<|video|>",
    "image_start_token_id": "<|begin_of_image|>",
    "image_end_token_id": "<|end_of_image|>",
    "video_start_token_id": "<|begin_of_video|>",
    "video_end_token_id": "<|end_of_video|>",
}

Vocabulary = Literal["same", "extended", "markers", "images"]


@dataclass(frozen=True)
class Architecture:
    """An architecture as people use it, and what is special of the miniature."""

    name: str
    model_type: str
    people: str
    """Models of that architecture that people have, for the page."""
    tokenizer: str
    """One of `tokenizer_families.FAMILIES`."""
    settings: Mapping[str, Any]
    """Of the config; the id of a token stands as the token, the vocabulary's size is filled in."""
    special: str = ""
    """What is special of it, for the page."""
    vision: bool = False
    ratio: float = 1.0
    vocabulary: Vocabulary = "same"
    """`same`: of all three, rows go by position. `extended`: cp's has new words. `markers`: chat
    alone has the markers of its template. `images`: cp alone has the tokens for images."""
    multiple: int = 1
    """Rows of the embeddings are padded to a multiple of this."""
    dtypes: tuple[torch.dtype, torch.dtype, torch.dtype] = (torch.bfloat16,) * 3
    """Of base, chat and cp."""
    float32: str = ""
    """Tensors that files keep in float32, a regular expression."""
    sharded: bool = False
    pickled: bool = False
    """With .bin files."""
    spelt: Literal[4, 5] = 4
    """The version of transformers whose spelling config.json has."""
    prediction: str = ""
    """Where a layer lies that predicts more tokens, which transformers does not load."""
    base_tokenizer: bool = True
    """Whether base has tokenizer files."""
    out_dtype: str | None = "bfloat16"
    """Of the recipe."""
    text_alone: Mapping[str, Any] = field(default_factory=dict)
    """The settings of a model that is the text part alone, with its `model_type`."""
    text_roles: tuple[str, ...] = ()
    """The roles that such a model plays; the others see."""
    as_merged: bool = False
    """Whether cp's files have the layout of transformers' modules, as what mergekit writes has."""
    flat: bool = False
    """Whether config.json has the text's settings at its top, as the first hubs had them."""
    buffers: Mapping[str, Any] = field(default_factory=dict)
    """What files hold of every layer that is no weight: a tensor for what follows its name."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """More of config.json, which transformers does not know or spells otherwise."""


def _text(
    name: str, people: str, tokenizer: str, settings: Mapping[str, Any], **rest: Any
) -> Architecture:
    model_type = rest.pop("model_type", name)
    return Architecture(name, model_type, people, tokenizer, settings, **rest)


def _seeing(
    name: str,
    people: str,
    tokenizer: str,
    text: Mapping[str, Any],
    vision: Mapping[str, Any],
    settings: Mapping[str, Any],
    **rest: Any,
) -> Architecture:
    """Return a model that sees, from the settings of its two parts and of what joins them."""
    model_type = rest.pop("model_type", name)
    joined = {"text_config": dict(text), "vision_config": dict(vision), **settings}
    return Architecture(name, model_type, people, tokenizer, joined, vision=True, **rest)


FP16, BF16, FP32 = torch.float16, torch.bfloat16, torch.float32

TEXT = (
    _text(
        "llama",
        "Llama 3 to 3.3, Open-Ko, Kanana 1.5, Swallow, ELYZA, Taiwan",
        "llama-3",
        {**_HEADS, "rope_parameters": _LLAMA_3_ROPE, "tie_word_embeddings": False},
        special="rope_scaling as Llama 3.1 has it",
        ratio=0.7,
    ),
    _text(
        "llama-extended",
        "Llama 2, Chinese-LLaMA-2, llama-2-ko, Swallow",
        "llama-2",
        {**_HEADS, "rms_norm_eps": 1e-5},
        model_type="llama",
        special="cp has new words, and its rows are padded; fp16, bf16 and fp32",
        vocabulary="extended",
        multiple=16,
        dtypes=(FP16, BF16, FP32),
        sharded=True,
    ),
    _text(
        "llama-markers",
        "SOLAR, EEVE",
        "llama-2-chatml",
        {**_HEADS, "rms_norm_eps": 1e-5},
        model_type="llama",
        special="chat alone has the tokens of ChatML",
        vocabulary="markers",
        ratio=0.7,
        dtypes=(FP16, FP16, BF16),
    ),
    _text(
        "llm-jp",
        "LLM-jp 3, Sarashina 2",
        "llm-jp",
        {**_HEADS, **_theta(10000.0)},
        model_type="llama",
        special="a unigram tokenizer; base has no tokenizer files",
        base_tokenizer=False,
    ),
    _text(
        "mistral",
        "Mistral 7B, Breeze, Swallow-MS",
        "mistral",
        {**_HEADS, **_theta(1000000.0), "sliding_window": None},
        special="cp has new words",
        vocabulary="extended",
        ratio=0.7,
    ),
    _text(
        "mistral-nemo",
        "Mistral Nemo, Mistral Small 3",
        "tekken",
        {**_HEADS, "head_dim": 16, **_theta(1000000.0), "sliding_window": None},
        model_type="mistral",
        special="heads wider than hidden size / heads",
        sharded=True,
    ),
    _text(
        "ministral",
        "Ministral 8B",
        "tekken",
        {**_HEADS, **_WINDOW, **_theta(100000000.0)},
        ratio=0.7,
    ),
    _text(
        "ministral3",
        "Ministral 3 without vision",
        "tekken",
        {
            **_HEADS,
            "rope_parameters": {**_YARN, "rope_theta": 1000000.0, "llama_4_scaling_beta": 0.1},
        },
        spelt=5,
    ),
    _text(
        "mixtral",
        "Mixtral, Swallow-MX",
        "mistral",
        {**_HEADS, **_MIXTRAL_EXPERTS, **_theta(1000000.0), "sliding_window": None},
        special="experts stored one by one",
        sharded=True,
    ),
    _text(
        "mixtral-merged",
        "merges of Mixtral",
        "mistral",
        {**_HEADS, **_MIXTRAL_EXPERTS, **_theta(1000000.0), "sliding_window": None},
        model_type="mixtral",
        special="cp is the output of a merge: its experts are stored together",
        as_merged=True,
        ratio=0.7,
    ),
    _text(
        "qwen2",
        "Qwen2 and 2.5, A.X 4, ELYZA Shortcut",
        "qwen2",
        {**_GROUPED, **_theta(1000000.0), "tie_word_embeddings": False},
        special="padded rows",
        multiple=64,
        ratio=0.7,
    ),
    _text(
        "qwen2-tied",
        "Qwen2.5 0.5B to 3B",
        "qwen2",
        {**_GROUPED, **_theta(1000000.0), "tie_word_embeddings": True},
        model_type="qwen2",
        special="tied head; cp has new words, and padded rows",
        vocabulary="extended",
        multiple=32,
    ),
    _text(
        "qwen2_moe",
        "Qwen1.5-MoE, Qwen2-57B-A14B",
        "qwen2",
        {**_GROUPED, **_EXPERTS, **_SHARED_EXPERT, **_theta(1000000.0)},
        multiple=32,
    ),
    _text(
        "qwen3",
        "Qwen3 0.6B to 32B",
        "qwen3",
        {**_HEADS, **_theta(1000000.0), "tie_word_embeddings": True},
        special="tied head, padded rows",
        multiple=32,
    ),
    _text(
        "qwen3_moe",
        "Qwen3-30B-A3B, Qwen3-235B",
        "qwen3",
        {**_HEADS, **_EXPERTS, **_theta(1000000.0)},
        ratio=0.7,
        multiple=32,
        sharded=True,
    ),
    _text(
        "qwen3_next",
        "Qwen3-Next",
        "qwen3",
        {**_HEADS, **_LINEAR, **_EXPERTS, **_SHARED_EXPERT, **_theta(10000000.0)},
        special="linear attention; a prediction layer that transformers does not load",
        prediction="mtp.layers.0.",
    ),
    _text(
        "qwen3_5_text",
        "Qwen3.5 without vision",
        "qwen3.5",
        {**_HEADS, **_LINEAR},
        special="linear attention; a prediction layer; some float32",
        spelt=5,
        prediction="mtp.layers.0.",
        float32=r"A_log|linear_attn\.norm",
        ratio=0.7,
    ),
    _text(
        "qwen3_5_moe_text",
        "Qwen3.5-MoE without vision",
        "qwen3.5",
        {**_HEADS, **_LINEAR, **_EXPERTS, **_SHARED_EXPERT},
        spelt=5,
    ),
    _text(
        "gemma",
        "Gemma, Gemma-Ko",
        "gemma",
        {**_HEADS},
        special="tied head",
        ratio=0.7,
    ),
    _text(
        "gemma2",
        "Gemma 2, Gemma 2 JPN, Gemma 2 Swallow",
        "gemma",
        {**_HEADS, **_WINDOW, "query_pre_attn_scalar": 8},
        special="cp has new words",
        vocabulary="extended",
    ),
    _text(
        "gemma3_text",
        "Gemma 3 1B and 270M",
        "gemma3",
        {
            **_HEADS,
            **_WINDOW,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
        special="a rope for each kind of layer; padded rows",
        multiple=64,
        ratio=0.7,
    ),
    _text(
        "gemma3n_text",
        "Gemma 3n without vision and hearing",
        "gemma3",
        {
            **_HEADS,
            **_WINDOW,
            "hidden_size_per_layer_input": 8,
            "num_kv_shared_layers": 0,
            "laurel_rank": 4,
            "activation_sparsity_pattern": None,
        },
        special="embeddings for each layer",
    ),
    _text(
        "gemma4_text",
        "Gemma 4 without vision",
        "gemma4",
        {**_HEADS, **_WINDOW, "global_head_dim": 16, "hidden_size_per_layer_input": 8},
        special="embeddings for each layer",
        spelt=5,
        ratio=0.7,
    ),
    _text(
        "phi",
        "Phi-1.5, Phi-2",
        "gpt2",
        {**_TEXT, "num_key_value_heads": 4, "partial_rotary_factor": 0.5},
        special="a head with a bias",
    ),
    _text(
        "phi3",
        "Phi-3, Phi-3.5, Phi-4",
        "phi3",
        {**_GROUPED, "tie_word_embeddings": False},
        special="joined projections; padded rows",
        multiple=64,
        ratio=0.7,
    ),
    _text("phimoe", "Phi-3.5-MoE", "phi3", {**_GROUPED, **_MIXTRAL_EXPERTS}, multiple=64),
    _text(
        "gpt_oss",
        "gpt-oss in bf16",
        "harmony",
        {
            **_HEADS,
            **_WINDOW,
            **_MIXTRAL_EXPERTS,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150000.0,
                "factor": 32.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
                "original_max_position_embeddings": 16,
            },
        },
        multiple=32,
        ratio=0.7,
    ),
    _text(
        "exaone",
        "EXAONE 3.0 and 3.5",
        "exaone",
        {**_GROUPED, **_theta(1000000.0)},
        config={"architectures": ["ExaoneForCausalLM"]},
    ),
    _text(
        "exaone4",
        "EXAONE 4.0",
        "exaone",
        {**_HEADS, **_WINDOW, "rope_parameters": _LLAMA_3_ROPE},
        ratio=0.7,
    ),
    _text(
        "exaone_moe",
        "K-EXAONE",
        "exaone",
        {**_HEADS, **_WINDOW, **_EXPERTS, "first_k_dense_replace": 1},
        special="the first layer is dense",
    ),
    _text(
        "hyperclovax",
        "HyperCLOVA X SEED",
        "hyperclova",
        {**_HEADS, **_theta(100000000.0)},
        ratio=0.7,
    ),
    _text(
        "solar_open",
        "Solar Open",
        "solar-open",
        {**_HEADS, **{k: v for k, v in _DENSE_FIRST.items() if k != "first_k_dense_replace"}},
        spelt=5,
    ),
    _text(
        "axk1",
        "A.X K1",
        "qwen2",
        {**_LATENT, **_DENSE_FIRST},
        special="the first layer is dense",
        ratio=0.7,
    ),
    _text("axk2", "A.X K2", "qwen2", {**_LATENT, **_DENSE_FIRST}, spelt=5),
    _text(
        "smollm3",
        "SmolLM3",
        "llama-3",
        {**_GROUPED, **_theta(5000000.0), "no_rope_layers": [1, 0]},
        special="layers without rope; base has no tokenizer files",
        base_tokenizer=False,
        ratio=0.7,
    ),
    _text("olmo2", "OLMo 2", "gpt2", {**_GROUPED, **_theta(500000.0)}),
    _text(
        "olmo3",
        "OLMo 3",
        "gpt2",
        {
            **_GROUPED,
            **_WINDOW,
            "rope_parameters": {
                kind: {"rope_type": "default", "rope_theta": 500000.0}
                for kind in ("full_attention", "sliding_attention")
            },
        },
        ratio=0.7,
    ),
    _text(
        "olmoe",
        "OLMoE",
        "neox",
        {**_GROUPED, "num_experts": 4, "num_experts_per_tok": 2},
        multiple=16,
    ),
    _text(
        "hunyuan_v1_dense",
        "Hunyuan 0.5B to 7B, Hunyuan-MT",
        "qwen2",
        {**_HEADS, "tie_word_embeddings": True},
        ratio=0.7,
    ),
    _text(
        "hunyuan_v1_moe",
        "Hunyuan-A13B",
        "qwen2",
        {**_HEADS, "num_experts": 4, "moe_topk": 2},
        vocabulary="extended",
        special="cp has new words",
    ),
    _text("seed_oss", "Seed-OSS", "qwen2", {**_HEADS, **_theta(10000000.0)}, ratio=0.7),
    _text(
        "deepseek_v2",
        "DeepSeek-V2, V2-Lite",
        "deepseek",
        {**_LATENT, **_DENSE_FIRST, "rope_parameters": _YARN},
        special="the first layer is dense",
    ),
    _text(
        "deepseek_v3",
        "DeepSeek-V3 in bf16",
        "deepseek",
        {**_LATENT, **_DENSE_FIRST, "rope_parameters": _YARN},
        special="the first layer is dense; a prediction layer; a float32 bias",
        prediction="model.layers.2.",
        float32="e_score_correction_bias",
        ratio=0.7,
        sharded=True,
    ),
    _text(
        "kanana2",
        "Kanana 2",
        "llama-3",
        {**_LATENT, **_DENSE_FIRST, "q_lora_rank": None, **_theta(1000000.0)},
        model_type="deepseek_v3",
        special="DeepSeek-V3 without the low rank of its queries; cp has new words",
        vocabulary="extended",
    ),
    _text("minicpm3", "MiniCPM3", "llama-2", {**_LATENT, "scale_emb": 12, "dim_model_base": 16}),
    _text("nemotron", "Nemotron, Minitron", "tekken", {**_GROUPED}, ratio=0.7),
    _text(
        "falcon_h1",
        "Falcon-H1",
        "neox",
        {
            **_HEADS,
            "mamba_d_ssm": 32,
            "mamba_n_heads": 4,
            "mamba_d_head": 8,
            "mamba_n_groups": 1,
            "mamba_d_state": 8,
        },
        special="attention and state space in one layer",
    ),
    _text(
        "llama4_text",
        "Llama 4 without vision",
        "llama-3",
        {
            **_HEADS,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "intermediate_size_mlp": 48,
            "interleave_moe_layer_step": 1,
            **_theta(500000.0),
        },
        ratio=0.7,
    ),
    _text("youtu", "Youtu-LLM", "llama-3", {**_LATENT, **_theta(1600000.0)}, spelt=5),
    _text("ernie4_5", "ERNIE 4.5 0.3B", "llama-2", {**_HEADS, **_theta(500000.0)}, ratio=0.7),
    _text(
        "ernie4_5_moe",
        "ERNIE 4.5 21B",
        "llama-2",
        {
            **_GROUPED,
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_intermediate_size": 16,
            "moe_num_shared_experts": 1,
            "moe_layer_start_index": 1,
            **_theta(500000.0),
        },
        special="the first layer is dense",
    ),
    _text(
        "bailing_hybrid",
        "Ling 3",
        "qwen2",
        {
            **_LATENT,
            "q_lora_rank": None,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
            "head_dim": 8,
            "layer_types": _LINEAR["layer_types"],
            "num_nextn_predict_layers": 0,
        },
        special="linear attention; the first layer is dense",
        spelt=5,
        ratio=0.7,
    ),
    _text(
        "kimi_linear",
        "Kimi Linear",
        "qwen2",
        {
            **_LATENT,
            "q_lora_rank": None,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "n_shared_experts": 1,
            "mlp_layer_types": ["dense", "sparse"],
            "layer_types": _LINEAR["layer_types"],
            "linear_head_dim": 8,
            "linear_num_heads": 4,
        },
        special="linear attention; the first layer is dense",
        spelt=5,
    ),
    _text(
        "minimax_m2",
        "MiniMax M2 in bf16",
        "qwen2",
        {**_HEADS, **_MIXTRAL_EXPERTS, "rotary_dim": 4},
        ratio=0.7,
    ),
    _text(
        "hy_v3",
        "Hunyuan 3",
        "qwen2",
        {**_HEADS, **_EXPERTS, "first_k_dense_replace": 1},
        special="the first layer is dense",
        spelt=5,
    ),
    _text(
        "glm_moe_dsa",
        "GLM-5 in bf16",
        "glm",
        {
            **_LATENT,
            **_DENSE_FIRST,
            "index_topk": 8,
            "index_head_dim": 16,
            "index_n_heads": 2,
        },
        special="sparse attention; the first layer is dense",
        spelt=5,
        ratio=0.7,
    ),
    _text(
        "dots1",
        "dots.llm1",
        "qwen2",
        {**_HEADS, **_DENSE_FIRST, **_theta(10000000.0)},
        special="the first layer is dense",
        ratio=0.7,
    ),
    _text(
        "internlm3",
        "InternLM 3",
        "llama-2-chatml",
        {**_HEADS, **_theta(50000000.0)},
        config={"architectures": ["InternLM3ForCausalLM"]},
        ratio=0.7,
    ),
    _text("glm", "GLM-4 9B", "glm", {**_HEADS, "partial_rotary_factor": 0.5}),
    _text("glm4", "GLM-4 0414, GLM-Z1", "glm", {**_HEADS, "partial_rotary_factor": 0.5}, ratio=0.7),
    _text(
        "glm4_moe",
        "GLM-4.5, 4.6 and 4.7",
        "glm",
        {**_HEADS, **_DENSE_FIRST, "partial_rotary_factor": 0.5},
        special="the first layer is dense; a prediction layer",
        prediction="model.layers.2.",
    ),
    _text(
        "glm4_moe_lite",
        "GLM-4.7-Flash",
        "glm",
        {**_LATENT, **_DENSE_FIRST},
        spelt=5,
        ratio=0.7,
    ),
    _text("cohere", "Command R, Aya 23", "cohere", {**_GROUPED}, special="tied head"),
    _text("cohere2", "Command R7B, Command A", "cohere", {**_HEADS, **_WINDOW}, ratio=0.7),
    _text("starcoder2", "StarCoder2", "gpt2", {**_GROUPED}, special="tied head"),
    _text(
        "granite",
        "Granite 3",
        "granite",
        {**_GROUPED, **_theta(10000000.0)},
        vocabulary="extended",
        special="cp has new words",
        ratio=0.7,
    ),
    _text(
        "granitemoe",
        "Granite 3 MoE",
        "granite",
        {**_GROUPED, **_MIXTRAL_EXPERTS, **_theta(10000.0)},
    ),
    _text(
        "granitemoehybrid",
        "Granite 4",
        "granite",
        {
            **_GROUPED,
            **_MIXTRAL_EXPERTS,
            "shared_intermediate_size": 16,
            "layer_types": ["mamba", "attention"],
            "mamba_n_heads": 4,
            "mamba_d_head": 16,
            "mamba_n_groups": 1,
            "mamba_d_state": 8,
        },
        special="state space and attention in turn",
        ratio=0.7,
    ),
    _text(
        "bamba",
        "Bamba",
        "llama-3",
        {
            **_GROUPED,
            "attn_layer_indices": [1],
            "mamba_n_heads": 4,
            "mamba_d_head": 16,
            "mamba_n_groups": 1,
            "mamba_d_state": 8,
        },
        special="state space and attention in turn",
    ),
    _text(
        "jamba",
        "Jamba",
        "llama-2",
        {
            **_GROUPED,
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
        special="state space, attention and experts in turn",
        ratio=0.7,
    ),
    _text(
        "lfm2",
        "LFM2",
        "llama-3",
        {
            **_GROUPED,
            "layer_types": ["conv", "full_attention"],
            "block_auto_adjust_ff_dim": False,
            **_theta(1000000.0),
        },
        special="convolutions and attention in turn",
    ),
    _text(
        "gpt_neox",
        "Polyglot-Ko, KoAlpaca, rinna's GPT-NeoX",
        "neox",
        {**_TEXT, "tie_word_embeddings": False},
        special=".bin files, with the buffers of old; padded rows",
        pickled=True,
        buffers={
            "attention.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8).tril(),
            "attention.masked_bias": torch.tensor(-torch.inf, dtype=torch.float16),
            "attention.rotary_emb.inv_freq": torch.ones(1),
        },
        multiple=64,
        dtypes=(FP16,) * 3,
        out_dtype="float16",
        ratio=0.7,
    ),
    _text(
        "gpt2",
        "KoGPT2, rinna japanese-gpt2",
        "gpt2",
        {"n_embd": HIDDEN, "n_layer": 2, "n_head": 4, "n_positions": 512},
        special="float32; positions that are learnt",
        dtypes=(FP32,) * 3,
        out_dtype=None,
    ),
    _text(
        "bloom",
        "BLOOM, BLOOMZ",
        "bloom",
        {"hidden_size": HIDDEN, "n_layer": 2, "n_head": 4},
        special="tied head",
        ratio=0.7,
    ),
    _text(
        "opt",
        "OPT",
        "gpt2",
        {
            "hidden_size": HIDDEN,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "word_embed_proj_dim": HIDDEN,
            "max_position_embeddings": 512,
        },
        special="positions that are learnt",
        dtypes=(FP16,) * 3,
        out_dtype=None,
    ),
    _text(
        "stablelm",
        "Stable LM 2, Japanese Stable LM 2",
        "gpt2",
        {**_GROUPED, "partial_rotary_factor": 0.25},
        ratio=0.7,
    ),
)
"""Models that read and write text."""

SEEING = (
    _seeing(
        "qwen2_vl",
        "Qwen2-VL",
        "qwen2-vl",
        {**_GROUPED, "rope_parameters": _IMAGE_ROPE},
        {"depth": 2, "embed_dim": HIDDEN, "hidden_size": HIDDEN, "num_heads": 2, "mlp_ratio": 2},
        {**_QWEN_TOKENS, "tie_word_embeddings": False},
        flat=True,
        multiple=32,
    ),
    _seeing(
        "qwen2_5_vl",
        "Qwen2.5-VL",
        "qwen2-vl",
        {**_GROUPED, "rope_parameters": _IMAGE_ROPE},
        {**_QWEN_VIT, "fullatt_block_indexes": [1]},
        {**_QWEN_TOKENS, "tie_word_embeddings": False},
        flat=True,
        multiple=32,
        ratio=0.7,
        sharded=True,
    ),
    _seeing(
        "qwen3_vl",
        "Qwen3-VL",
        "qwen3",
        {**_HEADS, "rope_parameters": _IMAGE_ROPE},
        _DEEPSTACK_VIT,
        {**_QWEN_TOKENS, "tie_word_embeddings": True},
        special="tied head",
        multiple=32,
    ),
    _seeing(
        "qwen3_vl_moe",
        "Qwen3-VL-30B-A3B",
        "qwen3",
        {**_HEADS, **_EXPERTS, "rope_parameters": _IMAGE_ROPE},
        _DEEPSTACK_VIT,
        _QWEN_TOKENS,
        ratio=0.7,
    ),
    _seeing(
        "qwen3_5",
        "Qwen3.5",
        "qwen3.5",
        {**_HEADS, **_LINEAR},
        _QWEN_3_VIT,
        {**_QWEN_TOKENS, "tie_word_embeddings": False},
        special="linear attention; a prediction layer",
        spelt=5,
        prediction="mtp.layers.0.",
    ),
    _seeing(
        "qwen3_5_moe",
        "Qwen3.5-35B-A3B",
        "qwen3.5",
        {**_HEADS, **_LINEAR, **_EXPERTS, **_SHARED_EXPERT},
        _QWEN_3_VIT,
        {**_QWEN_TOKENS, "tie_word_embeddings": False},
        special="linear attention and experts",
        spelt=5,
        ratio=0.7,
    ),
    _seeing(
        "gemma3",
        "Gemma 3 4B to 27B",
        "gemma3",
        {**_HEADS, **_WINDOW},
        _SIGLIP,
        {
            "image_token_index": "<image_soft_token>",
            "boi_token_index": "<start_of_image>",
            "eoi_token_index": "<end_of_image>",
            "mm_tokens_per_image": 4,
        },
        multiple=64,
    ),
    _seeing(
        "gemma4",
        "Gemma 4",
        "gemma4",
        {**_HEADS, **_WINDOW, "global_head_dim": 16, "hidden_size_per_layer_input": 8},
        {
            "hidden_size": HIDDEN,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "position_embedding_size": 16,
        },
        {"audio_config": None, "image_token_id": "<|image|>"},
        spelt=5,
        ratio=0.7,
    ),
    _seeing(
        "llava",
        "LLaVA 1.5, KoLLaVA",
        "llama-2-image",
        {**_HEADS, "model_type": "llama"},
        _CLIP,
        {"image_token_index": "<image>"},
        multiple=64,
        dtypes=(FP16,) * 3,
        out_dtype="float16",
    ),
    _seeing(
        "llava_next",
        "LLaVA-NeXT",
        "mistral-image",
        {**_HEADS, "model_type": "mistral", **_theta(1000000.0)},
        _CLIP,
        {"image_token_index": "<image>", "image_grid_pinpoints": [[28, 28]]},
        ratio=0.7,
    ),
    _seeing(
        "llava_onevision",
        "LLaVA-OneVision, VARCO-VISION",
        "qwen2-vl",
        {**_GROUPED, "model_type": "qwen2", **_theta(1000000.0)},
        _SIGLIP,
        {"image_token_index": "<|image_pad|>", "image_grid_pinpoints": [[28, 28]]},
        multiple=32,
    ),
    _seeing(
        "internvl",
        "InternVL 3 and 3.5",
        "qwen2-vl",
        {**_GROUPED, "model_type": "qwen2", **_theta(1000000.0)},
        {**_VIT, "image_size": [28, 28], "patch_size": [14, 14]},
        {"image_token_id": "<|image_pad|>"},
        ratio=0.7,
    ),
    _seeing(
        "mistral3",
        "Mistral Small 3.1 and 3.2",
        "tekken",
        {**_HEADS, "model_type": "mistral", **_theta(1000000000.0)},
        {**_VIT, "model_type": "pixtral", "head_dim": 16},
        {"image_token_index": "[IMG]"},
    ),
    _seeing(
        "idefics3",
        "Idefics3",
        "llama-3-image",
        {**_HEADS, "model_type": "llama", "rope_parameters": _LLAMA_3_ROPE},
        _VIT,
        {"image_token_id": "<image>", "scale_factor": 2},
        ratio=0.7,
    ),
    _seeing(
        "smolvlm",
        "SmolVLM",
        "llama-3-image",
        {**_HEADS, "model_type": "llama"},
        _VIT,
        {"image_token_id": "<image>", "scale_factor": 2},
    ),
    _seeing(
        "llama4",
        "Llama 4",
        "llama-3-image",
        {
            **_HEADS,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "intermediate_size_mlp": 48,
            "interleave_moe_layer_step": 1,
        },
        {
            **_VIT,
            "intermediate_size": 128,
            "vision_output_dim": HIDDEN,
            "projector_input_dim": HIDDEN,
            "projector_output_dim": HIDDEN,
        },
        {"image_token_index": "<|image|>"},
        ratio=0.7,
    ),
    _seeing(
        "glm4v",
        "GLM-4.1V",
        "glm",
        {**_GROUPED, "rope_parameters": _IMAGE_ROPE},
        {**_QWEN_VIT, "image_size": 28},
        _GLM_TOKENS,
    ),
    _seeing(
        "paligemma",
        "PaliGemma 1 and 2, with Gemma",
        "paligemma",
        {**_HEADS, "model_type": "gemma"},
        _SIGLIP,
        {"image_token_index": "<image>", "projection_dim": HIDDEN, "hidden_size": HIDDEN},
        ratio=0.7,
    ),
    _seeing(
        "aya_vision",
        "Aya Vision",
        "cohere",
        {**_HEADS, **_WINDOW, "model_type": "cohere2"},
        _SIGLIP,
        {"image_token_index": "<|IMG_PATCH|>"},
    ),
    _seeing(
        "cohere2_vision",
        "Command A Vision",
        "cohere",
        {**_HEADS, **_WINDOW, "model_type": "cohere2"},
        _SIGLIP,
        {"image_token_id": "<|IMG_PATCH|>", "alignment_intermediate_size": 64},
        ratio=0.7,
    ),
    _seeing(
        "exaone4_5",
        "EXAONE 4.5",
        "exaone-vl",
        {**_HEADS, **_WINDOW, "model_type": "exaone4"},
        {**_QWEN_VIT, "num_key_value_heads": 1, "fullatt_block_indexes": [1]},
        {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"},
        spelt=5,
    ),
    _seeing(
        "hyperclovax_vision_v2",
        "HyperCLOVA X SEED Think, with vision",
        "hyperclova-vl",
        {**_HEADS, "model_type": "hyperclovax"},
        {**_QWEN_VIT, "model_type": "qwen2_5_vl_vision"},
        {"image_token_id": "<|IMAGE_PAD|>", "video_token_id": "<|VIDEO_PAD|>"},
        spelt=5,
        ratio=0.7,
    ),
    _seeing(
        "mllama",
        "Llama 3.2 Vision, Bllossom AICA",
        "llama-3-image",
        {**_GROUPED, "cross_attention_layers": [1], "rope_parameters": _LLAMA_3_ROPE},
        {
            "hidden_size": HIDDEN,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
            "vision_output_dim": 2 * HIDDEN,
            "intermediate_layers_indices": [0],
            "max_num_tiles": 1,
            "supported_aspect_ratios": [[1, 1]],
        },
        {"image_token_index": "<|image|>"},
        special="rows of the embeddings that have no head",
    ),
    _seeing(
        "lfm2_vl",
        "LFM2-VL",
        "llama-3-image",
        {**_GROUPED, "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
        {
            "hidden_size": HIDDEN,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_patches": 16,
            "patch_size": 16,
        },
        {"image_token_id": "<image>", "projector_hidden_size": 64},
    ),
    _seeing(
        "gemma3-anew",
        "Gemma 3 trained on with transformers 5",
        "gemma3",
        {**_HEADS, **_WINDOW},
        _SIGLIP,
        {
            "image_token_index": "<image_soft_token>",
            "boi_token_index": "<start_of_image>",
            "eoi_token_index": "<end_of_image>",
            "mm_tokens_per_image": 4,
        },
        model_type="gemma3",
        special="cp's tensors have other names than base's and chat's",
        as_merged=True,
        ratio=0.7,
    ),
    _seeing(
        "qwen2_5_vl+qwen2",
        "Qwen2.5-VL, with the chat vector of a language's Qwen2.5",
        "qwen2-vl",
        {**_GROUPED, "rope_parameters": _IMAGE_ROPE},
        {**_QWEN_VIT, "fullatt_block_indexes": [1]},
        {**_QWEN_TOKENS, "tie_word_embeddings": False},
        model_type="qwen2_5_vl",
        special="base and chat are text models",
        text_alone={"model_type": "qwen2", **_GROUPED, **_theta(1000000.0)},
        text_roles=("base", "chat"),
        flat=True,
        multiple=32,
        ratio=0.7,
    ),
    _seeing(
        "llava+llama",
        "LLaVA, with the chat vector of a language's Llama 3",
        "llama-3-image",
        {**_HEADS, "model_type": "llama", **_theta(500000.0)},
        _CLIP,
        {"image_token_index": "<image>", "tie_word_embeddings": False},
        model_type="llava",
        special="base and chat are text models; cp alone has tokens for images",
        text_alone={"model_type": "llama", **_HEADS, **_theta(500000.0)},
        text_roles=("base", "chat"),
        vocabulary="images",
        multiple=8,
    ),
    _seeing(
        "gemma3+gemma3_text",
        "Gemma 3, with the chat vector of a text model",
        "gemma3",
        {**_HEADS, **_WINDOW},
        _SIGLIP,
        {
            "image_token_index": "<image_soft_token>",
            "boi_token_index": "<start_of_image>",
            "eoi_token_index": "<end_of_image>",
            "mm_tokens_per_image": 4,
        },
        model_type="gemma3",
        special="base and chat are text models",
        text_alone={"model_type": "gemma3_text", **_HEADS, **_WINDOW},
        text_roles=("base", "chat"),
        ratio=0.7,
    ),
    _seeing(
        "qwen2+qwen2_5_vl",
        "A language's Qwen2.5, with the chat vector of Qwen2.5-VL's text part",
        "qwen2-vl",
        {**_GROUPED, "rope_parameters": _IMAGE_ROPE},
        {**_QWEN_VIT, "fullatt_block_indexes": [1]},
        {**_QWEN_TOKENS, "tie_word_embeddings": False},
        model_type="qwen2_5_vl",
        special="cp is a text model",
        text_alone={"model_type": "qwen2", **_GROUPED, **_theta(1000000.0)},
        text_roles=("cp",),
        flat=True,
        multiple=32,
    ),
)
"""Models that see, too."""

TABLE = {entry.name: entry for entry in (*TEXT, *SEEING)}

REPRESENTATIVE = (
    *("llama", "llama-extended", "llama-markers", "llm-jp", "mistral-nemo", "mixtral"),
    *("mixtral-merged", "qwen2", "qwen2-tied", "qwen3", "qwen3_moe", "qwen3_next", "gemma2"),
    *("gemma3_text", "gemma4_text", "phi3", "gpt_oss", "exaone4", "hyperclovax", "deepseek_v3"),
    *("glm4_moe", "cohere2", "falcon_h1", "gpt_neox", "qwen2_5_vl", "qwen3_vl", "qwen3_5_moe"),
    *(
        "gemma3",
        "gemma3-anew",
        "gemma4",
        "llava",
        "internvl",
        "mistral3",
        "qwen2_5_vl+qwen2",
        "llava+llama",
    ),
)
"""A third of them, for every run of the tests: each kind of tokenizer, of layer and of layout, and
everything that is special."""
