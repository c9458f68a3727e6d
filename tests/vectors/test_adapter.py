"""The PEFT adapter beside a vector, over a cp as engines put it there."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import formats
import pytest
import torch
from click.testing import CliRunner
from mergekit.common import ModelReference
from mergekit.options import MergeOptions
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from chatvec_method import ChatVecError
from chatvec_method.cli import main
from chatvec_method.vectors.description import Description, read_description
from chatvec_method.vectors.expand import expand
from chatvec_method.vectors.extract import extract
from chatvec_method.vectors.low_rank import kept_energy, low_rank

RANK = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with base, chat and cp, of which cp has more tokens, and a vector."""
    folder = tmp_path_factory.mktemp("adapter")
    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,  # so that two matrices have fewer rows than the rank
        vocab_size=64,
    )
    torch.manual_seed(1)
    base = LlamaForCausalLM(config)
    base.save_pretrained(folder / "base")
    for name in ("chat", "cp"):
        model = copy.deepcopy(base)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.01 * torch.randn_like(parameter)
        if name == "cp":
            model.resize_token_embeddings(80, mean_resizing=False)
        model.save_pretrained(folder / name)
    extract_adapter(folder, "vector", RANK)
    return folder


def extract_adapter(folder: Path, name: str, rank: int) -> Description:
    models = (ModelReference.model_validate(str(folder / each)) for each in ("base", "chat"))
    return extract(*models, folder / name, 16, MergeOptions(), rank=rank)


def loaded(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model


def products(vector: Path) -> dict[str, Tensor]:
    """Return what an adapter adds to each weight, by the weight's name."""
    stored = load_file(vector / "adapter" / "adapter_model.safetensors")
    stems = {name.rpartition(".lora_")[0] for name in stored}
    return {
        f"{stem.removeprefix('base_model.model.')}.weight": stored[f"{stem}.lora_B.weight"].float()
        @ stored[f"{stem}.lora_A.weight"].float()
        for stem in stems
    }


@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.3])
def test_peft_adds_the_low_rank_part_at_any_scale(folder: Path, ratio: float) -> None:
    added = products(folder / "vector")
    merged = loaded(folder / "cp")
    tokens = torch.arange(12, 36)[None]
    plain = merged(tokens).logits
    with torch.no_grad():
        for name, parameter in merged.named_parameters():
            if name in added:
                parameter += ratio * added[name]
    over = PeftModel.from_pretrained(loaded(folder / "cp"), folder / "vector", subfolder="adapter")
    layers = [module for module in over.modules() if isinstance(module, LoraLayer)]
    assert len(layers) == len(added) == 2 * 7
    for layer in layers:
        layer.set_scale("default", ratio)
    wanted = merged(tokens).logits
    assert not torch.allclose(wanted, plain, atol=0.05)
    torch.testing.assert_close(over(tokens).logits, wanted, atol=2e-5, rtol=2e-5)


def test_of_the_whole_rank_an_adapter_is_the_difference(folder: Path) -> None:
    facts = extract_adapter(folder, "whole", 1000).adapter
    assert facts is not None
    assert facts.rank == 128  # as no matrix has more
    assert min(facts.kept.values()) > 0.9999
    base, chat = (loaded(folder / name).state_dict() for name in ("base", "chat"))
    for name, product in products(folder / "whole").items():
        difference = chat[name] - base[name]
        assert float((product - difference).norm() / difference.norm()) < 0.01


def test_it_is_told_what_an_adapter_keeps(folder: Path) -> None:
    description = read_description(folder / "vector")
    facts = description.adapter
    assert facts is not None
    base, chat = (loaded(folder / name).state_dict() for name in ("base", "chat"))
    held = whole = 0.0
    for name, product in products(folder / "vector").items():
        difference = chat[name] - base[name]
        rest = float((product - difference).square().sum() / difference.square().sum())
        assert facts.kept[name.removesuffix(".weight")] == pytest.approx(1 - rest, abs=1e-4)
        held += (1 - rest) * float(difference.square().sum())
    for name, tensor in chat.items():
        whole += float((tensor - base[name]).square().sum())
    assert facts.share == pytest.approx(held / whole, rel=1e-3)
    assert facts.left_out == {"embeddings": 1, "head": 1, "norms": 5}
    assert sum(kind.share for kind in description.kinds) == pytest.approx(1)
    card = (folder / "vector" / "README.md").read_text(encoding="utf-8")
    assert f"of rank {RANK}" in card
    assert f"{facts.share:.1%}" in card
    shown = CliRunner().invoke(main, ["vector", "show", str(folder / "vector")]).stdout
    up = facts.kept["model.layers.1.mlp.up_proj"]
    assert "up_proj" in shown
    assert f"{up:.1%}" in shown
    assert f"{up:.1%}" in card
    assert "nothing of: norms (5), embeddings (1), head (1)" in " ".join(shown.split())


def test_sizes_and_energy_are_told_layer_by_layer(folder: Path) -> None:
    description = read_description(folder / "vector")
    base, chat = (loaded(folder / name).state_dict() for name in ("base", "chat"))
    energy = {name: float((chat[name] - base[name]).square().sum()) for name in chat}
    whole = sum(energy.values())

    assert [each.layer for each in description.layers] == [
        "model.layers.0",
        "model.layers.1",
        None,
    ]
    for each in description.layers[:2]:
        own = sum(e for name, e in energy.items() if name.startswith(f"{each.layer}."))
        assert each.share == pytest.approx(own / whole, rel=1e-3)
    assert sum(each.share for each in description.layers) == pytest.approx(1)
    assert sum(each.bytes for each in description.layers) == description.bytes
    shown = CliRunner().invoke(main, ["vector", "show", str(folder / "vector")]).stdout
    assert f"{description.layers[1].share:.2%}" in shown
    assert "outside" in shown


def test_engines_find_one_rank_and_one_alpha_and_nothing_but_products(folder: Path) -> None:
    adapter = folder / "vector" / "adapter"
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["r"] == config["lora_alpha"] == RANK
    assert config["modules_to_save"] is None  # which vLLM refuses
    stored = load_file(adapter / "adapter_model.safetensors")
    for name, tensor in stored.items():  # llama.cpp divides alpha by each tensor's own rank
        assert name.endswith((".lora_A.weight", ".lora_B.weight"))
        assert tensor.shape[0 if "lora_A" in name else 1] == RANK


def test_a_vector_with_an_adapter_is_a_vector_as_before(folder: Path) -> None:
    reference = ModelReference.model_validate(str(folder / "vector"))
    expand(reference, folder / "expanded", MergeOptions())
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        own, other = (folder / each / name for each in ("vector", "expanded"))
        assert own.read_bytes() == other.read_bytes()


def test_tokens_that_chat_added_are_said_to_be_missing(tmp_path: Path) -> None:
    family = formats.build(tmp_path, "chatml")
    names = {e["parameters"]["role"]: e["model"] for e in formats.recipe(family)["models"]}
    command = ["vector", "extract", str(tmp_path / "out"), "--rank", "4"]
    run = CliRunner().invoke(main, [*command, "--base", names["base"], "--chat", names["chat"]])
    assert run.exit_code == 0, run.output
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "It knows nothing of the tokens that chat added: `" in card


def test_models_that_transformers_cannot_build_have_no_adapter(
    folder: Path, tmp_path: Path
) -> None:
    for name in ("base", "chat"):
        shutil.copytree(folder / name, tmp_path / name)
        config = tmp_path / name / "config.json"
        config.write_text(config.read_text(encoding="utf-8").replace('"silu"', '"sulu"'))
    with pytest.raises(ChatVecError, match="Leave `--rank` out"):
        extract_adapter(tmp_path, "vector", 4)
    assert not (tmp_path / "vector").exists()


@pytest.mark.parametrize("shape", [(1300, 700), (700, 1300)])
def test_a_sketch_keeps_nearly_what_the_first_directions_hold(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.arange(1, 701).float() ** -0.7  # that fall off slowly, as those of vectors do
    left, right = (torch.linalg.qr(torch.randn(n, 700, generator=generator)).Q for n in shape)
    matrix = left * lengths @ right.T
    state = torch.random.get_rng_state()
    up, down = low_rank(matrix, 40)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (up.shape, down.shape) == ((shape[0], 40), (40, shape[1]))
    best = float(lengths[:40].square().sum() / lengths.square().sum())
    assert best - 0.002 < kept_energy(matrix, up, down) <= best + 1e-5
    assert all(map(torch.equal, (up, down), low_rank(matrix, 40)))
