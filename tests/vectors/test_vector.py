"""A merge from a chat vector as a file, held against the merge from base and chat."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import formats
import hub
import pytest
import torch
import yaml
import zoo
from conftest import BASE, CHAT, CP, ROOT, Merge, Recipe
from exams import sit_exam
from huggingface_hub import HfApi
from mergekit.common import ModelReference
from mergekit.options import MergeOptions
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

import chatvec_method
from chatvec_method import ChatVecError
from chatvec_method.facts.checkpoint import Checkpoint
from chatvec_method.facts.models import look_up
from chatvec_method.vectors.description import read_description
from chatvec_method.vectors.expand import expand
from chatvec_method.vectors.extract import extract
from chatvec_method.weights.reading import Reader

pytestmark = pytest.mark.filterwarnings("ignore::chatvec_method.ChatVecWarning")


def extracted(base: str, chat: str, out: Path, bits: int = 32) -> Path:
    models = (ModelReference.model_validate(name) for name in (base, chat))
    extract(*models, out, bits, MergeOptions())
    return out


def by_vectors(recipe: Recipe, folder: Path, bits: int = 32) -> Recipe:
    """Return a recipe with a vector in the place of each chat model, and without base."""
    recipe = copy.deepcopy(recipe)
    renamed: dict[str, str] = {}
    for entries in _lists(recipe):
        base = next(e["model"] for e in entries if e["parameters"]["role"] == "base")
        for entry in entries:
            if entry["parameters"]["role"] != "chat":
                continue
            name = entry["model"]
            if name not in renamed:
                out = folder / f"vector-{len(renamed)}-{bits}"
                renamed[name] = str(extracted(base, name, out, bits))
            entry["parameters"]["role"] = "vector"
        entries[:] = [e for e in entries if e["parameters"]["role"] != "base"]
    return _renamed(recipe, renamed)


def _lists(recipe: Any) -> list[list[dict[str, Any]]]:
    """Return every list of models in a recipe: under `models:`, and in slices."""
    if isinstance(recipe, list):
        return [each for part in recipe for each in _lists(part)]
    if not isinstance(recipe, dict):
        return []
    lists = [
        value
        for key, value in recipe.items()
        if key in ("models", "sources") and value and "parameters" in value[0]
    ]
    return lists + [each for value in recipe.values() for each in _lists(value)]


def _renamed(part: Any, names: dict[str, str]) -> Any:
    if isinstance(part, list):
        return [_renamed(each, names) for each in part]
    if isinstance(part, dict):
        return {key: _renamed(value, names) for key, value in part.items()}
    return names.get(part, part) if isinstance(part, str) else part


def merged(recipe: Recipe, out: Path) -> dict[str, Tensor]:
    chatvec_method.merge(recipe, out, quiet=True)
    return weights(out)


def weights(folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.glob("model*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def assert_equal(own: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    assert own.keys() == others.keys()
    for name, tensor in own.items():
        assert tensor.dtype == others[name].dtype
        assert torch.equal(tensor, others[name]), name


# --- Show 1 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", zoo.MODEL_RECIPES, ids=lambda file: file.stem)
def test_merge_from_an_exact_vector_is_that_from_base_and_chat(
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    merged_by_stock: Callable[[Path], Path],
) -> None:
    recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
    folder = merged_by_stock(file)
    monkeypatch.chdir(folder)
    pair = weights(folder / "stock")
    if "swallow_mx" in file.stem:  # whose experts stock mergekit joins
        pair = merged(recipe, tmp_path / "pair")
    assert_equal(merged(by_vectors(recipe, tmp_path), tmp_path / "out"), pair)


@pytest.mark.parametrize("format", formats.FORMATS)
@pytest.mark.parametrize("extended", [False, True], ids=["same", "extended"])
def test_formats_come_with_the_vector(format: str, extended: bool, tmp_path: Path) -> None:
    family = formats.build(tmp_path / "models", format, extended=extended)
    recipe = formats.recipe(family)
    pair = merged(recipe, tmp_path / "pair")
    assert_equal(merged(by_vectors(recipe, tmp_path), tmp_path / "out"), pair)
    for name in ("generation_config.json", "chat_template.jinja"):
        own, other = (tmp_path / folder / name for folder in ("out", "pair"))
        assert own.read_text(encoding="utf-8") == other.read_text(encoding="utf-8")
    configs = [
        json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("out", "pair")
    ]
    assert configs[0] == configs[1]


def test_several_vectors_add_up_and_mix_with_pairs(recipe: Recipe, tmp_path: Path) -> None:
    family = Path(recipe["models"][BASE]["model"]).parent
    recipe["models"][CHAT]["parameters"]["ratio"] = 0.7
    second = {"model": str(family / "chat2"), "parameters": {"role": "chat", "ratio": 0.3}}
    recipe["models"].append(second)
    pair = merged(recipe, tmp_path / "pair")
    assert_equal(merged(by_vectors(recipe, tmp_path), tmp_path / "vectors"), pair)
    one = extracted(str(family / "base"), str(family / "chat2"), tmp_path / "second")
    second |= {"model": str(one), "parameters": {"role": "vector", "ratio": 0.3}}
    assert_equal(merged(recipe, tmp_path / "mixed"), pair)


def test_a_base_beside_a_vector_changes_nothing(
    recipe: Recipe, merge: Callable[..., Merge], tmp_path: Path
) -> None:
    recipe["out_dtype"] = "bfloat16"
    own = by_vectors(recipe, tmp_path)
    out = merged(own, tmp_path / "out")
    own["models"].append(recipe["models"][BASE])
    assert not errors(own)
    assert_equal(merged(own, tmp_path / "beside"), out)
    run = merge(own)
    assert run.exit_code == 0, run.printed
    assert_equal(weights(run.out), out)


@pytest.mark.parametrize(
    "ratio", [[1.0, 0.5, 0.0], [{"filter": "mlp", "value": 0.4}, {"value": 1}]]
)
def test_schedules_count_for_vectors(recipe: Recipe, ratio: Any, tmp_path: Path) -> None:
    recipe["models"][CHAT]["parameters"]["ratio"] = ratio
    pair = merged(recipe, tmp_path / "pair")
    assert_equal(merged(by_vectors(recipe, tmp_path), tmp_path / "out"), pair)


def test_float32_models_have_exact_vectors_too(recipe: Recipe, tmp_path: Path) -> None:
    models = recipe["models"]
    for place in (BASE, CHAT, CP):
        folder = tmp_path / str(place)
        shutil.copytree(models[place]["model"], folder)
        for file in folder.glob("*.safetensors"):
            state = {n: t.float() * 1.0001 for n, t in load_file(file).items()}
            chatvec_save(state, file)
        models[place]["model"] = str(folder)
    recipe["base_model"] = models[CP]["model"]
    pair = merged(recipe, tmp_path / "pair")
    assert_equal(merged(by_vectors(recipe, tmp_path), tmp_path / "out"), pair)


def chatvec_save(state: dict[str, Tensor], file: Path) -> None:
    from safetensors.torch import save_file

    save_file(state, file, {"format": "pt"})


def test_bfloat16_moves_few_elements_and_by_one_step(recipe: Recipe, tmp_path: Path) -> None:
    recipe["out_dtype"] = "bfloat16"
    pair = merged(recipe, tmp_path / "pair")
    own = merged(by_vectors(recipe, tmp_path, bits=16), tmp_path / "out")
    base, chat, cp = (weights(Path(recipe["models"][i]["model"])) for i in (BASE, CHAT, CP))
    off = elements = 0
    for name, tensor in own.items():
        # Where summands cancel, a step is one of theirs, and not one of the little that is left.
        largest = torch.maximum(cp[name].abs(), chat[name].abs()).float()
        step = 2.0 ** (torch.maximum(largest, base[name].abs().float()).log2().floor() - 6)
        moved = (tensor.float() - pair[name].float()).abs()
        assert bool((moved <= step).all()), name
        off += int((moved > 0).sum())
        elements += tensor.numel()
    assert 0 < off <= 0.02 * elements


# --- The stock command ----------------------------------------------------------------------------


def test_stock_mergekit_adds_a_vector_in_full(
    recipe: Recipe, merge: Callable[..., Merge], tmp_path: Path
) -> None:
    recipe["out_dtype"] = "bfloat16"
    pair = merged(recipe, tmp_path / "pair")
    run = merge(by_vectors(recipe, tmp_path))
    assert run.exit_code == 0, run.printed
    assert_equal(weights(run.out), pair)


def test_stock_mergekit_adds_nothing_to_tokens_that_only_cp_has(
    recipe: Recipe, merge: Callable[..., Merge], tmp_path: Path
) -> None:
    family = Path(recipe["models"][BASE]["model"]).parent
    cp = str(family / "cp_extended")
    recipe |= {"base_model": cp, "tokenizer": {"source": cp}, "out_dtype": "bfloat16"}
    recipe["models"][CP]["model"] = cp
    pair = merged(recipe, tmp_path / "pair")
    run = merge(by_vectors(recipe, tmp_path))
    assert run.exit_code == 0, run.printed
    assert_equal(weights(run.out), pair)


def test_stock_mergekit_refuses_what_it_cannot_do(
    merge: Callable[..., Merge], recipe: Recipe, tmp_path: Path
) -> None:
    base, chat = _wide(tmp_path)
    names = dict(zip((BASE, CHAT, CP), (base, chat, str(tmp_path / "wide-cp")), strict=True))
    shutil.copytree(base, names[CP])
    for place, name in names.items():
        recipe["models"][place]["model"] = name
    recipe["base_model"] = names[CP]
    run = merge(by_vectors(recipe, tmp_path, bits=4))
    assert run.exit_code != 0
    assert "compressed chat vector" in run.message
    assert "chatvec vector expand" in run.message
    assert not run.out.exists() or not any(run.out.iterdir())
    family = formats.build(tmp_path / "models", "chatml")
    run = merge(by_vectors(formats.recipe(family), tmp_path / "models"), out="chatml")
    assert run.exit_code != 0
    assert "<|im_start|>" in run.message
    assert "chatvec merge" in run.message


# --- Compressed -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "most"), [(8, 0.02), (4, 0.2), (2, 0.9)])
def test_compressed_vectors_are_near(bits: int, most: float, tmp_path: Path) -> None:
    models = _wide(tmp_path)
    vector = extracted(*models, tmp_path / "vector", bits)
    description = read_description(vector)
    kinds = {kind.kind: kind for kind in description.kinds}
    assert kinds["MLP"].bits == kinds["attention"].bits == (bits,)
    assert kinds["embeddings"].bits == (max(bits, 4),)
    assert kinds["norms"].bits == (32,)
    assert kinds["norms"].relative_error == 0
    assert 0 < kinds["MLP"].relative_error < most
    expand(ModelReference.model_validate(str(vector)), tmp_path / "full", MergeOptions())
    full = weights(tmp_path / "full")
    base, chat = (weights(Path(model)) for model in models)
    for name, tensor in chat.items():
        difference = tensor.float() - base[name].float()
        error = float((full[name] - difference).norm() / difference.norm())
        assert error < most, name
        if "embed" in name or "lm_head" in name:  # the row that moved most is kept
            row = int(difference.norm(dim=1).argmax())
            assert torch.equal(full[name][row], difference[row])


def test_packed_rows_are_matched_by_token_as_whole_ones(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "HIDDEN", 64)  # a group
    kinds = dict.fromkeys(("base", "chat"), zoo.Kind("llama", 2, 32000, torch.bfloat16))
    kinds["cp"] = zoo.Kind("llama", 2, 40960, torch.bfloat16, reordered=True, padding=3)
    zoo.build_family(tmp_path, kinds, ["base"], ["chat"], ["cp"])
    names = {name: str(tmp_path / name) for name in kinds}
    vector = extracted(names["base"], names["chat"], tmp_path / "vector", 4)
    embeddings = "model.embed_tokens.weight"
    assert f"{embeddings}_packed" in weights(vector)
    reference = ModelReference.model_validate(str(vector))
    expand(reference, tmp_path / "full", MergeOptions())
    checkpoint = Checkpoint(look_up(reference))
    source = checkpoint.stored([embeddings])
    assert source is not None
    rows = torch.tensor([7, 2, 2, 249, 0])
    some = Reader({reference: checkpoint}).rows(reference, source, rows)
    assert torch.equal(some, weights(tmp_path / "full")[embeddings][rows])
    recipe["models"] = [
        {"model": str(vector), "parameters": {"role": "vector", "ratio": 0.7}},
        {"model": names["cp"], "parameters": {"role": "cp"}},
    ]
    recipe |= {"base_model": names["cp"], "tokenizer": {"source": names["cp"]}}
    recipe["tokenizer"]["pad_to_multiple_of"] = 64
    own = merged(recipe, tmp_path / "packed")
    recipe["models"][0]["model"] = str(tmp_path / "full")
    assert_equal(own, merged(recipe, tmp_path / "plain"))


def test_joined_experts_are_packed_as_matrices_one_below_the_other(tmp_path: Path) -> None:
    from transformers import GptOssConfig, GptOssForCausalLM

    config = GptOssConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        vocab_size=64,
        num_local_experts=4,
        num_experts_per_tok=2,
        dtype=torch.bfloat16,
    )
    models = _pair(GptOssForCausalLM(config).to(torch.bfloat16), tmp_path)
    vector = extracted(*models, tmp_path / "vector", 4)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    assert weights(vector)[f"{name}_packed"].shape == (4, 64, 256 * 4 // 32)
    kinds = {kind.kind: kind for kind in read_description(vector).kinds}
    assert kinds["MLP"].bits == (4, 16, 32)  # experts; their biases and the router; its bias
    expand(ModelReference.model_validate(str(vector)), tmp_path / "full", MergeOptions())
    full, base, chat = (weights(Path(f)) for f in (tmp_path / "full", *models))
    for expert in range(4):
        difference = chat[name][expert].float() - base[name][expert].float()
        assert float((full[name][expert] - difference).norm() / difference.norm()) < 0.2
    reference = ModelReference.model_validate(str(vector))
    checkpoint = Checkpoint(look_up(reference))
    source = checkpoint.stored([name])
    assert source is not None
    some = Reader({reference: checkpoint}).rows(reference, source, slice(1, 3))  # as merges read it
    assert torch.equal(some, full[name][1:3])


def test_packed_integers_are_those_of_compressed_tensors(tmp_path: Path) -> None:
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32

    models = _wide(tmp_path)
    vector = extracted(*models, tmp_path / "vector", 4)
    stored = weights(vector)
    name = "model.layers.0.mlp.up_proj.weight"
    rows, columns = stored[f"{name}_shape"].tolist()
    integers = unpack_from_int32(stored[f"{name}_packed"], 4, torch.Size((rows, columns)))
    scale = stored[f"{name}_scale"].float().repeat_interleave(64, dim=1)
    expand(ModelReference.model_validate(str(vector)), tmp_path / "full", MergeOptions())
    assert torch.equal(integers.float() * scale, weights(tmp_path / "full")[name])


def _wide(folder: Path) -> tuple[str, str]:
    """Return base and chat with rows long enough for groups."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
    )
    torch.manual_seed(1)
    return _pair(LlamaForCausalLM(config).to(torch.bfloat16), folder)


def _pair(model: PreTrainedModel, folder: Path) -> tuple[str, str]:
    """Write a model as base, and with all weights moved a little as chat."""
    model.save_pretrained(folder / "wide-base")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    model.save_pretrained(folder / "wide-chat")
    return str(folder / "wide-base"), str(folder / "wide-chat")


# --- Show 3: what is wrong ------------------------------------------------------------------------


def errors(recipe: Recipe) -> dict[str, str]:
    report = chatvec_method.check(recipe)
    return {f.code: f"{f.message} {f.fix}" for f in report.findings if f.severity.name == "ERROR"}


def test_vector_of_another_base_is_told(recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "strangers"
    for place, name in ((BASE, "base"), (CHAT, "chat")):
        shutil.copytree(recipe["models"][place]["model"], folder / name)
        for file in (folder / name).glob("*.safetensors"):
            state = {n: t.flip(-1).contiguous() for n, t in load_file(file).items()}
            chatvec_save(state, file)
    vector = extracted(str(folder / "base"), str(folder / "chat"), tmp_path / "vector", 16)
    own = by_vectors(recipe, tmp_path, 16)
    assert "vector-of-another-base" not in errors(own)
    own["models"][0]["model"] = str(vector)
    assert "another base" in errors(own)["vector-of-another-base"]
    with pytest.raises(ChatVecError, match="another base"):
        merged(own, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_swapped_vector_and_cp_are_told(recipe: Recipe, tmp_path: Path) -> None:
    own = by_vectors(recipe, tmp_path, 16)
    vector, cp = own["models"]
    vector["model"], cp["model"] = cp["model"], vector["model"]
    own["base_model"] = cp["model"]
    assert errors(own).keys() & {"vector-under-another-role", "not-a-vector"}


def test_vector_as_a_chat_model_is_told(recipe: Recipe, tmp_path: Path) -> None:
    own = by_vectors(recipe, tmp_path, 16)
    recipe["models"][CHAT]["model"] = own["models"][0]["model"]
    assert "role: vector" in errors(recipe)["vector-under-another-role"]


def test_check_tells_that_stock_mergekit_reads_no_compressed_vector(
    recipe: Recipe, tmp_path: Path
) -> None:
    base, chat = _wide(tmp_path)
    shutil.copytree(base, tmp_path / "wide-cp")
    names = dict(zip((BASE, CHAT, CP), (base, chat, str(tmp_path / "wide-cp")), strict=True))
    for place, name in names.items():
        recipe["models"][place]["model"] = name
    recipe["base_model"] = names[CP]
    findings = chatvec_method.check(by_vectors(recipe, tmp_path, bits=4)).findings
    assert "chatvec vector expand" in next(f.fix for f in findings if f.code == "compressed-vector")


def test_chat_model_as_a_vector_is_told(recipe: Recipe) -> None:
    recipe["models"] = [recipe["models"][CHAT], recipe["models"][CP]]
    recipe["models"][0]["parameters"]["role"] = "vector"
    assert "whole model" in errors(recipe)["not-a-vector"]


def test_models_that_are_no_pair_are_refused(family: Path, tmp_path: Path) -> None:
    with pytest.raises(ChatVecError, match="not a model and its base"):
        extracted(str(family / "base"), _wide(tmp_path)[1], tmp_path / "vector")
    assert not (tmp_path / "vector").exists()


def test_damaged_vector_is_told(recipe: Recipe, tmp_path: Path) -> None:
    own = by_vectors(recipe, tmp_path, 16)
    file = next(Path(own["models"][0]["model"]).glob("model*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ChatVecError, match=file.name):
        merged(own, tmp_path / "out")


def test_vectors_without_any_cp_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    own = by_vectors(recipe, tmp_path, 16)
    own["models"] = own["models"][:1]
    with pytest.raises(ChatVecError, match="has no role"):
        chatvec_method.merge(own, tmp_path / "out", quiet=True)


# --- Show 2 and 4: in use -------------------------------------------------------------------------


def test_the_world_is_as_good_with_four_bits(
    tmp_path: Path, merged_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    recipe = yaml.safe_load((zoo.RECIPES / "world.yaml").read_text(encoding="utf-8"))
    own = by_vectors(recipe, tmp_path, bits=4)
    chatvec_method.merge(own, tmp_path / "out", quiet=True)
    exact, packed = sit_exam(merged_world).marks, sit_exam(tmp_path / "out").marks
    prompts = 192
    interval = 1.96 * (exact.all_exact * (1 - exact.all_exact) / prompts) ** 0.5
    assert abs(packed.all_exact - exact.all_exact) <= interval
    assert packed.in_b > 0.95


def test_a_shared_vector_and_cp_are_all_that_is_downloaded(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = merged(recipe, tmp_path / "pair")
    own = by_vectors(recipe, tmp_path, bits=32)
    vector, cp = own["models"]
    adapter = Path(vector["model"]) / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"what no merge reads")
    monkeypatch.setenv("HF_TOKEN", "hf_me")
    with hub.serving(tmp_path / "shelf") as served:
        hub.ask(served, monkeypatch, tmp_path / "cache")
        for name, entry in (("vector", vector), ("cp", cp)):
            HfApi().create_repo(f"me/{name}")
            HfApi().upload_folder(repo_id=f"me/{name}", folder_path=entry["model"])
            entry["model"] = f"me/{name}"
        own["base_model"] = "me/cp"
        served.requests.clear()
        out = merged(own, tmp_path / "out")
    assert_equal(out, pair)
    weight_files = {name for name in served.requests if ".safetensors" in name}
    assert any("me/vector/" in name for name in weight_files)
    assert all("me/vector/" in name or "me/cp/" in name for name in weight_files)
    assert not any("adapter" in name for name in weight_files)
