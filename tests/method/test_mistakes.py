"""Wrong recipes and models: one line that names the culprit and the fix, and nothing written."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from conftest import BASE, CHAT, CP, Merge, Recipe, plain_recipe
from mergekit.scripts import merge_raw_pytorch
from safetensors.torch import load_file, save_file


@dataclass(frozen=True)
class Mistake:
    """A change to a right recipe, and what the message about it must name and advise."""

    name: str
    make: Callable[[Recipe], None]
    says: tuple[str, ...]


def under(model: int, **parameters: Any) -> Callable[[Recipe], None]:
    """Replace the parameters of one model."""

    def make(recipe: Recipe) -> None:
        recipe["models"][model]["parameters"] = parameters

    return make


def ratio(setting: Any) -> Callable[[Recipe], None]:
    return under(CHAT, role="chat", ratio=setting)


def top(**keys: Any) -> Callable[[Recipe], None]:
    """Set top-level keys, None to remove one."""

    def make(recipe: Recipe) -> None:
        recipe.update(keys)
        for key in [key for key, value in keys.items() if value is None]:
            del recipe[key]

    return make


def without(model: int) -> Callable[[Recipe], None]:
    def make(recipe: Recipe) -> None:
        del recipe["models"][model]

    return make


def chat_listed_twice(recipe: Recipe) -> None:
    recipe["models"].append(recipe["models"][CHAT])


def base_as_base_model(recipe: Recipe) -> None:
    recipe["base_model"] = recipe["models"][BASE]["model"]


def other_spelling_of_base_model(recipe: Recipe) -> None:
    recipe["base_model"] = recipe["base_model"] + "/."


def base_model_not_listed(recipe: Recipe) -> None:
    recipe["base_model"] = recipe["base_model"].removesuffix("cp") + "chat2"


def extended_cp_without_tokenizer(recipe: Recipe) -> None:
    recipe["base_model"] = recipe["models"][CP]["model"] = recipe["base_model"] + "_extended"


def roles_beside_models(recipe: Recipe) -> None:
    for entry in recipe["models"]:
        entry["role"] = entry.pop("parameters")["role"]


def in_slices(change: Callable[[list[Recipe]], None]) -> Callable[[Recipe], None]:
    """Turn the recipe into two slices of the same models, and change the second one's sources."""

    def make(recipe: Recipe) -> None:
        models = recipe.pop("models")
        recipe["slices"] = [
            {"sources": copy.deepcopy([{**entry, "layer_range": layers} for entry in models])}
            for layers in ([0, 2], [2, 3])
        ]
        change(recipe["slices"][1]["sources"])

    return make


def exchange_roles(sources: list[Recipe]) -> None:
    base, chat = sources[BASE], sources[CHAT]
    base["parameters"], chat["parameters"] = chat["parameters"], base["parameters"]


def other_layers(sources: list[Recipe]) -> None:
    sources[BASE]["layer_range"] = [1, 2]


def second_chat_model(sources: list[Recipe]) -> None:
    sources.append({**sources[CHAT], "model": sources[CHAT]["model"] + "2"})


def role_removed(sources: list[Recipe]) -> None:
    sources[CP]["parameters"] = {}


def base_model_in_slices_only(recipe: Recipe) -> None:
    in_slices(lambda sources: None)(recipe)
    for each in recipe["slices"]:
        each["base_model"] = recipe["base_model"]
    del recipe["base_model"]


def base_as_base_model_beside_slices(recipe: Recipe) -> None:
    in_slices(lambda sources: None)(recipe)
    for each in recipe["slices"]:
        each["base_model"] = recipe["base_model"]
    recipe["base_model"] = recipe["slices"][0]["sources"][BASE]["model"]


def parameters_of_slice(**parameters: Any) -> Callable[[Recipe], None]:
    def make(recipe: Recipe) -> None:
        in_slices(lambda sources: None)(recipe)
        recipe["slices"][1]["parameters"] = parameters

    return make


def parameters_of_module(**parameters: Any) -> Callable[[Recipe], None]:
    def make(recipe: Recipe) -> None:
        models = recipe.pop("models")
        recipe["modules"] = {"default": {"models": models, "parameters": parameters}}

    return make


def extended_cp_with_tokenizer_of(model: int) -> Callable[[Recipe], None]:
    def make(recipe: Recipe) -> None:
        extended_cp_without_tokenizer(recipe)
        recipe["tokenizer"] = {"source": recipe["models"][model]["model"]}

    return make


def extended_cp_with_tokenizer_of_base_model(recipe: Recipe) -> None:
    extended_cp_without_tokenizer(recipe)
    recipe["base_model"] = recipe["models"][CHAT]["model"]
    recipe["tokenizer_source"] = "base"


ONE = "`ratio: 1.0`"
MISTAKES = [
    Mistake("role missing", under(CHAT, ratio=1.0), ("family0/chat has no role", "role:")),
    Mistake("role of cp missing", under(CP), ("/cp has no role", "`parameters: {role: cp}`")),
    Mistake(
        "role misspelled", under(CHAT, role="caht", ratio=1), ("/chat", "'caht'", "role: chat")
    ),
    Mistake("role in capitals", under(CP, role="CP"), ("/cp", "'CP'", "{role: cp}")),
    Mistake("role in mergekit's words", under(CP, role="target"), ("/cp", "'target'", "{role: ")),
    Mistake("role as a list", under(CP, role=["cp", "base"]), ("/cp", "one word", "{role: cp}")),
    Mistake(
        "role by filter",
        under(CP, role=[{"filter": "mlp", "value": "cp"}, {"value": "base"}]),
        ("/cp", "one word", "{role: cp}"),
    ),
    Mistake("role as a number", under(CP, role=1), ("/cp", "one word", "{role: cp}")),
    Mistake("two base models", under(CP, role="base"), ("/base, ", "/cp", "role base", "role: cp")),
    Mistake("two cp models", under(BASE, role="cp"), ("/base, ", "/cp", "role cp", "{role: base}")),
    Mistake("no chat model", without(CHAT), ("no model has the role chat", "{role: chat}")),
    Mistake("no base model", without(BASE), ("no model has the role base", "{role: base}")),
    Mistake(
        "role for all models", top(parameters={"role": "cp"}), ("top-level", "role", "under that")
    ),
    Mistake("ratio missing", under(CHAT, role="chat"), ("/chat", "no ratio", "ratio: 1.0}")),
    Mistake(
        "ratio misspelled", under(CHAT, role="chat", ratios=1), ("/chat", "`ratios`", "`ratio:`")
    ),
    Mistake(
        "another method's parameter",
        top(parameters={"weight": 0.5}),
        ("top-level", "`weight`", "Remove it"),
    ),
    Mistake("ratio under cp", under(CP, role="cp", ratio=1.0), ("/cp", "role here is cp", "chat")),
    Mistake("ratio under base", under(BASE, role="base", ratio=1), ("/base", "role here is base")),
    Mistake("ratio NaN", ratio(float("nan")), ("/chat", "nan", ONE)),
    Mistake("ratio infinite", ratio(float("inf")), ("/chat", "inf", ONE)),
    Mistake("ratio true", ratio(True), ("/chat", "True", ONE)),
    Mistake("ratio in words", ratio("half"), ("/chat", "'half'", ONE)),
    Mistake("NaN in a list", ratio([1.0, float("nan"), 1.0]), ("/chat", "nan", ONE)),
    Mistake("true between layers", ratio([1.0, True, 0.5, 0.5]), ("/chat", "True", ONE)),
    Mistake("words in a filter", ratio([{"value": "no"}]), ("/chat", "'no'", ONE)),
    Mistake("empty list", ratio([]), ("/chat", "empty", ONE)),
    Mistake(
        "a tensor that no filter covers",
        ratio([{"filter": "self_attn", "value": 1.0}, {"filter": "mlp", "value": 0.5}]),
        ("model.embed_tokens.weight", "/chat", "{value: 1.0}]`"),
    ),
    Mistake("shared ratio NaN", top(parameters={"ratio": float("nan")}), ("top-level", "nan", ONE)),
    Mistake("no base_model", top(base_model=None), ("no base_model", "/cp`", "`base_model: ")),
    Mistake("base_model is base", base_as_base_model, ("/base has the role base", "/cp`")),
    Mistake("base_model in another spelling", other_spelling_of_base_model, ("/cp/.", "/cp`")),
    Mistake("base_model not listed", base_model_not_listed, ("/chat2", "spell", "/cp`")),
    Mistake("a model listed twice", chat_listed_twice, ("/chat is listed twice", "once")),
    Mistake("vocabularies differ", extended_cp_without_tokenizer, ("320", "`tokenizer: {source:")),
    Mistake("out_dtype by nickname", top(out_dtype="bf16"), ("`out_dtype: bf16`", "bfloat16")),
    Mistake("dtype of no weights", top(dtype="int64"), ("`dtype: int64`", "bfloat16")),
    Mistake("number too large", ratio(10**400), ("/chat", "inf", ONE)),
    Mistake(
        "filter after the one for all",
        ratio([{"value": 1.0}, {"filter": "mlp", "value": 0}]),
        ("/chat", "never count", "last"),
    ),
    Mistake(
        "filter that matches nothing",
        ratio([{"filter": "self_atn", "value": 0}, {"value": 1.0}]),
        ("`self_atn`", "no tensor", "`filter: self_attn`"),
    ),
    Mistake(
        "pattern for a filter",
        top(parameters={"ratio": [{"filter": "layers.[0-9].", "value": 0}, {"value": 1.0}]}),
        ("`layers.[0-9].`", "not patterns"),
    ),
    Mistake("slice without a role", in_slices(role_removed), ("/cp has no role", "{role: cp}")),
    Mistake("role beside the model", roles_beside_models, ("/base has no role", "{role: base}")),
    Mistake(
        "roles that change with the slice", in_slices(exchange_roles), ("slice 1", "same models")
    ),
    Mistake("chat model of one slice", in_slices(second_chat_model), ("slice 1", "ratio of 0")),
    Mistake(
        "vector between different layers",
        in_slices(other_layers),
        ("/chat", "[2, 3]", "/base [1, 2]", "`layer_range: [2, 3]`"),
    ),
    Mistake("base_model in slices only", base_model_in_slices_only, ("no base_model", "/cp`")),
    Mistake(
        "base as base_model beside slices",
        base_as_base_model_beside_slices,
        ("/base has the role",),
    ),
    Mistake("ratio of a slice NaN", parameters_of_slice(ratio=float("nan")), ("slice 1", "nan")),
    Mistake("role of a slice", parameters_of_slice(role="cp"), ("slice 1", "one model")),
    Mistake("ratio of a module true", parameters_of_module(ratio=True), ("default", "True")),
    Mistake("unknown in a module", parameters_of_module(density=1), ("default", "`density`")),
    Mistake(
        "tokenizer of base for an extended cp",
        extended_cp_with_tokenizer_of(BASE),
        ("/base", "lose tokens", "`tokenizer: {source: ", "/cp_extended}`"),
    ),
    Mistake(
        "tokenizer of base_model for an extended cp",
        extended_cp_with_tokenizer_of_base_model,
        ("/chat", "lose tokens", "/cp_extended}`"),
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_wrong_recipe_is_refused_in_one_line_before_anything_is_written(
    mistake: Mistake, recipe: Recipe, merge: Callable[..., Merge]
) -> None:
    mistake.make(recipe)

    result = merge(recipe)

    assert result.exit_code == 1
    for part in mistake.says:
        assert part in result.message
    assert not result.out.exists()


def test_truncating_the_vocabulary_of_cp_is_refused(
    recipe: Recipe, merge: Callable[..., Merge]
) -> None:
    extended_cp_without_tokenizer(recipe)

    result = merge(recipe, "--unsafe-truncate-embeddings")

    assert "`tokenizer: {source: " in result.message
    assert not result.out.exists()


def test_quantised_model_is_refused_by_its_config(
    recipe: Recipe, merge: Callable[..., Merge], tmp_path: Path
) -> None:
    shutil.copytree(recipe["models"][CHAT]["model"], tmp_path / "quantised")
    config = json.loads((tmp_path / "quantised" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "quantised" / "config.json").write_text(json.dumps(config))
    recipe["models"][CHAT]["model"] = str(tmp_path / "quantised")

    result = merge(recipe)

    assert f"model {tmp_path / 'quantised'} is quantised" in result.message
    assert not result.out.exists()


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (ratio([0.0, 1.0]), ("knows no layers", "filters")),
        (ratio([{"filter": "mlp", "value": [0.0, 1.0]}, {"value": 1.0}]), ("knows no layers",)),
        (under(CP, role="cp", ratio=1.0), ("cp.safetensors", "role here is cp")),
        (under(CHAT, role="chat", ratios=1), ("chat.safetensors", "`ratio:`")),
        (top(parameters={"weight": 1}), ("`weight`",)),
        (top(out_dtype="bf16"), ("bfloat16",)),
        (without(CP), ("no model has the role cp",)),
    ],
)
def test_wrong_recipe_for_raw_files_is_refused_in_one_line(
    mistake: Callable[[Recipe], None], says: tuple[str, ...], tmp_path: Path
) -> None:
    recipe = plain_recipe(tmp_path)
    for entry in recipe["models"]:
        save_file({"weight": torch.ones(2)}, entry["model"] + ".safetensors", {"format": "pt"})
        entry["model"] += ".safetensors"
    del recipe["base_model"]
    top(dtype="float32")(recipe)
    mistake(recipe)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    arguments = [str(tmp_path / "recipe.yaml"), str(tmp_path / "out")]
    result = CliRunner().invoke(merge_raw_pytorch.main, arguments)

    assert result.exit_code == 1
    message = Merge(tmp_path / "out", result.exit_code, result.output).message
    assert all(part in message for part in says)
    assert not (tmp_path / "out").exists()


def test_dtype_that_rounds_inputs_is_warned_of(
    recipe: Recipe, family: Path, merge: Callable[..., Merge], caplog: pytest.LogCaptureFixture
) -> None:
    recipe["models"][CHAT]["model"] = str(family / "chat16")
    recipe["dtype"] = "bfloat16"

    merge(recipe)

    (warning,) = [r.getMessage() for r in caplog.records if r.name == "chatvec_method"]
    assert f"{family / 'chat16'} float16" in warning
    assert str(family / "cp") not in warning
    assert "`out_dtype: bfloat16`" in warning


@pytest.mark.parametrize(("out_dtype", "warnings"), [(None, 1), ("bfloat16", 0)])
def test_different_dtypes_without_out_dtype_are_warned_of(
    out_dtype: str | None,
    warnings: int,
    recipe: Recipe,
    family: Path,
    merge: Callable[..., Merge],
    caplog: pytest.LogCaptureFixture,
) -> None:
    recipe["models"][CHAT]["model"] = str(family / "chat16")
    if out_dtype:
        recipe["out_dtype"] = out_dtype

    merge(recipe)

    found = [r.getMessage() for r in caplog.records if r.name == "chatvec_method"]
    assert len(found) == warnings
    assert all("`out_dtype: bfloat16`" in warning for warning in found)


def damaged(model: Path, folder: Path, name: str, damage: Callable[..., Any]) -> str:
    """Return a copy of a model in which one tensor is changed."""
    shutil.copytree(model, folder)
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        if name in tensors:
            tensors[name] = damage(tensors[name])
            save_file(tensors, file, {"format": "pt"})
    return str(folder)


def poisoned(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def damage(tensor: torch.Tensor) -> torch.Tensor:
        tensor.view(-1)[7] = value
        return tensor

    return damage


TENSOR = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("model", [BASE, CHAT, CP])
def test_not_finite_input_is_named(
    model: int, value: float, recipe: Recipe, merge: Callable[..., Merge], tmp_path: Path
) -> None:
    entry = recipe["models"][model]
    entry["model"] = damaged(Path(entry["model"]), tmp_path / "damaged", TENSOR, poisoned(value))
    if model == CP:
        recipe["base_model"] = entry["model"]

    result = merge(recipe)

    assert result.exit_code == 1
    assert result.message.startswith(f"{TENSOR}: the tensor of model {entry['model']} has NaN or")


def test_not_finite_cp_is_named_at_ratio_0(
    recipe: Recipe, merge: Callable[..., Merge], tmp_path: Path
) -> None:
    ratio(0)(recipe)
    cp = damaged(Path(recipe["base_model"]), tmp_path / "damaged", TENSOR, poisoned(float("nan")))
    recipe["base_model"] = recipe["models"][CP]["model"] = cp

    assert cp in merge(recipe).message


@pytest.mark.parametrize("setting", [4.0, 0.0])
def test_overflow_of_the_output_is_an_error(
    setting: float, recipe: Recipe, merge: Callable[..., Merge], tmp_path: Path
) -> None:
    large = damaged(Path(recipe["base_model"]), tmp_path / "large", TENSOR, poisoned(70_000.0))
    recipe["base_model"] = recipe["models"][CP]["model"] = large
    recipe["out_dtype"] = "float16"
    ratio(setting)(recipe)

    result = merge(recipe)

    assert result.exit_code == 1
    assert result.message.startswith(f"{TENSOR}: the merge overflows float16")
    assert "`out_dtype: float32`" in result.message


def test_quantised_checkpoint_is_refused_by_name(
    recipe: Recipe, merge: Callable[..., Merge], tmp_path: Path
) -> None:
    for i, entry in enumerate(recipe["models"]):
        entry["model"] = damaged(
            Path(entry["model"]), tmp_path / str(i), TENSOR, lambda t: t.to(torch.float8_e4m3fn)
        )
    recipe["base_model"] = recipe["models"][CP]["model"]

    message = merge(recipe).message

    assert message.startswith(f"{TENSOR}: model {recipe['base_model']} has it in float8_e4m3fn")
    assert "unquantised" in message
