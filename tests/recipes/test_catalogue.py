"""The shared recipes: they fit the schema and mergekit, and the README lists them as they are."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from catalogue import SECTIONS, opening_comment, schema
from jinja2.sandbox import ImmutableSandboxedEnvironment
from mergekit.config import MergeConfiguration, evaluate_setting
from zoo import RECIPES

FILES = sorted(RECIPES.glob("*.yaml"))
COLUMNS = ["file", "title", "language", "base", "chat", "cp", "ratio", "source", "measured"]
OUTSIDE_THE_LAYERS = ["model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"]

each_recipe = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def load(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def inputs(recipe: dict[str, Any], role: str) -> list[dict[str, Any]]:
    return [entry for entry in recipe["models"] if entry["parameters"]["role"] == role]


def names(recipe: dict[str, Any], role: str) -> list[str]:
    return [entry["model"] for entry in inputs(recipe, role)]


def ratios(recipe: dict[str, Any]) -> list[Any]:
    """The setting of every chat model, its own before the shared one, as mergekit resolves it."""
    shared = recipe.get("parameters", {}).get("ratio")
    return [entry["parameters"].get("ratio", shared) for entry in inputs(recipe, "chat")]


def ratio_in_words(setting: Any) -> str:
    if isinstance(setting, int | float):
        return str(float(setting))
    if not isinstance(setting[0], dict):
        return "by layer"
    by_layer = any(isinstance(entry["value"], list) for entry in setting)
    return "by part and layer" if by_layer else "by part"


def row(file: Path) -> str:
    recipe = load(file)
    about = recipe["chatvec"]
    source = about["source"]
    cells = [
        f"[`{file.name}`]({file.name})",
        about["title"],
        about["language"],
        ", ".join(names(recipe, "base")),
        ", ".join(names(recipe, "chat")),
        ", ".join(names(recipe, "cp")),
        ", ".join(ratio_in_words(setting) for setting in ratios(recipe)),
        f"[link]({source if '://' in source else '../' + source})",
        about["measured"] or "no",
    ]
    return f"| {' | '.join(cells)} |"


def expected_table() -> list[str]:
    head = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    return head + [row(file) for file in FILES]


@each_recipe
def test_recipe_fits_the_schema(file: Path) -> None:
    validator = jsonschema.Draft202012Validator(schema())
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(load(file))]
    assert not errors, f"{file.name} does not fit recipes/recipe.schema.json:\n" + "\n".join(errors)


@each_recipe
def test_mergekit_accepts_the_recipe(file: Path) -> None:
    MergeConfiguration.model_validate(load(file))


@each_recipe
def test_recipe_opens_with_what_a_stranger_needs_to_run_it(file: Path) -> None:
    sections = opening_comment(file)
    assert list(sections) == SECTIONS, f"{file.name}: open with the lines {SECTIONS}, in this order"
    assert all(sections.values()), f"{file.name}: a line of the opening comment is empty"


@each_recipe
def test_run_line_names_the_file_itself(file: Path) -> None:
    run = opening_comment(file)["Run"]
    assert f"mergekit-yaml recipes/{file.name} " in run.replace("\n", " ") + " "


@each_recipe
def test_opening_comment_says_the_same_as_the_block_below_it(file: Path) -> None:
    recipe, comment = load(file), opening_comment(file)
    unnamed = [
        entry["model"] for entry in recipe["models"] if entry["model"] not in comment["Models"]
    ]
    assert not unnamed, f"{file.name}: the Models line leaves out {unnamed}"
    for quantity, key in (("disk", "disk_gb"), ("memory", "memory_gb")):
        figure = f"{recipe['chatvec'][key]} GB of {quantity}"
        assert figure in comment["Needs"], f"{file.name}: the Needs line should say `{figure}`"


@each_recipe
def test_output_follows_the_cp_model_or_a_chat_model(file: Path) -> None:
    recipe = load(file)
    assert recipe["base_model"] in names(recipe, "cp") + names(recipe, "chat")


@each_recipe
def test_gated_models_and_licences_belong_to_the_recipes_models(file: Path) -> None:
    recipe = load(file)
    about = recipe["chatvec"]
    assert set(about["gated"]) <= {entry["model"] for entry in recipe["models"]}
    if isinstance(about["licences"]["chat"], list):
        assert len(about["licences"]["chat"]) == len(inputs(recipe, "chat"))


@each_recipe
def test_inputs_are_not_rounded_before_the_subtraction(file: Path) -> None:
    assert "dtype" not in load(file), f"{file.name}: write `out_dtype:` instead of `dtype:`"


@each_recipe
def test_a_list_over_the_layers_never_decides_a_tensor_outside_them(file: Path) -> None:
    # mergekit gives embeddings, lm_head and the final norm a list's first number, silently.
    config = MergeConfiguration.model_validate(load(file))
    owners = [config, *(config.models or [])]
    for ratio in [o.parameters["ratio"] for o in owners if "ratio" in (o.parameters or {})]:
        for name in OUTSIDE_THE_LAYERS:
            over_depth = {evaluate_setting(name, ratio, t / 8, validate=float) for t in range(9)}
            assert len(over_depth) == 1, f"{file.name}: {name} needs a filter above the list"


@pytest.mark.parametrize("file", ["eeve_chat.yaml", "per_layer.yaml"])
def test_template_written_out_for_solar_renders_solars_prompt(file: str) -> None:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(load(RECIPES / file)["chat_template"])
    system, user = {"role": "system", "content": "짧게."}, {"role": "user", "content": "안녕?"}
    prompt = template.render(messages=[system, user], add_generation_prompt=True)
    assert prompt == "### System:\n짧게.\n\n### User:\n안녕?\n\n### Assistant:\n"


def test_per_layer_example_gives_each_of_the_48_layers_the_ratio_its_comments_say() -> None:
    config = MergeConfiguration.model_validate(load(RECIPES / "per_layer.yaml"))
    ratio = next(m.parameters["ratio"] for m in config.models if "ratio" in m.parameters)

    def at(layer: int, part: str) -> float:
        name = f"model.layers.{layer}.{part}.weight"
        return evaluate_setting(name, ratio, layer / 47, validate=float)

    attention = [at(layer, "self_attn.q_proj") for layer in range(48)]
    assert attention == pytest.approx([1.0] * 24 + [0.9] * 6 + [0.8] * 6 + [0.7] * 6 + [0.6] * 6)
    mlp = [at(layer, "mlp.down_proj") for layer in range(48)]
    assert mlp[0] == mlp[47] == pytest.approx(0.4)
    assert max(mlp) == pytest.approx(mlp[23]) == pytest.approx(mlp[24])
    assert {at(layer, "post_attention_layernorm") for layer in range(48)} == {1.0}


def test_readme_lists_every_recipe_as_it_is() -> None:
    readme = (RECIPES / "README.md").read_text(encoding="utf-8")
    table = [line for line in readme.splitlines() if line.startswith("|")]
    expected = expected_table()
    assert table == expected, "recipes/README.md: put this table there\n\n" + "\n".join(expected)


def test_schema_knows_no_key_that_mergekit_would_ignore() -> None:
    assert set(schema()["properties"]) - {"chatvec"} <= set(MergeConfiguration.model_fields)


def ratio_under_base(recipe: dict[str, Any]) -> None:
    inputs(recipe, "base")[0]["parameters"]["ratio"] = 1.0


def no_ratio_at_all(recipe: dict[str, Any]) -> None:
    del inputs(recipe, "chat")[0]["parameters"]["ratio"]


def ratio_that_is_no_number(recipe: dict[str, Any]) -> None:
    inputs(recipe, "chat")[0]["parameters"]["ratio"] = True


def two_base_models(recipe: dict[str, Any]) -> None:
    recipe["models"].append({"model": "owner/other", "parameters": {"role": "base"}})


def no_chat_model(recipe: dict[str, Any]) -> None:
    chat = inputs(recipe, "chat")[0]
    chat["model"], chat["parameters"] = "owner/other", {"role": "cp"}


def misspelled_parameter(recipe: dict[str, Any]) -> None:
    inputs(recipe, "chat")[0]["parameters"]["ratios"] = 1.0


def misspelled_key(recipe: dict[str, Any]) -> None:
    recipe["tokeniser"] = recipe.pop("tokenizer")


def dtype(recipe: dict[str, Any]) -> None:
    recipe["dtype"] = "bfloat16"


def block_without_licences(recipe: dict[str, Any]) -> None:
    del recipe["chatvec"]["licences"]


def unknown_key_in_the_block(recipe: dict[str, Any]) -> None:
    recipe["chatvec"]["author"] = "somebody"


MISTAKES = [
    ratio_under_base,
    no_ratio_at_all,
    ratio_that_is_no_number,
    two_base_models,
    no_chat_model,
    misspelled_parameter,
    misspelled_key,
    dtype,
    block_without_licences,
    unknown_key_in_the_block,
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_schema_refuses(mistake: Callable[[dict[str, Any]], None]) -> None:
    recipe = copy.deepcopy(load(RECIPES / "eeve_chat.yaml"))
    mistake(recipe)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(recipe, schema())


def test_schema_takes_a_shared_ratio_in_place_of_the_chat_models_own() -> None:
    recipe = load(RECIPES / "eeve_chat.yaml")
    recipe["parameters"] = {"ratio": inputs(recipe, "chat")[0]["parameters"].pop("ratio")}
    jsonschema.validate(recipe, schema())
