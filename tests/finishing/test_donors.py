"""Outputs say what their donor's files say, but for what a merge changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import hub
import pytest
import torch
import yaml
from mergekit.architecture import ModelArchitecture, get_architecture_info
from mergekit.options import MergeOptions
from safetensors.torch import load_file, save_file
from today import oracle, product
from today.miniatures import Trio, build
from today.table import TABLE
from today.tokenizer_families import FAMILIES
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from chatvec_method.errors import ChatVecError
from chatvec_method.facts import planner, structure
from chatvec_method.facts.place import NotedTensor
from chatvec_method.facts.plan import PlannedTensor
from chatvec_method.facts.planner import noted_tensors
from chatvec_method.facts.survey import Survey, survey
from chatvec_method.finishing.finish import finish
from chatvec_method.finishing.hashes_file import HASHES_FILE
from chatvec_method.merging.merge import merge
from chatvec_method.recipe.file import parse_recipe

CHANGED = {"eos_token_id", "bos_token_id", "pad_token_id", "vocab_size", "torch_dtype", "dtype"}
"""What a merge may change in config.json."""
NAMES = [
    *("llama", "llama-extended", "qwen2", "gemma3_text", "phi3", "glm4", "qwen3_5_text"),
    *("qwen2_5_vl", "qwen3_5", "gemma4", "llava", "internvl", "mistral3"),
]
SEEING = ["qwen2_5_vl", "gemma4", "llava"]


def found(recipe: dict[str, Any], **options: Any) -> Survey:
    return survey(parse_recipe(yaml.safe_dump(recipe), "recipe.yaml"), MergeOptions(**options))


def merged(trio: Trio, out: Path, **options: Any) -> Path:
    merge(found(trio.recipe, **options), out)
    return out


def as_json(folder: Path, name: str = "config.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return content


def edit_json(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**content, **changes}, indent=2))


def small_files(folder: Path) -> dict[str, bytes]:
    """Return what `finish` writes: not weights, nor their hashes, which only their writer knows."""
    left_out = (".safetensors", HASHES_FILE)
    files = [f for f in folder.iterdir() if not any(part in f.name for part in left_out)]
    return {file.name: file.read_bytes() for file in files}


def changes(own: dict[str, Any], donors: dict[str, Any]) -> set[str]:
    """Return the keys under which an output says otherwise than its donor, in whichever part."""
    changed = set()
    for key, value in donors.items():
        if isinstance(value, dict) and isinstance(own.get(key), dict):
            changed |= changes(own[key], value)
        elif key not in own or own[key] != value:
            changed.add(key)
    return changed


def language_model(config: dict[str, Any]) -> dict[str, Any]:
    part: dict[str, Any] = config.get("text_config", config)
    return part


@pytest.fixture
def trio(name: str, tmp_path: Path) -> Trio:
    with product.quiet():
        return build(TABLE[name], tmp_path / "models")


# --- Configs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_config_is_the_donor_s_but_for_what_the_merge_changes(
    name: str, trio: Trio, tmp_path: Path
) -> None:
    out, cps = as_json(merged(trio, tmp_path / "out")), as_json(trio.cp)
    assert changes(out, cps) <= CHANGED
    read = (AutoConfig.from_pretrained(folder).to_dict() for folder in (tmp_path / "out", trio.cp))
    ignored = oracle.LEFT_TO_THE_MERGE | oracle.VOCABULARY_SIZES
    assert oracle.differences(*read, ignored) == []


@pytest.mark.parametrize("name", ["qwen3_5", "gemma4", "llava", "qwen2_5_vl"])
def test_what_a_merge_changes_is_said_where_the_language_model_is(
    name: str, trio: Trio, tmp_path: Path
) -> None:
    rows = AutoConfig.from_pretrained(trio.cp).get_text_config().vocab_size
    trio.recipe["tokenizer"] = {"source": str(trio.cp), "pad_to_multiple_of": rows + 1}
    trio.recipe["out_dtype"] = "float16" if name != "llava" else "bfloat16"

    out = merged(trio, tmp_path / "out")

    config, cps = as_json(out), as_json(trio.cp)
    text = language_model(config)
    assert text["vocab_size"] == rows + 1
    family, ids = FAMILIES[trio.entry.tokenizer], oracle.vocabulary(out)
    assert ids[family.end_of_turn] in [text["eos_token_id"], *_listed(text["eos_token_id"])]
    read = AutoConfig.from_pretrained(out)
    assert str(read.dtype).removeprefix("torch.") == trio.recipe["out_dtype"]
    # Nothing is said twice that the donor says once.
    assert ("vocab_size" in config) == ("vocab_size" in cps)


@pytest.mark.parametrize("name", ["llava"])
def test_the_order_in_which_mergekit_infers_parts_changes_nothing(
    name: str, trio: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plans() -> list[PlannedTensor]:
        return list(found(trio.recipe).ready().plan.tensors)

    def turned_round(*arguments: Any) -> ModelArchitecture:
        architecture = get_architecture_info(*arguments)
        modules = dict(reversed(architecture.modules.items()))
        return architecture.model_copy(update={"modules": modules})

    def last_first(*arguments: Any) -> tuple[ModelArchitecture, list[NotedTensor]]:
        architecture, noted = noted_tensors(*arguments)
        return architecture, noted[::-1]

    one = plans()
    # mergekit infers them from sets, whose order is another one in each process.
    monkeypatch.setattr(planner, "get_architecture_info", turned_round)
    assert plans() == one
    monkeypatch.setattr(structure, "noted_tensors", last_first)
    kinds = {tensor.name: tensor.kind for tensor in plans()}
    assert kinds == {tensor.name: tensor.kind for tensor in one}
    assert kinds["language_model.model.embed_tokens.weight"] == "embeddings"


def _listed(value: Any) -> list[int]:
    return value if isinstance(value, list) else []


@pytest.mark.parametrize("name", ["gemma3_text", "qwen3_5_text"])
def test_of_fewer_layers_each_keeps_its_kind(name: str, trio: Trio, tmp_path: Path) -> None:
    sources = [
        {**model, "layer_range": [1, 2], "parameters": model["parameters"]}
        for model in trio.recipe.pop("models")
    ]
    trio.recipe["slices"] = [{"sources": sources}]
    kinds = as_json(trio.cp)["layer_types"]

    out = merged(trio, tmp_path / "out")

    config = AutoConfig.from_pretrained(out)
    assert config.num_hidden_layers == 1
    assert config.layer_types == kinds[1:2]


@pytest.mark.parametrize("name", ["llama"])
def test_code_that_does_not_come_along_is_not_asked_for(
    name: str, trio: Trio, tmp_path: Path
) -> None:
    edit_json(trio.cp / "config.json", auto_map={"AutoConfig": "configuration_own.OwnConfig"})
    (trio.cp / "configuration_own.py").write_text("raise SystemExit('never run')")
    out = merged(trio, tmp_path / "out")
    assert "auto_map" not in as_json(out)
    assert not (out / "configuration_own.py").exists()


@pytest.mark.parametrize("name", ["llama"])
def test_code_that_is_trusted_comes_along(name: str, trio: Trio, tmp_path: Path) -> None:
    references = {"AutoConfig": "configuration_own.OwnConfig"}
    edit_json(trio.cp / "config.json", auto_map=references)
    code = (
        "from transformers import LlamaConfig\n"
        "class OwnConfig(LlamaConfig):\n"
        "    model_type = 'llama'\n"
    )
    (trio.cp / "configuration_own.py").write_text(code)
    out = merged(trio, tmp_path / "out", trust_remote_code=True)
    assert as_json(out)["auto_map"] == references
    assert (out / "configuration_own.py").read_text() == code


@pytest.mark.parametrize("name", ["llama"])
def test_of_a_model_on_the_hub_code_stays_there(
    name: str, trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_json(trio.cp / "config.json", auto_map={"AutoConfig": "configuration_own.OwnConfig"})
    out = merged(trio, tmp_path / "out")
    there = yaml.safe_load(yaml.safe_dump(trio.recipe).replace(f"{trio.folder}/", "o/"))
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "o").symlink_to(trio.folder)
    with hub.serving(tmp_path / "shelf") as served:
        hub.ask(served, monkeypatch, tmp_path / "cache")
        finish(out, found(there))
    assert as_json(out)["auto_map"] == {"AutoConfig": "o/cp--configuration_own.OwnConfig"}


# --- The files of a processor -----------------------------------------------------------------


@pytest.mark.parametrize("name", SEEING)
def test_what_sees_comes_along_and_has_the_output_s_template(
    name: str, trio: Trio, tmp_path: Path
) -> None:
    (trio.cp / "chat_template.json").write_text('{"chat_template": "{{ old }}"}')
    (trio.cp / "trainer_state.json").write_text("{}")
    out = merged(trio, tmp_path / "out")
    for file in ("preprocessor_config.json", "processor_config.json"):
        assert (out / file).read_bytes() == (trio.cp / file).read_bytes()
    template = FAMILIES[trio.entry.tokenizer].template
    assert as_json(out, "chat_template.json") == {"chat_template": template}
    assert (out / "chat_template.jinja").read_text() == template
    assert AutoTokenizer.from_pretrained(out).chat_template == template
    assert not (out / "trainer_state.json").exists()


@pytest.mark.parametrize("name", ["qwen2_5_vl"])
def test_a_link_out_of_the_folder_is_refused(name: str, trio: Trio, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"password": "x"}')
    file = trio.cp / "video_preprocessor_config.json"
    file.unlink(missing_ok=True)
    file.symlink_to(secret)
    with pytest.raises(ChatVecError, match=f"{file.name} is a link to .*secret.json, outside"):
        merged(trio, tmp_path / "out")


@pytest.mark.parametrize("name", ["qwen2_5_vl"])
def test_the_links_of_the_hub_s_own_cache_are(name: str, trio: Trio, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--o--cp" / "snapshots" / "0123"
    blobs = tmp_path / "models--o--cp" / "blobs"
    snapshot.parent.mkdir(parents=True)
    shutil.move(trio.cp, blobs)
    snapshot.mkdir()
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(Path("../../blobs") / blob.name)
    text = yaml.safe_dump(trio.recipe).replace(str(trio.cp), str(snapshot))
    merge(found(yaml.safe_load(text)), tmp_path / "out")
    assert (tmp_path / "out" / "preprocessor_config.json").is_file()


# --- Whoever merged ---------------------------------------------------------------------------


def as_from_a_hub(trio: Trio) -> None:
    """Leave the models as they are: in the files of transformers 4."""


def as_saved_today(trio: Trio) -> None:
    """Save the tokenizers as transformers does now."""
    for folder in (trio.base, trio.chat, trio.cp):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for file in folder.glob("*token*"):
            file.unlink()
        tokenizer.save_pretrained(folder)


@pytest.mark.parametrize("prepare", [as_from_a_hub, as_saved_today])
@pytest.mark.parametrize(
    "name", ["llama-extended", "llama-markers", "qwen2", "gemma2", "cohere2", "qwen3_5", "gemma4"]
)
def test_stock_mergekit_s_output_becomes_the_same(
    name: str, prepare: Callable[[Trio], None], tmp_path: Path
) -> None:
    spelt = 4 if prepare is as_from_a_hub and TABLE[name].spelt == 4 else 5
    with product.quiet():
        trio = build(replace(TABLE[name], spelt=spelt), tmp_path / "models")
        prepare(trio)
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(trio.recipe))
        done = product.stock(recipe, tmp_path / "stock")
    assert done.exit_code == 0, done.stderr
    ours, asked = tmp_path / "ours" / "stock", found(trio.recipe)
    merge(asked, ours)

    finish(tmp_path / "stock", asked)

    assert small_files(tmp_path / "stock") == small_files(ours)
    assert finish(tmp_path / "stock", asked) == ()


@pytest.mark.parametrize("name", ["llama"])
def test_of_quantised_weights_the_output_says_nothing_any_more(
    name: str, trio: Trio, tmp_path: Path
) -> None:
    (file,) = trio.cp.glob("*.safetensors")
    weights: dict[str, torch.Tensor] = {}
    for key, tensor in load_file(file).items():
        if key.endswith("proj.weight"):
            scale = tensor.float().abs().max() / 448
            weights[key] = (tensor.float() / scale).to(torch.float8_e4m3fn)
            weights[f"{key}_scale_inv"] = scale.reshape(1, 1)
        else:
            weights[key] = tensor
    save_file(weights, file, {"format": "pt"})
    block = {"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e4m3"}
    edit_json(
        trio.cp / "config.json", quantization_config={**block, "activation_scheme": "dynamic"}
    )

    out = merged(trio, tmp_path / "out")

    assert "quantization_config" not in as_json(out)
    assert as_json(out)["torch_dtype"] == "bfloat16"
    _, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


@pytest.mark.parametrize("name", ["llama"])
def test_a_folder_with_one_tokenizer_file_is_enough(name: str, trio: Trio, tmp_path: Path) -> None:
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        (trio.cp / file).unlink()
    out = merged(trio, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(out)
    family = FAMILIES[trio.entry.tokenizer]
    assert (tokenizer.bos_token, tokenizer.eos_token) == (family.bos, family.end_of_turn)
    assert tokenizer.chat_template == family.template


@pytest.mark.parametrize("name", ["qwen2"])
def test_of_a_tokenizer_that_is_another_architecture_s_nothing_is_added(
    name: str, tmp_path: Path
) -> None:
    """DeepSeek-R1's distilled Qwen: transformers adds `<|endoftext|>` to its tokenizer."""
    with product.quiet():
        trio = build(replace(TABLE[name], tokenizer="deepseek"), tmp_path / "models")
    for folder in (trio.base, trio.chat, trio.cp):
        settings = as_json(folder, "tokenizer_config.json")
        del settings["pad_token"]
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))

    out = merged(trio, tmp_path / "out")

    assert as_json(out, "tokenizer.json") == as_json(trio.cp, "tokenizer.json")
    assert "<|endoftext|>" not in (out / "tokenizer_config.json").read_text()
    assert as_json(out, "generation_config.json")["pad_token_id"] < len(oracle.vocabulary(out))
