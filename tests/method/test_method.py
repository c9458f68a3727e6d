"""The method under mergekit: dtypes, levels of a ratio, options, odd checkpoints, Python API."""

from __future__ import annotations

import copy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import oracle
import pytest
import torch
import yaml
import zoo
from click.testing import CliRunner
from conftest import CHAT, CP, FAMILY, Merge, Recipe, plain_recipe
from mergekit import merge_methods
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.merge_methods import PerInput, TensorGroup, merge_method, merge_state_dicts
from mergekit.options import MergeOptions
from mergekit.scripts import merge_raw_pytorch, multimerge
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PretrainedConfig,
)

from chatvec_method.errors import ChatVecError

GPU = torch.cuda.is_available()
ROLES = ("base", "chat", "cp")
EMBEDDING = "model.embed_tokens.weight"


def assert_exact(out: Path, expected: dict[str, oracle.Array]) -> None:
    """Assert that every element of a half-precision output is the correctly rounded one."""
    tensors = oracle.stored_tensors(out)
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert (oracle.steps_off(tensor, expected[name]) == 0).all(), name


def use(recipe: Recipe, family: Path, **models: str) -> None:
    """Let base, chat or cp be another model of the family."""
    for entry in recipe["models"]:
        role = entry["parameters"]["role"]
        entry["model"] = str(family / models.get(role, role))
    recipe["base_model"] = str(family / models.get("cp", "cp"))


# --- dtypes -----------------------------------------------------------------------------------


def test_wider_out_dtype_keeps_what_half_precision_would_round_away(
    recipe: Recipe, merge: Callable[..., Merge]
) -> None:
    recipe["out_dtype"] = "float32"
    recipe["models"][CHAT]["parameters"]["ratio"] = 0.3

    tensors = oracle.stored_tensors(merge(recipe).out)

    for name, expected in oracle.expected_output(Path("/"), recipe).items():
        assert torch.equal(tensors[name], torch.from_numpy(expected).float()), name


def test_mixed_dtypes_promote_and_out_dtype_rounds_once(
    recipe: Recipe, family: Path, merge: Callable[..., Merge]
) -> None:
    use(recipe, family, chat="chat16", cp="cp32")
    expected = oracle.expected_output(Path("/"), recipe)

    plain = oracle.stored_tensors(merge(recipe).out)
    recipe["out_dtype"] = "bfloat16"
    rounded = merge(recipe, out="rounded").out

    assert {tensor.dtype for tensor in plain.values()} == {torch.float32}
    assert_exact(rounded, expected)


# --- ratio 0 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cp", ["cp", "cp32", "cp_extended"])
def test_ratio_0_gives_cp_back_bit_for_bit(
    cp: str, recipe: Recipe, family: Path, merge: Callable[..., Merge]
) -> None:
    use(recipe, family, cp=cp)
    recipe["models"][CHAT]["parameters"]["ratio"] = 0
    if cp == "cp_extended":
        recipe["tokenizer"] = {"source": recipe["base_model"]}

    output = oracle.stored_tensors(merge(recipe).out)

    original = oracle.stored_tensors(family / cp)
    assert output.keys() == original.keys()
    for name, tensor in output.items():
        assert tensor.dtype == original[name].dtype, name
        assert torch.equal(tensor.view(torch.uint8), original[name].view(torch.uint8)), name


READS_FROM_FILES_CUT_SHORT = """
import os, sys
from pathlib import Path
from mergekit.io import LazyTensorLoader
from mergekit.merge_methods import merge_tensors

folder, ratio = Path(sys.argv[1]), float(sys.argv[2])
roles = ["base", "chat", "cp"]
tensors = [LazyTensorLoader.from_disk(str(folder / role)).get_tensor("weight") for role in roles]
for role in ("base", "chat"):
    os.truncate(folder / role / "model.safetensors", 4096)
parameters = {"role": roles, "ratio": ratio}
assert merge_tensors(tensors, "chat_vector", ids=roles, parameters=parameters).sum() > 0
"""


@pytest.mark.parametrize(("ratio", "exit_code"), [(0.0, 0), (1.0, -signal.SIGBUS)])
def test_ratio_0_never_reads_base_or_chat(ratio: float, exit_code: int, tmp_path: Path) -> None:
    # The tensors are mapped and their files then cut short, so that reading them kills the process,
    # as the second case shows.
    for role in ROLES:
        (tmp_path / role).mkdir()
        save_file({"weight": torch.ones(1000, 1000)}, tmp_path / role / "model.safetensors")

    command = [sys.executable, "-c", READS_FROM_FILES_CUT_SHORT, str(tmp_path), str(ratio)]

    assert subprocess.run(command, check=False).returncode == exit_code


def test_chat_model_at_ratio_0_is_not_looked_at_beside_another(
    recipe: Recipe, family: Path, merge: Callable[..., Merge], tmp_path: Path
) -> None:
    shutil.copytree(family / "chat2", tmp_path / "poisoned")
    for file in (tmp_path / "poisoned").glob("*.safetensors"):
        nans = {name: torch.full_like(t, torch.nan) for name, t in load_file(file).items()}
        save_file(nans, file, {"format": "pt"})
    expected = oracle.expected_output(Path("/"), recipe)
    entry = {"model": str(tmp_path / "poisoned"), "parameters": {"role": "chat", "ratio": 0}}
    recipe["models"].append(entry)
    recipe["out_dtype"] = "bfloat16"

    assert_exact(merge(recipe).out, expected)


# --- the ratio, at mergekit's levels ------------------------------------------------------------


@pytest.mark.parametrize(
    "setting",
    [
        -1.0,
        1.5,
        2,
        [0.0, 0.5, 1.0],
        [1.0, 0.25],
        [{"filter": "self_attn", "value": [1.0, 0.5, 0.0]}, {"value": 0.75}],
        [{"filter": "layers.1.", "value": 0}, {"filter": "norm", "value": 0.5}, {"value": 1}],
    ],
    ids=str,
)
@pytest.mark.parametrize("level", ["chat model", "recipe"])
def test_ratio_is_resolved_for_every_tensor(
    setting: Any, level: str, recipe: Recipe, merge: Callable[..., Merge]
) -> None:
    if level == "recipe":
        del recipe["models"][CHAT]["parameters"]["ratio"]
        recipe["parameters"] = {"ratio": setting}
    else:
        recipe["models"][CHAT]["parameters"]["ratio"] = setting

    assert_exact(merge(recipe).out, oracle.expected_output(Path("/"), recipe))


def test_number_that_yaml_reads_as_text_is_a_number(
    recipe: Recipe, merge: Callable[..., Merge]
) -> None:
    text = yaml.safe_dump(recipe).replace("ratio: 1.0", "ratio: [5e-1, 1e0, 2e0]")
    assert yaml.safe_load(text)["models"][CHAT]["parameters"]["ratio"] == ["5e-1", "1e0", "2e0"]
    recipe["models"][CHAT]["parameters"]["ratio"] = [0.5, 1.0, 2.0]

    assert_exact(merge(text).out, oracle.expected_output(Path("/"), recipe))


def test_each_chat_vector_has_its_own_ratio_or_the_shared_one(
    recipe: Recipe, family: Path, merge: Callable[..., Merge]
) -> None:
    recipe["models"].append({"model": str(family / "chat2"), "parameters": {"role": "chat"}})
    recipe["models"][CHAT]["parameters"]["ratio"] = -0.5
    recipe["parameters"] = {"ratio": 0.25}

    assert_exact(merge(recipe).out, oracle.expected_output(Path("/"), recipe))


@pytest.mark.parametrize("level", ["slice", "module"])
def test_ratio_of_a_slice_or_module_is_shared_within_it(
    level: str, recipe: Recipe, merge: Callable[..., Merge]
) -> None:
    models = recipe.pop("models")
    expected = copy.deepcopy({**recipe, "models": models, "parameters": {"ratio": 0.5}})
    for entry in (models[CHAT], expected["models"][CHAT]):
        del entry["parameters"]["ratio"]
    sources = [{**entry, "layer_range": [0, 3]} for entry in models]
    if level == "slice":
        recipe["slices"] = [{"sources": sources, "parameters": {"ratio": 0.5}}]
    else:
        recipe["modules"] = {"default": {"models": models, "parameters": {"ratio": 0.5}}}

    assert_exact(merge(recipe).out, oracle.expected_output(Path("/"), expected))


def test_slices_may_repeat_layers_and_have_ratios_of_their_own(
    recipe: Recipe, merge: Callable[..., Merge]
) -> None:
    models = recipe.pop("models")
    del models[CHAT]["parameters"]["ratio"]
    recipe["slices"] = [
        {
            "sources": [{**entry, "layer_range": layers} for entry in models],
            "parameters": {"ratio": ratio},
        }
        for layers, ratio in (([0, 2], 1.0), ([1, 3], 0.5))
    ]

    output = oracle.stored_tensors(merge(recipe).out)

    base, chat, cp = (oracle.checkpoint(Path(entry["model"])) for entry in models)
    for place, (layer, ratio) in enumerate([(0, 1.0), (1, 1.0), (1, 0.5), (2, 0.5)]):
        name = "model.layers.{}.mlp.up_proj.weight"
        vector = chat[name.format(layer)] - base[name.format(layer)]
        expected = cp[name.format(layer)] + ratio * vector
        assert (oracle.steps_off(output[name.format(place)], expected) == 0).all()


def test_modules_form_gives_the_same_as_models(recipe: Recipe, merge: Callable[..., Merge]) -> None:
    expected = oracle.expected_output(Path("/"), recipe)
    recipe["modules"] = {"default": {"models": recipe.pop("models")}}

    assert_exact(merge(recipe).out, expected)


@pytest.mark.parametrize("model", ["cp", "chat"])
def test_config_and_tokenizer_come_from_base_model(
    model: str, recipe: Recipe, family: Path, merge: Callable[..., Merge]
) -> None:
    recipe["base_model"] = str(family / model)
    expected = oracle.expected_output(Path("/"), recipe)

    out = merge(recipe).out

    assert_exact(out, expected)
    assert (out / "chat_template.jinja").exists() == (FAMILY[model].template is not None)


# --- mergekit's options and inputs --------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ["--low-cpu-memory"],
        ["--lazy-unpickle"],
        ["--async-write", "--write-threads", "2"],
        ["--out-shard-size", "20K"],
        ["--read-to-gpu", "--device", "cpu"],
        ["--clone-tensors"],
        ["--no-safe-serialization"],
        *([["--cuda"], ["--cuda", "--low-cpu-memory", "--read-to-gpu"], ["--multi-gpu"]] * GPU),
    ],
    ids=" ".join,
)
def test_option_changes_nothing_of_the_result(
    options: list[str], recipe: Recipe, merge: Callable[..., Merge]
) -> None:
    recipe["models"][CHAT]["parameters"]["ratio"] = 0.7
    expected = oracle.expected_output(Path("/"), recipe)

    assert_exact(merge(recipe, *options).out, expected)


@pytest.mark.parametrize("options", [[], ["--lazy-unpickle"]], ids=str)
def test_pickled_shards_are_read_like_safetensors(
    options: list[str], recipe: Recipe, family: Path, merge: Callable[..., Merge], tmp_path: Path
) -> None:
    expected = oracle.expected_output(Path("/"), recipe)
    shutil.copytree(family / "chat", tmp_path / "pickled")
    zoo.pickle_shards(tmp_path / "pickled")
    recipe["models"][CHAT]["model"] = str(tmp_path / "pickled")

    assert_exact(merge(recipe, *options).out, expected)


def test_adapter_on_base_is_a_chat_model(
    recipe: Recipe, family: Path, merge: Callable[..., Merge], tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(family / "base")
    adapter = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    for name, parameter in adapter.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    adapter.save_pretrained(tmp_path / "adapter")
    recipe["models"][CHAT]["model"] = f"{family / 'base'}+{tmp_path / 'adapter'}"

    out = merge(recipe, "--lora-merge-cache", str(tmp_path / "cache")).out

    (applied,) = (tmp_path / "cache").iterdir()
    recipe["models"][CHAT]["model"] = str(applied)
    assert_exact(out, oracle.expected_output(Path("/"), recipe))
    changed, original = oracle.checkpoint(out), oracle.checkpoint(family / "cp")
    assert {
        name.split(".")[-2] for name in original if (changed[name] != original[name]).any()
    } == {
        "q_proj",
        "down_proj",
    }


def test_extended_vocabulary_keeps_the_new_rows_of_cp(
    recipe: Recipe, family: Path, merge: Callable[..., Merge]
) -> None:
    use(recipe, family, cp="cp_extended")
    recipe["tokenizer"] = {"source": recipe["base_model"]}

    out = merge(recipe).out

    assert_exact(out, oracle.expected_output(Path("/"), recipe))
    rows, original = oracle.checkpoint(out), oracle.checkpoint(family / "cp_extended")
    assert (rows[EMBEDDING][250:] == original[EMBEDDING][250:]).all()
    assert (rows[EMBEDDING][:250] != original[EMBEDDING][:250]).any(axis=1).all()


def test_turn_token_that_only_chat_has_can_take_its_row(
    recipe: Recipe, family: Path, merge: Callable[..., Merge], tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(family / "chat")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    model = AutoModelForCausalLM.from_pretrained(family / "chat")
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for saved in (model, tokenizer):
        saved.save_pretrained(tmp_path / "chat")
    chat = recipe["models"][CHAT]["model"] = str(tmp_path / "chat")
    recipe["tokenizer"] = {
        "source": recipe["base_model"],
        "tokens": {"<|im_start|>": {"source": chat, "force": True}},
    }

    out = merge(recipe).out

    row = AutoTokenizer.from_pretrained(out).convert_tokens_to_ids("<|im_start|>")
    merged, original = oracle.stored_tensors(out), oracle.stored_tensors(tmp_path / "chat")
    for name in (EMBEDDING, "lm_head.weight"):
        assert torch.equal(merged[name][row], original[name][len(tokenizer) - 1])


# --- other architectures, and tensors that not all models have ----------------------------------


def trio(folder: Path, configs: dict[str, PretrainedConfig], auto: Any) -> Recipe:
    """Write base, chat and cp models of any architecture, and return a recipe on them."""
    for seed, (role, config) in enumerate(configs.items()):
        torch.manual_seed(seed)
        auto.from_config(config).to(torch.bfloat16).save_pretrained(folder / role)
        zoo.save_tokenizer(["<unk>", "<s>", "</s>", "a"], "</s>", None, folder / role)
    return plain_recipe(folder)


SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "vocab_size": 40,
    "pad_token_id": 0,
}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(
    ("model_type", "extra"),
    [
        ("qwen2", {}),
        ("qwen3", {}),
        ("gemma2", {}),
        ("cohere", {"use_qk_norm": True}),
        ("starcoder2", {}),
        ("granite", {"attention_bias": True}),
        ("mixtral", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_architectures(
    model_type: str,
    extra: dict[str, Any],
    tied: bool,
    merge: Callable[..., Merge],
    tmp_path: Path,
) -> None:
    config = AutoConfig.for_model(model_type, **SIZES, **extra, tie_word_embeddings=tied)
    recipe = trio(tmp_path, dict.fromkeys(ROLES, config), AutoModelForCausalLM)

    assert_exact(merge(recipe).out, oracle.expected_output(Path("/"), recipe))


def test_head_that_only_cp_has_comes_out_as_cps(
    merge: Callable[..., Merge], tmp_path: Path
) -> None:
    # mergekit knows no name under which a tied Cohere model has its head.
    configs = {
        role: AutoConfig.for_model(
            "cohere", **SIZES, use_qk_norm=True, tie_word_embeddings=role != "cp"
        )
        for role in ROLES
    }
    recipe = trio(tmp_path, configs, AutoModelForCausalLM)

    output, cp = oracle.checkpoint(merge(recipe).out), oracle.checkpoint(tmp_path / "cp")

    assert (output["lm_head.weight"] == cp["lm_head.weight"]).all()
    assert (output[EMBEDDING] != cp[EMBEDDING]).any()


def test_head_of_tied_models_is_their_embedding(
    merge: Callable[..., Merge], tmp_path: Path
) -> None:
    # For a Llama, mergekit does know: then the head has a chat vector, that of the embedding.
    configs = {
        role: AutoConfig.for_model("llama", **SIZES, tie_word_embeddings=role != "cp")
        for role in ROLES
    }
    recipe = trio(tmp_path, configs, AutoModelForCausalLM)

    out = oracle.stored_tensors(merge(recipe).out)

    base, chat, cp = (oracle.checkpoint(tmp_path / role) for role in ROLES)
    expected = cp["lm_head.weight"] + chat[EMBEDDING] - base[EMBEDDING]
    assert (oracle.steps_off(out["lm_head.weight"], expected) == 0).all()


@pytest.mark.parametrize("lacking", ["base", "chat", "cp"])
def test_tensor_that_one_model_lacks_is_an_error_naming_both(
    lacking: str, merge: Callable[..., Merge], tmp_path: Path
) -> None:
    configs = {
        role: AutoConfig.for_model("granite", **SIZES, attention_bias=role != lacking)
        for role in ROLES
    }
    recipe = trio(tmp_path, configs, AutoModelForCausalLM)

    message = merge(recipe).message

    assert message.startswith("model.layers.0.self_attn.")
    assert f"model {tmp_path / lacking} lacks this tensor" in message


def test_tensor_that_base_or_chat_lacks_is_cps_at_ratio_0(
    merge: Callable[..., Merge], tmp_path: Path
) -> None:
    configs = {
        role: AutoConfig.for_model("granite", **SIZES, attention_bias=role != "base")
        for role in ROLES
    }
    recipe = trio(tmp_path, configs, AutoModelForCausalLM)
    filters = [{"filter": "bias", "value": 0}, {"value": 1.0}]
    recipe["models"][CHAT]["parameters"]["ratio"] = filters

    output, cp = oracle.checkpoint(merge(recipe).out), oracle.checkpoint(tmp_path / "cp")

    biases = [name for name in cp if name.endswith("bias")]
    assert biases
    assert all((output[name] == cp[name]).all() for name in biases)


BUFFER = "roberta.embeddings.position_ids"


def test_integer_buffers_are_cps_where_they_agree(
    merge: Callable[..., Merge], tmp_path: Path
) -> None:
    config = AutoConfig.for_model("roberta", **SIZES, tie_word_embeddings=False)
    recipe = trio(tmp_path, dict.fromkeys(ROLES, config), AutoModelForMaskedLM)
    for role in ROLES:
        file = tmp_path / role / "model.safetensors"
        positions = {BUFFER: torch.arange(config.max_position_embeddings)[None]}
        save_file({**load_file(file), **positions}, file, {"format": "pt"})

    output = oracle.stored_tensors(merge(recipe).out)

    assert output[BUFFER].dtype == torch.int64
    assert torch.equal(output[BUFFER], positions[BUFFER])


def test_integer_buffers_that_differ_are_an_error(
    merge: Callable[..., Merge], tmp_path: Path
) -> None:
    config = AutoConfig.for_model("roberta", **SIZES, tie_word_embeddings=False)
    recipe = trio(tmp_path, dict.fromkeys(ROLES, config), AutoModelForMaskedLM)
    for i, role in enumerate(ROLES):
        file = tmp_path / role / "model.safetensors"
        save_file({**load_file(file), BUFFER: torch.tensor([i])}, file, {"format": "pt"})

    with pytest.raises(ValueError, match=f"{BUFFER}' differs between inputs"):
        merge(recipe)


# --- in Python ----------------------------------------------------------------------------------


def state(*values: float, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    return {"weight": torch.tensor(values, dtype=dtype)}


def test_state_dicts_can_be_merged_in_memory() -> None:
    models = {"b": state(1, 2), "c": state(1.5, 2.5), "p": state(3, 4)}
    roles = {"b": "base", "c": "chat", "p": "cp"}

    merged = merge_state_dicts(models, "chat_vector", parameters={"role": roles, "ratio": 0.5})
    wide = merge_state_dicts(
        models,
        "chat_vector",
        parameters={"role": roles, "ratio": {"b": None, "c": 0.3, "p": None}},
        out_dtype=torch.float32,
    )

    assert torch.equal(merged["weight"], torch.tensor([3.25, 4.25], dtype=torch.bfloat16))
    assert torch.equal(wide["weight"], torch.tensor([3.15, 4.15]))


def test_mistake_in_memory_is_told_with_the_tensor() -> None:
    models = {"b": state(1), "c": state(2), "p": state(3)}
    roles = {"b": "base", "c": "chat", "p": "chat"}

    with pytest.raises(ChatVecError, match=r"^weight: no model has the role cp\."):
        merge_state_dicts(models, "chat_vector", parameters={"role": roles, "ratio": 1.0})


def test_merges_in_threads_do_not_disturb_each_other(recipe: Recipe, tmp_path: Path) -> None:
    # As with --multi-gpu, where mergekit merges in one thread a device; here even of other recipes.
    def variant(number: int) -> Recipe:
        changed = copy.deepcopy(recipe)
        changed["models"][CHAT]["parameters"]["ratio"] = number / 8
        changed["out_dtype"] = "bfloat16" if number % 2 else "float16"
        return changed

    def run(number: int) -> None:
        options = MergeOptions(write_model_card=False, quiet=True)
        config = MergeConfiguration.model_validate(variant(number))
        run_merge(config, str(tmp_path / str(number)), options)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(run, range(1, 9)))

    for number in range(1, 9):
        expected = oracle.expected_output(Path("/"), variant(number))
        assert_exact(tmp_path / str(number), expected)


def test_method_that_calls_ours_has_its_own_parameters_obeyed(
    recipe: Recipe, merge: Callable[..., Merge]
) -> None:
    @merge_method(name="half_chat_vector")
    def half_chat_vector(
        group: TensorGroup, role: PerInput[str], ratio: PerInput[float] = 1.0
    ) -> torch.Tensor:
        halves = {"role": role, "ratio": {model: value / 2 for model, value in ratio.items()}}
        return merge_methods.get("chat_vector")((group,), parameters=halves)[0]

    merge_methods.register(half_chat_vector)
    recipe["merge_method"] = "half_chat_vector"
    recipe["parameters"] = {"ratio": 1.0}

    out = merge(recipe).out

    recipe["models"][CHAT]["parameters"]["ratio"] = 0.5
    assert_exact(out, oracle.expected_output(Path("/"), recipe))


def test_several_merges_of_one_file_each_have_their_own_settings(
    recipe: Recipe, family: Path, tmp_path: Path
) -> None:
    # mergekit-multi plans and runs the merges one inside the other; the second begins with the
    # first one's output and writes another dtype.
    half = copy.deepcopy({**recipe, "name": "half"})
    half["models"][CHAT]["parameters"]["ratio"] = 0.5
    recipe["base_model"] = recipe["models"][CP]["model"] = "half"
    recipe["models"][CHAT]["parameters"]["ratio"] = 0.3
    recipe["out_dtype"] = "float32"
    (tmp_path / "recipes.yaml").write_text(yaml.safe_dump_all([half, recipe]))

    arguments = [str(tmp_path / "recipes.yaml"), "-I", str(tmp_path / "steps")]
    arguments += ["--out-path", str(tmp_path / "out"), "--no-write-model-card"]
    CliRunner().invoke(multimerge.main, arguments, catch_exceptions=False)

    assert_exact(tmp_path / "steps" / "half", oracle.expected_output(Path("/"), half))
    base, chat = (oracle.checkpoint(family / role) for role in ("base", "chat"))
    cp = oracle.checkpoint(tmp_path / "steps" / "half")
    for name, tensor in oracle.stored_tensors(tmp_path / "out").items():
        expected = torch.from_numpy(cp[name] + 0.3 * (chat[name] - base[name])).float()
        assert torch.equal(tensor, expected), name


def test_raw_checkpoint_files_can_be_merged(family: Path, tmp_path: Path) -> None:
    # mergekit-pytorch knows no layers, so a list would count with its first value everywhere.
    recipe = plain_recipe(tmp_path)
    for entry, role in zip(recipe["models"], ROLES, strict=True):
        entry["model"] += ".safetensors"
        tensors = oracle.stored_tensors(family / role)
        save_file(tensors, entry["model"], {"format": "pt"})
    recipe["base_model"] += ".safetensors"
    recipe["models"][CHAT]["parameters"]["ratio"] = 0.3
    recipe["out_dtype"] = "float32"
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    arguments = [str(tmp_path / "recipe.yaml"), str(tmp_path / "out")]
    CliRunner().invoke(merge_raw_pytorch.main, arguments, catch_exceptions=False)

    base, chat, cp = (oracle.checkpoint(family / role) for role in ROLES)
    for name, tensor in oracle.stored_tensors(tmp_path / "out").items():
        expected = torch.from_numpy(cp[name] + 0.3 * (chat[name] - base[name])).float()
        assert torch.equal(tensor, expected), name
