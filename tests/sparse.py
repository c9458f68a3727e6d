"""A checkpoint of any size that takes no room: real safetensors headers, and holes for data.

What reads headers, configs and tokenizers sees a model of 70 billion parameters, what reads weights
sees zeros. Tools that fill holes should not copy it.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

SPECIAL = {
    "<|begin_of_text|>": 0,
    "<|end_of_text|>": 1,
    "<|start_header_id|>": 6,
    "<|end_header_id|>": 7,
    "<|eot_id|>": 9,
}
"""The places of Llama-3's special tokens among the last 256; the rest is reserved."""
_DTYPES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}


def build_sparse_model(
    folder: Path,
    *,
    layers: int = 80,
    hidden: int = 8192,
    intermediate: int = 28672,
    heads: int = 64,
    kv_heads: int = 8,
    vocabulary: int = 128256,
    shards: int = 30,
    dtype: torch.dtype = torch.bfloat16,
    tokenizer_from: Path | None = None,
) -> None:
    """Write a checkpoint whose weights are holes: by default 141 GB, as Llama-3-70B has.

    Args:
        folder: Is made.
        layers: Transformer blocks.
        hidden: Width of the hidden state.
        intermediate: Width of the MLP.
        heads: Of attention.
        kv_heads: Of keys and values.
        vocabulary: Rows of the embedding and tokens of the tokenizer, more than 512.
        shards: Files to share the tensors out to, in order.
        dtype: bfloat16, float16 or float32.
        tokenizer_from: A folder whose tokenizer to copy, without its template, in place of making
            one.
    """
    folder.mkdir(parents=True)
    special = vocabulary - 256
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 5e5},
        bos_token_id=special + SPECIAL["<|begin_of_text|>"],
        eos_token_id=special + SPECIAL["<|end_of_text|>"],
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
        dtype=dtype,
    )
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.generation_config.save_pretrained(folder)
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    _write_shards(folder, shapes, shards, dtype)
    if tokenizer_from is None:
        _write_tokenizer(folder, vocabulary)
    else:
        for file in tokenizer_from.glob("tokenizer*"):
            shutil.copy(file, folder)


def _write_shards(
    folder: Path, shapes: dict[str, list[int]], shards: int, dtype: torch.dtype
) -> None:
    sizes = {name: math.prod(shape) * dtype.itemsize for name, shape in shapes.items()}
    total, passed = sum(sizes.values()), 0
    contents: list[list[str]] = [[] for _ in range(shards)]
    for name, size in sizes.items():
        contents[passed * shards // total].append(name)
        passed += size

    weight_map: dict[str, str] = {}
    filled = [names for names in contents if names]
    for number, names in enumerate(filled, 1):
        file = f"model-{number:05}-of-{len(filled):05}.safetensors"
        _write_shard(folder / file, {name: shapes[name] for name in names}, dtype)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _write_shard(file: Path, shapes: dict[str, list[int]], dtype: torch.dtype) -> None:
    """Write a safetensors file: the length of the header, the header, and a hole for the data."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _DTYPES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(file, 8 + len(text) + end)


def _write_tokenizer(folder: Path, vocabulary: int) -> None:
    """Write a BPE over bytes with as many tokens as the embedding has rows."""
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    # The list grows while it is read: every token, old or new, is the start of four longer ones.
    pairs = ((token, letter) for token in tokens for letter in "aeio")
    merges = []
    for token, letter in islice(pairs, vocabulary - 512):
        merges.append((token, letter))
        tokens.append(token + letter)
    names = {place: name for name, place in SPECIAL.items()}
    special = [names.get(i, f"<|reserved_special_token_{i}|>") for i in range(256)]
    ids = {token: i for i, token in enumerate([*tokens, *special])}

    tokenizer = Tokenizer(models.BPE(ids, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>"
    ).save_pretrained(folder)
