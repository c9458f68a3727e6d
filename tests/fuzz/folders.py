"""Model folders changed at random: their files, what these say, and the weights' headers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.checkpoints import change_weights
from tests.fuzz.files import is_readable
from tests.fuzz.tokenizers import change_tokenizer
from tests.fuzz.values import TEMPLATES, WORDS, changed, value

WORLD = Path(__file__).resolve().parents[2] / "examples" / "world" / "models"
NAMES = ("base", "chat", "cp")
TENSORS = "model.safetensors"
JSON = (
    *("config.json", "config.json", "generation_config.json", "tokenizer_config.json"),
    *("tokenizer.json", "special_tokens_map.json", "model.safetensors.index.json"),
)
KEYS: dict[str, tuple[Any, ...]] = {
    "architectures": (["../../x"], [1], [], None, "LlamaForCausalLM", ["NoSuchForCausalLM"]),
    "auto_map": ({"AutoConfig": "x.Y"}, {"AutoTokenizer": ["x.Y", None]}, "x", []),
    "chat_template": (
        [{"name": "default", "template": "{{ messages }}"}, {"name": "/x/y", "template": ""}],
        {"../x": "y"},
        5,
        *TEMPLATES,
    ),
    "eos_token_id": ({}, "x", [1, "x"], 10**9, -1, [], [[]]),
    "num_hidden_layers": (10**9, 0, -1, 1, "3", 2),
    "vocab_size": (10**12, 0, -1, 7),
    "hidden_size": (10**9, 0, 7),
    "num_attention_heads": (0, 3, 10**9),
    "num_labels": (10**9,),
    "model_type": ("mistral", "nosuch", "gpt2", "bert", "mixtral", 5),
    "tie_word_embeddings": (True, "x"),
    "torch_dtype": ("float16", "nosuch", 5),
    "dtype": ("float16", "nosuch", 5),
    "rope_parameters": ({}, {"rope_theta": "x"}, {"rope_type": "yarn"}),
    "quantization_config": ({}, {"quant_method": "gptq"}, {"quant_method": "fp8"}, 5),
    "model_max_length": ("x", -1, 10**40),
    "added_tokens_decoder": ({"3": {}}, {"x": {"content": "y"}}, []),
    "tokenizer_class": ("LlamaTokenizer", "NoSuchTokenizer", "ByT5Tokenizer", 5),
    "pad_token": ({"content": 5}, "<nosuch>", ""),
    "additional_special_tokens": (["<x>", {"content": "<y>"}], [5], [["a"]], "x", {}),
    "extra_special_tokens": ({"image_token": "<x>"}, ["<x>"], {"x": 5}),
    "bos_token_id": (1, [1], "x", 10**9, None),
    "pad_token_id": (-1, 10**6, [0], "x"),
    "head_dim": (1, 0, 10**9, "x"),
    "num_key_value_heads": (1, 3, 0, "x"),
    "rope_scaling": ({"type": "linear", "factor": 2.0}, {"rope_type": "llama3"}, "x", []),
    "layer_types": (["full_attention"] * 4, ["sliding_attention", "x"], ["x"], 5),
    "text_config": ({"vocab_size": 7}, {"model_type": "llama"}, {}, 5),
    "vision_config": ({"hidden_size": 8}, {}, "x"),
    "sliding_window": (1, None, "x", -1),
    "transformers_version": ("99.0.0", 5, "x"),
    "_name_or_path": ("/etc/passwd", 5, "\x1b[8mx"),
    "use_cache": ("x",),
    "attention_bias": (True,),
    "temperature": (0.0, "x", float("nan"), -1, {}, 0.7),
    "top_k": (0, "x", 10**12),
    "do_sample": (True, "x"),
    "suppress_tokens": ([10**9], list(range(5000)), "x"),
    "max_length": (1, 10**15, "x"),
    "cache_implementation": ("nosuch", 5),
    "stop_strings": ("x", ["\x1b[2J"], 5),
    "watermarking_config": ({"x": 1}, {"greenlist_ratio": 5}),
    "add_bos_token": (True, "x"),
    "legacy": ("x", False),
    "model_input_names": ([5], "x"),
    "processor_class": ("NoSuchProcessor", "../x", 5),
    "padding_side": ("middle", 5, "right"),
}
TEMPLATE_FOLDERS = ("additional_chat_templates", "chat_templates")
ENCODINGS = ("utf-8-sig", "utf-16", "latin-1", "utf-8")
OTHER_FILES: dict[str, tuple[Any, ...]] = {
    "processor_config.json": (
        {"processor_class": "LlavaProcessor", "image_token": "<image>", "patch_size": 14},
        {"processor_class": "../x", "auto_map": {"AutoProcessor": "x.Y"}},
        {"chat_template": TEMPLATES[0]},
    ),
    "preprocessor_config.json": (
        {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 10**9}},
        {"feature_extractor_type": 5},
    ),
    "adapter_config.json": (
        {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"},
        {"peft_type": "LORA", "base_model_name_or_path": "/etc/passwd"},
        {},
    ),
    "special_tokens_map.json": (
        {"eos_token": "</s>", "pad_token": "</s>"},
        {"eos_token": {"content": "<nosuch>", "lstrip": False}},
        {"additional_special_tokens": ["<x>"] * 300},
    ),
    "added_tokens.json": ({"<x>": 305}, {"<x>": 1}, {"</s>": 999}, {"<x>": 10**9}),
    "tokenizer_config.json": ({}, {"tokenizer_class": "PreTrainedTokenizerFast"}),
    "generation_config.json": ({}, {"eos_token_id": [2, 3]}, {"eos_token_id": 2, "top_p": 0.9}),
    "chat_template.json": ({"chat_template": {"default": "x"}}, {"chat_template": ["x"]}),
    "chat_vector.json": ({}, {"format": 1}),
    "chatvec_hashes.json": ({}, {"hash": "x", "tensors": {}, "files": {}}),
    "mergekit_config.yml": ({}, {"merge_method": "linear"}),
    "config_sentence_transformers.json": ({},),
    "params.json": ({"dim": 64},),
    "quantize_config.json": ({"bits": 4},),
    "recipe.yaml": ({"merge_method": "chat_vector"},),
}
"""Files that some models have, as they may be."""
CARDS = (
    "---\nlicense: 5\n---\n",
    "---\nlicense: [a, {b: c}]\nlanguage: [ko, 5, '<script>']\n---\n",
    '---\nlicense: "mit\\e[8m\\n\\n# heading <img src=x onerror=alert(1)>"\n---\n',
    '---\nget: 5\nlicense: other\nlicense_link: "https://x\'>"\n---\n',
    "---\na: &a [x, x]\nb: &b [*a, *a]\nlicense: *b\n---\n",
    "---\n- a\n---\n",
    "---\nlicense: !!bool maybe\n---\n",
    "\x00\xff",
)


def folders(folder: Path, random: Random) -> str:
    """Write three models into a folder, at least one of them changed, and return how."""
    for name in NAMES:
        shutil.copytree(WORLD / name, folder / name)
    told = []
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        # What is wrong with a family is often wrong with all of it, and then nothing stands out.
        names = NAMES if random.random() < 0.2 else (random.choice(NAMES),)
        change, seed = random.choice(CHANGES), random.random()
        for name in names:
            told.append(f"{name}: {change(folder / name, Random(seed))}")
    return "; ".join(told)


def recipe(folder: Path, random: Random) -> dict[str, Any]:
    """Return a recipe of the three models in a folder."""
    base, chat, cp = (str(folder / name) for name in NAMES)
    data: dict[str, Any] = {
        "merge_method": "chat_vector",
        "base_model": random.choice([cp, cp, cp, chat]),
        "models": [
            {"model": base, "parameters": {"role": "base"}},
            {"model": chat, "parameters": {"role": "chat", "ratio": random.choice([1.0, 0.5, 0])}},
            {"model": cp, "parameters": {"role": "cp"}},
        ],
        "tokenizer": {"source": random.choice([cp, cp, cp, "union"])},
    }
    match random.randrange(12):
        case 0:
            data["tokenizer"]["pad_to_multiple_of"] = random.choice([8, -7, 64])
        case 1:
            data["out_dtype"] = random.choice(["float16", "float32"])
        case 2:
            del data["tokenizer"]
        case 3:
            data["dtype"] = random.choice(["float16", "float32", "bfloat16"])
        case 4:
            data["chat_template"] = random.choice(["auto", "chatml", *TEMPLATES])
        case 5:
            source = random.choice([chat, {"kind": "model_token", "model": base, "token_id": 5}])
            tokens = {"</s>": {"source": source, "force": True}}
            data["tokenizer"]["tokens"] = tokens
        case 6:
            ratio = [{"filter": "self_attn", "value": [0.2, 1.0]}, {"value": 0.3333}]
            data["models"][1]["parameters"]["ratio"] = ratio
        case 7:
            layers = random.choice([[0, 3], [0, 3], [1, 2], [0, 4], [2, 2]])
            sources = [{**model, "layer_range": layers} for model in data.pop("models")]
            data["slices"] = [{"sources": sources}]
    return data


def _file(folder: Path, random: Random) -> Path:
    files = (file for file in folder.iterdir() if is_readable(file))
    return random.choice(sorted(files))


def _json(folder: Path, random: Random) -> str:
    """Change what a JSON file says."""
    files = (folder / name for name in JSON)
    there = [file.name for file in files if is_readable(file)]
    name = random.choice(there or ["config.json"])
    file = folder / name
    if (file.exists() or file.is_symlink()) and not is_readable(file):
        return f"{file.name} left alone"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        data = {}
    for _ in range(random.choice([1, 1, 2, 4])):
        key = random.choice(list(KEYS))
        if isinstance(data, dict) and random.random() < 0.5:
            data[key] = random.choice(KEYS[key])
            told = f"{name} {key} {data[key]!r:.60}"
        else:
            data = changed(data, random)
            told = f"{name} changed"
    file.write_text(json.dumps(data), encoding="utf-8")
    return told


def _bytes(folder: Path, random: Random) -> str:
    return damage(_file(folder, random), random)


def damage(file: Path, random: Random) -> str:
    """Damage a file: cut it, empty it, flip bytes, add to it; and return how."""
    content = bytearray(file.read_bytes())
    match random.randrange(5):
        case 0:
            content = content[: random.randrange(len(content) + 1)]
        case 1:
            content = bytearray()
        case 2:
            for _ in range(random.choice([1, 3, 30])):
                if content:
                    # Near the beginning, where headers are, as often as anywhere.
                    end = random.choice([64, 2000, len(content)])
                    content[random.randrange(min(end, len(content)))] = random.randrange(256)
        case 3:
            content += bytes(random.randrange(256) for _ in range(random.choice([1, 8, 1000])))
        case 4:
            at = random.randrange(len(content) + 1)
            content[at:at] = random.choice([b"\x00", b"{", b'"', b"\xff\xfe", b"[" * 5000])
    file.write_bytes(content)
    return f"{file.name} damaged"


def _kind(folder: Path, random: Random) -> str:
    """Put something in a file's place that is no file, or another's."""
    file = _file(folder, random)
    content = file.read_bytes()
    file.unlink()
    match random.randrange(8):
        case 0:
            os.mkfifo(file)
        case 1:
            file.mkdir()
        case 2:
            outside = folder.parent / f"outside-{file.name}"
            outside.write_bytes(content)
            file.symlink_to(outside)
        case 3:
            file.symlink_to("/dev/zero")
        case 4:
            file.symlink_to(file.name)
        case 5:
            file.symlink_to("/etc/passwd")
        case 6:
            with file.open("wb") as stream:
                stream.truncate(3 << 30)
        case _:
            return f"{file.name} missing"
    return f"{file.name} is another kind of file"


def _card(folder: Path, random: Random) -> str:
    (folder / "README.md").write_text(random.choice(CARDS), encoding="utf-8", errors="replace")
    return "a card"


def _template(folder: Path, random: Random) -> str:
    name = random.choice(["chat_template.jinja", "chat_template.json"])
    template = random.choice(TEMPLATES)
    text = json.dumps({"chat_template": template}) if name.endswith("json") else template
    (folder / name).write_text(text, encoding="utf-8")
    return f"{name} {template!r:.40}"


def _more_files(folder: Path, random: Random) -> str:
    """Add a file that some model has."""
    name = random.choice(
        [
            *("added_tokens.json", "tokenizer.model", "vocab.json", "merges.txt", "tekken.json"),
            *("preprocessor_config.json", "modeling_x.py", "pytorch_model.bin", "x.safetensors"),
            *("model.safetensors.index.json", "pytorch_model.bin.index.json", "adapter.bin"),
        ]
    )
    (folder / name).write_text(json.dumps(value(random)), encoding="utf-8")
    return f"{name} added"


def _other_file(folder: Path, random: Random) -> str:
    """Write a file that some models have, over the one that is there."""
    name = random.choice(list(OTHER_FILES))
    said = random.choice(OTHER_FILES[name])
    if isinstance(said, dict) and random.random() < 0.3:
        said = changed(said, random)
    if (folder / name).is_file():
        (folder / name).unlink()
    if not (folder / name).exists():
        (folder / name).write_text(json.dumps(said), encoding="utf-8")
    return f"{name} {said!r:.60}"


def _templates(folder: Path, random: Random) -> str:
    """Write templates of several names, where transformers looks for them."""
    place = folder / random.choice(TEMPLATE_FOLDERS)
    place.mkdir(exist_ok=True)
    names = [random.choice(["default", "tool_use", "rag", "x y", "한", ".x"]) for _ in range(2)]
    for name in names:
        (place / f"{name}.jinja").write_text(random.choice(TEMPLATES), encoding="utf-8")
    return f"{place.name} {names}"


def _encoding(folder: Path, random: Random) -> str:
    """Write a text as other systems do: with a mark at its beginning, other ends of lines."""
    file = _file(folder, random)
    try:
        text = file.read_text(encoding="utf-8")
        encoding = random.choice(ENCODINGS)
        if random.random() < 0.5:
            text = text.replace("\n", "\r\n")
        file.write_bytes(text.encode(encoding, errors="replace"))
    except (OSError, ValueError):  # no text
        return f"{file.name} left alone"
    return f"{file.name} in {encoding}"


def _said_twice(folder: Path, random: Random) -> str:
    """Let a JSON file say something twice, of which libraries take the last."""
    file = folder / random.choice(JSON)
    key = random.choice(list(KEYS))
    if not is_readable(file):
        return f"{file.name} left alone"
    try:
        text = file.read_text(encoding="utf-8").rstrip()
        more = json.dumps({key: random.choice(KEYS[key])})[1:]
        if not text.endswith("}"):
            return f"{file.name} left alone"
        file.write_text(f"{text[:-1]}, {more}", encoding="utf-8")
    except (OSError, ValueError):
        return f"{file.name} left alone"
    return f"{file.name} {key} again"


def _header(folder: Path, random: Random) -> str:
    return change_header(folder / TENSORS, random)


def change_header(file: Path, random: Random) -> str:
    """Change the header of a safetensors file, with or without the data, and return where."""
    header, data = _read(file)
    names = [name for name in header if name != "__metadata__"]
    name = random.choice(names)
    entry = header[name]
    start, end = entry["data_offsets"]
    match random.randrange(13):
        case 0:
            entry["data_offsets"] = random.choice(
                [[end, start], [-8, end], [start, end + 8], [0, end], [start], "x", [start, 10**18]]
            )
        case 1:
            entry["shape"] = random.choice(["ab", [], [-1], [2**40, 2**40], [0], None, [1.5]])
        case 2:
            entry["shape"] = [*reversed(entry["shape"])]
        case 3:
            entry["dtype"] = random.choice(
                ["F32", "F64", "I8", "F4", "X", 5, "BF16", "F16", "BOOL"]
            )
        case 4:
            header["__metadata__"] = random.choice(
                [{"format": 5}, [], "x", None, {"format": "tf"}, {"x": "y" * 5000}, {"a": {}}]
            )
        case 5:
            del header[name]
        case 6:
            header[random.choice([f"{name}.x", "model.layers.99.x.weight", *WORDS])] = entry
            del header[name]
        case 7:
            data += bytes(random.choice([1, 8, 4096]))
        case 8:
            at, more = len(data), bytes(random.choice([2, 64]))
            new = random.choice(
                ["model.layers.0.mlp.experts.0.w1.weight", "x", "model.layers.7.y", "lm_head.bias"]
            )
            header[new] = {"dtype": "BF16", "shape": [len(more) // 2]}
            header[new]["data_offsets"] = [at, at + len(more)]
            data += more
        case 9:
            other = random.choice(names)
            entry["data_offsets"] = header[other]["data_offsets"]
        case 10:
            header = changed(header, random)
        case 11:
            dropped = {n: header[n] for n in names if n != name}
            header, data = _packed(dropped, data)
        case 12:
            entry["shape"] = [entry["shape"][0] // 2, *entry["shape"][1:]]
            entry["data_offsets"] = [start, start + (end - start) // 2]
            header, data = _packed({n: header[n] for n in names}, data)
    _write(file, header, data)
    return f"the header at {name}"


def _shards(folder: Path, random: Random) -> str:
    """Split the weights into two files with an index, and change that."""
    file = folder / TENSORS
    if file.is_dir():
        return f"{file.name} left alone"
    header, data = _read(file)
    names = [name for name in header if name != "__metadata__"]
    parts = names[::2], names[1::2]
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for shard, part in zip(shards, parts, strict=True):
        _write(folder / shard, *_packed({name: header[name] for name in part}, data))
    weight_map: Any = {n: s for s, part in zip(shards, parts, strict=True) for n in part}
    index: Any = {"metadata": {"total_size": len(data)}, "weight_map": weight_map}
    if random.random() < 0.8:
        file.unlink(missing_ok=True)
    name = random.choice(names)
    match random.randrange(8):
        case 0:
            del weight_map[name]
        case 1:
            weight_map[name] = shards[name in parts[0]]
        case 2:
            weight_map[name] = random.choice(["/etc/passwd", "../x.safetensors", "", 5, None, "x"])
        case 3:
            weight_map["model.layers.99.x.weight"] = shards[0]
        case 4:
            index = changed(index, random)
        case 5:
            (folder / shards[0]).unlink()
        case 6:
            shutil.copy(folder / shards[0], folder / shards[1])
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return f"two files and an index, changed at {name}"


def _weights(folder: Path, random: Random) -> str:
    """Change numbers: some become NaN or infinite."""
    file = folder / TENSORS
    header, data = _read(file)
    changed_data = bytearray(data)
    for _ in range(random.choice([1, 100])):
        at = random.randrange(len(data) // 2) * 2
        changed_data[at : at + 2] = random.choice(
            [b"\xc0\x7f", b"\x80\x7f", b"\x00\x00", b"\x12\x3f"]
        )
    _write(file, header, bytes(changed_data))
    return "weights"


CHANGES: tuple[Callable[[Path, Random], str], ...] = (
    *(_json, _json, _json, _json, _bytes, _kind, _card, _template, _templates, _more_files),
    *(_other_file, _other_file, _encoding, _said_twice, _header, _header, _header, _shards),
    *(_weights, change_weights, change_weights, change_weights, change_weights),
    *(change_tokenizer, change_tokenizer, change_tokenizer, change_tokenizer),
)


def _read(file: Path) -> tuple[dict[str, Any], bytes]:
    """Return a safetensors file's header and data; those of the world where it is none any more."""
    for each in (file, WORLD / "cp" / TENSORS):
        try:
            content = each.read_bytes() if is_readable(each) else b""
            length = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + length])
            if all("data_offsets" in e for n, e in header.items() if n != "__metadata__"):
                return header, content[8 + length :]
        except (ValueError, TypeError, AttributeError):
            continue
    raise AssertionError


def _write(file: Path, header: Any, data: bytes) -> None:
    if file.is_dir():
        return
    if file.is_symlink() or file.is_fifo():
        file.unlink()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


def _packed(header: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return a header and data with nothing between the tensors."""
    new: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    packed = b""
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        new[name] = {**entry, "data_offsets": [len(packed), len(packed) + end - start]}
        packed += data[start:end]
    return new, packed
