"""`chatvec schedule`: what it writes is what mergekit uses at every layer, and what it shows."""

from __future__ import annotations

import copy
import json
import math
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import oracle
import pytest
import torch
import yaml
import zoo
from checking import as_text, checked, codes
from click.testing import CliRunner, Result
from conftest import BASE, CHAT, CP, ROOT, Merge, Recipe, plain_recipe
from transformers import AutoConfig

from chatvec_method.checks.report import Severity
from chatvec_method.cli import main
from chatvec_method.facts.plan import MergePlan, PlannedTensor

Merging = Callable[..., Merge]
Formula = Callable[[float], float]
LAYERS = [1, 2, 22, 80]
CLOSE = 1e-6
RATIO_CODES = ["list-without-depth", "filter-matches-nothing", "filter-hidden"]
RATIO_CODES += ["filter-matches-more", "list-interpolated", "ratio-never-counts"]


def formulas(layers: int) -> list[tuple[str, Formula]]:
    """Return every shape, and the ratio at a depth as its documentation has it, written anew."""
    given = [round(random.Random(i).uniform(-1, 2), 4) for i in range(layers)]
    middle = layers // 2

    def layer(x: float) -> int:
        return round(x * (layers - 1))

    return [
        ("constant:0.7", lambda x: 0.7),
        ("linear:1:0.3", lambda x: 1 - 0.7 * x),
        ("cosine:0.2:1.1", lambda x: 0.2 + 0.9 * (1 - math.cos(math.pi * x)) / 2),
        ("gaussian:0.4:0.15:0.3:1", lambda x: 0.3 + 0.7 * math.exp(-((x - 0.4) ** 2) / 0.045)),
        ("trapezoid:0.2:0.6:0.1:0.9", lambda x: 0.1 + 0.8 * min(x / 0.2, 1, (1 - x) / 0.4)),
        (
            "middle:0.2:0.1:0.8",
            lambda x: 0.8 * min(max((min(x, 1 - x) - 0.2) / 0.1, 0), 1),
        ),
        (
            f"step:0-{middle}:0.3" + (f",{middle + 1}-{layers - 1}:1" if layers > 2 else ""),
            lambda x: 0.3 if layer(x) <= middle else 1.0,
        ),
        ("points:0:1,0.5:0.2,1:1", lambda x: 0.2 + 0.8 * abs(2 * x - 1)),
        (f"per-layer:{','.join(map(str, given))}", lambda x: given[layer(x)]),
    ]


def expected_ratio(
    tensor: PlannedTensor, layers: int, kinds: dict[str, Formula], rest: Formula
) -> float:
    """Return what a schedule says of a tensor, if nothing is said of what has no depth."""
    first, last = (0.0, 1.0) if layers > 1 else (1.0, 1.0)
    if tensor.layer is None:
        return rest(first if tensor.kind == "embeddings" else last)
    return kinds.get(tensor.kind, rest)(tensor.layer / (layers - 1) if layers > 1 else 1.0)


def chatvec(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["schedule", *map(str, arguments)])


def written(*arguments: str | Path) -> str:
    """Return what a command prints, which must succeed without a word of anything else."""
    result = chatvec(*arguments)
    assert result.exception is None, result.output
    assert result.stderr == ""
    return result.stdout


def plan_of(recipe: str) -> MergePlan:
    """Return what `chatvec check` says of the ratios, and that nothing is wrong with them."""
    report = checked(recipe)
    assert not set(codes(report)) & set(RATIO_CODES), report.findings
    assert not report.of(Severity.ERROR), report.findings
    assert report.survey.plan is not None
    return report.survey.plan


def ratios(plan: MergePlan, chat: int = 0) -> dict[str, float]:
    return {tensor.name: tensor.ratios[plan.roles.chats[chat]] for tensor in plan.tensors}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Recipe]:
    """Return a function that gives a recipe on miniatures of so many layers."""
    folder = tmp_path_factory.mktemp("layers")

    def recipe(layers: int) -> Recipe:
        if not (folder / str(layers)).exists():
            kind = zoo.Kind("llama", layers, 32000, torch.float32)
            kinds = dict.fromkeys(["base", "chat", "cp"], kind)
            zoo.build_family(folder / str(layers), kinds, ["base"], ["chat"], ["cp"])
        return plain_recipe(folder / str(layers))

    return recipe


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Recipe | str], Path]:
    """Return a function that writes a recipe into a file."""

    def recipe_file(recipe: Recipe | str) -> Path:
        file = tmp_path / "a recipe.yaml"
        file.write_text(as_text(recipe), encoding="utf-8")
        return file

    return recipe_file


Saving = Callable[[Recipe | str], Path]

# --- the round trip ------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", LAYERS)
def test_what_check_says_is_the_formula_for_all_and_for_attention_and_mlp_apart(
    layers: int, models: Callable[[int], Recipe], save: Saving
) -> None:
    file = save(models(layers))
    shapes = formulas(layers)
    for i in range(0, len(shapes), 1 if layers <= 22 else 3):  # of a deep model, each shape once
        (shape, rest), attention, mlp = (shapes[(i + j) % len(shapes)] for j in range(3))
        text = written(shape, "--into", file, "--attention", attention[0], "--mlp", mlp[0])
        assert_as_expected(text, layers, {"attention": attention[1], "MLP": mlp[1]}, rest)


@pytest.mark.parametrize("layers", [1, 22])
def test_what_check_says_is_the_formula_where_one_is_for_all_or_each_kind_has_its_own(
    layers: int, models: Callable[[int], Recipe], save: Saving
) -> None:
    file = save(models(layers))
    shapes = formulas(layers)
    for i, (shape, rest) in enumerate(shapes):
        assert_as_expected(written(shape, "--into", file), layers, {}, rest)
        others = dict(zip(("attention", "mlp", "norms"), shapes[i - 3 :] + shapes, strict=False))
        options = [word for kind, (text, _) in others.items() for word in (f"--{kind}", text)]
        kinds = {"attention": others["attention"][1], "MLP": others["mlp"][1]}
        kinds["norms"] = others["norms"][1]
        assert_as_expected(written(shape, "--into", file, *options), layers, kinds, rest)


def assert_as_expected(text: str, layers: int, kinds: dict[str, Formula], rest: Formula) -> None:
    plan = plan_of(text)
    assert plan.layers == layers
    for tensor in plan.tensors:
        expected = expected_ratio(tensor, layers, kinds, rest)
        assert abs(tensor.ratios[plan.roles.chats[0]] - expected) <= CLOSE, tensor.name


@pytest.mark.parametrize("layers", LAYERS)
def test_stock_mergekit_gives_every_layer_the_ratio_of_the_formula(
    layers: int, models: Callable[[int], Recipe], save: Saving, merge: Merging
) -> None:
    recipe = models(layers)
    shapes = dict(formulas(layers))
    rest, attention, mlp = "cosine:0.2:1.1", "gaussian:0.4:0.15:0.3:1", "points:0:1,0.5:0.2,1:1"
    text = written(rest, "--into", save(recipe), "--attention", attention, "--mlp", mlp)

    output = oracle.stored_tensors(merge(text).out)

    kinds = {"attention": shapes[attention], "MLP": shapes[mlp]}
    base, chat, cp = (oracle.checkpoint(Path(entry["model"])) for entry in recipe["models"])
    tensors = plan_of(text).tensors
    assert {tensor.name for tensor in tensors} == output.keys()
    for tensor in tensors:
        name = tensor.name
        vector = chat[name] - base[name]
        expected = cp[name] + expected_ratio(tensor, layers, kinds, shapes[rest]) * vector
        rounding = np.finfo(np.float32).eps * np.abs(expected).max()
        tolerance = CLOSE * np.abs(vector).max() + rounding
        np.testing.assert_allclose(output[name].double().numpy(), expected, atol=tolerance, rtol=0)


# --- what is printed -----------------------------------------------------------------------------


def test_without_a_recipe_the_ratio_is_printed_and_fits_one(family: Path) -> None:
    text = written("linear", "--from", "1", "--to", "0.3", "--layers", "3", "--mlp", "0.5")
    recipe = plain_recipe(family)
    recipe["models"][CHAT]["parameters"] |= yaml.safe_load(text)

    found = ratios(plan_of(as_text(recipe)))

    assert found["model.layers.1.self_attn.q_proj.weight"] == 0.65
    assert found["model.layers.2.mlp.up_proj.weight"] == 0.5
    assert [found["model.embed_tokens.weight"], found["model.norm.weight"]] == [1, 0.3]
    assert found["lm_head.weight"] == 0.3


@pytest.mark.parametrize("layers", [13, 32, 80])
@pytest.mark.parametrize("shape", ["linear:1:0.3", "step:0-3:0.3,4-12:1", "linear:0:1"])
def test_comments_say_which_layers_a_row_is_for(shape: str, layers: int) -> None:
    if shape.startswith("step"):
        shape = shape.replace("-12", f"-{layers - 1}")
    text = written(shape, "--layers", layers)
    numbers = yaml.safe_load(text)["ratio"][-1]["value"]
    rows = re.findall(r"^ +([-\d., ]+), # layers? (\d+)(?: to (\d+))?$", text, re.MULTILINE)
    assert rows
    seen = []
    for row, first, last in rows:
        values = [float(number) for number in row.split(",")]
        assert values == numbers[int(first) : int(last or first) + 1]
        seen += values
    assert seen == numbers
    assert max(map(len, text.splitlines())) <= 100


def test_one_number_for_all_is_written_as_one_number() -> None:
    assert written("0.7", "--layers", "32") == "ratio: 0.7\n"


def test_numbers_below_0_can_be_written() -> None:
    text = written("linear:-0.5:0.5", "--layers", "3")
    assert yaml.safe_load(text)["ratio"][-1]["value"] == [-0.5, 0, 0.5]
    assert "-0.0" not in text


def test_embeddings_head_and_final_norm_have_numbers_of_their_own() -> None:
    options = ["--embeddings", "0", "--head", "0.25", "--final-norm", "2"]
    cases = yaml.safe_load(written("linear", "--layers", "4", *options))["ratio"]
    assert {case.get("filter"): case["value"] for case in cases[:3]} == {
        "embed_tokens": 0,
        "lm_head": 0.25,
        "model.norm": 2,
    }


# --- into a recipe -------------------------------------------------------------------------------


@pytest.mark.parametrize("file", zoo.MODEL_RECIPES, ids=lambda file: file.stem)
def test_every_other_line_of_a_shared_recipe_stays(file: Path) -> None:
    recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
    chats = [e["model"] for e in recipe["models"] if e["parameters"]["role"] == "chat"]
    before = file.read_text(encoding="utf-8").splitlines()

    options = ["--layers", "32", "--mlp", "0.25", "--chat", chats[-1]]
    text = written("gaussian:low=0.3", "--into", file, *options)

    after = text.splitlines()
    start = before.index(
        next(line for line in before if line.split(" #")[0] == f"  - model: {chats[-1]}")
    )
    end = next(i for i in range(start + 1, len(before)) if before[i].startswith("  - model:"))
    below = len(before) - end
    assert after[: start + 1] == before[: start + 1]
    assert after[-below:] == before[-below:]
    block = "\n".join(after[start + 1 : -below])
    assert "      ratio:" in block
    assert "# layers 0 to 5" in block
    changed = yaml.safe_load(text)
    for entry in (*changed["models"], *recipe["models"]):
        if entry["model"] == chats[-1]:
            assert entry["parameters"].pop("ratio")
    assert changed == recipe


def test_models_with_tied_embeddings_get_no_line_for_a_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    text = written("linear:1:0.5", "--into", "recipes/world.yaml")
    assert "lm_head" not in text
    assert "# base and chat lack 8 words; their rows stay cp's" in text
    assert not set(codes(checked(text), Severity.ERROR, Severity.WARNING))
    assert ratios(plan_of(text))["model.layers.1.mlp.up_proj.weight"] == 0.75


TEXT = """\
merge_method: chat_vector
base_model: {cp}
models:
  - model: {base}
    parameters: {{role: base}}
  - model: {chat} # who chats
{parameters}
  - model: {cp}
    parameters: {{role: cp}} # the end
{rest}"""


@pytest.mark.parametrize(
    ("parameters", "rest"),
    [
        ("    parameters: {role: chat, ratio: 1.0} # both", ""),
        ("    parameters: {ratio: [{filter: mlp, value: 1}, {value: 0}], role: chat} # both", ""),
        ("    parameters: # both\n      role: chat\n      ratio: 1.0 # why", ""),
        ("    parameters: # both\n      ratio: [1.0, # why\n        0.5]\n      role: chat", ""),
        ("    parameters: # both\n      role: chat\n      ratio:\n      - value: 1.0 # old", ""),
        ("    parameters: # both\n      ratio:\n      - value: 1.0 # old\n      role: chat", ""),
        ("    parameters: # both\n      ratio:\n        - value: 1.0 # old\n      role: chat", ""),
        ("    parameters: {role: chat} # both", "parameters: {ratio: 1.0}\n"),
        ("    parameters: # both\n      role: chat", "parameters:\n  ratio: [1.0, 0.5]\n"),
        ("    parameters: {role: chat} # both", ""),
        ("    parameters: {role: chat, ratio: [{filter: nothing, value: .nan}]} # both", ""),
        ("    parameters:\n      {role: chat, # both\n       ratio: 1.0}", ""),
    ],
)
def test_it_is_written_however_the_recipe_is(
    parameters: str, rest: str, family: Path, save: Saving
) -> None:
    names = {name: str(family / name) for name in ("base", "chat", "cp")}
    before = TEXT.format(**names, parameters=parameters, rest=rest)

    text = written("linear:1:0.5", "--into", save(before), "--embeddings", "0")

    for comment in ("# who chats", "# both", "# the end"):
        assert comment in text
    assert "# old" not in text
    found = ratios(plan_of(text))
    assert found["model.layers.1.mlp.up_proj.weight"] == 0.75
    assert found["model.embed_tokens.weight"] == 0
    assert not yaml.safe_load(text).get("parameters")


def test_a_recipe_on_one_line_gets_it_on_that_line(recipe: Recipe, save: Saving) -> None:
    text = written("linear:1:0.5", "--into", save(json.dumps(recipe)))
    assert len(text.splitlines()) == 1
    assert ratios(plan_of(text))["model.layers.1.mlp.up_proj.weight"] == 0.75


def test_of_several_chat_models_the_one_that_is_named_gets_it(
    recipe: Recipe, save: Saving, family: Path
) -> None:
    other = copy.deepcopy(recipe["models"][CHAT])
    other["model"] = str(family / "chat2")
    recipe["models"].insert(CHAT + 1, other)

    result = chatvec("linear:1:0.5", "--into", save(recipe))
    assert result.exit_code == 1
    assert f"--chat {family / 'chat2'}" in result.output

    plan = plan_of(written("linear:1:0.5", "--into", save(recipe), "--chat", other["model"]))
    assert set(ratios(plan, 0).values()) == {1.0}
    assert ratios(plan, 1)["model.layers.1.mlp.up_proj.weight"] == 0.75


def sliced(recipe: Recipe, *ranges: list[int]) -> Recipe:
    models = recipe.pop("models")
    slices = [
        {"sources": [{**copy.deepcopy(entry), "layer_range": layers} for entry in models]}
        for layers in ranges
    ]
    return {**recipe, "slices": slices}


@pytest.mark.parametrize("shared", [False, True], ids=["own ratio", "ratio of the slice"])
def test_slices_go_on_with_the_schedule_where_the_last_one_ended(
    shared: bool, recipe: Recipe, save: Saving, merge: Merging
) -> None:
    models = copy.deepcopy(recipe["models"])
    made = sliced(recipe, [0, 2], [1, 3], [0, 1])
    if shared:
        for part in made["slices"]:
            del part["sources"][CHAT]["parameters"]["ratio"]
            part["parameters"] = {"ratio": 0.1}
    text = written("linear:1:0.2", "--into", save(made), "--head", "0.9")

    found = ratios(plan_of(text))

    for layer in range(5):
        name = f"model.layers.{layer}.self_attn.q_proj.weight"
        assert found[name] == pytest.approx(1 - 0.2 * layer, abs=CLOSE)
    assert found["model.embed_tokens.weight"] == 1
    assert found["model.norm.weight"] == 0.2
    assert found["lm_head.weight"] == 0.9

    output = oracle.stored_tensors(merge(text).out)
    base, chat, cp = (oracle.checkpoint(Path(models[role]["model"])) for role in (BASE, CHAT, CP))
    for place, source in enumerate([0, 1, 1, 2, 0]):
        name = f"model.layers.{source}.mlp.up_proj.weight"
        expected = cp[name] + (1 - 0.2 * place) * (chat[name] - base[name])
        steps = oracle.steps_off(output[f"model.layers.{place}.mlp.up_proj.weight"], expected)
        assert steps.max() <= 1


def test_modules_are_written_into_as_models_are(recipe: Recipe, save: Saving) -> None:
    modules = {"default": {"models": recipe.pop("models"), "parameters": {"ratio": 3}}}
    text = written("linear:1:0.5", "--into", save({**recipe, "modules": modules}))
    assert ratios(plan_of(text))["model.layers.1.mlp.up_proj.weight"] == 0.75
    assert not yaml.safe_load(text)["modules"]["default"].get("parameters")


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
        ("gpt2", {"n_layer": 4}),
        ("gpt_neox", {}),
        ("phi3", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("apart", [["attention"], ["attention", "mlp"], ["mlp", "norms"]], ids=str)
def test_other_architectures_are_told_apart_by_their_own_names(
    model_type: str, extra: dict[str, Any], apart: list[str], tmp_path: Path, save: Saving
) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = AutoConfig.for_model(model_type, **sizes, **extra)
    config.architectures = [f"{type(config).__name__.removesuffix('Config')}ForCausalLM"]
    if model_type == "gpt2":
        config.architectures = ["GPT2LMHeadModel"]
    for role in ("base", "chat", "cp"):
        config.save_pretrained(tmp_path / role)
    shapes = {"attention": "linear:1:0.1", "mlp": "cosine:0:1", "norms": "step:0-1:0.3,2-3:0.6"}
    options = [word for kind in apart for word in (f"--{kind}", shapes[kind])]

    text = written("gaussian", "--into", save(plain_recipe(tmp_path)), *options)

    expected = {
        "attention": [1, 0.7, 0.4, 0.1],
        "MLP": [0, 0.25, 0.75, 1],
        "norms": [0.3, 0.3, 0.6, 0.6],
    }
    rest = [math.exp(-((x - 0.5) ** 2) / 0.08) for x in (0, 1 / 3, 2 / 3, 1)]
    given = {kind: expected[kind] for kind in expected if kind.lower() in apart}
    report = checked(text)
    assert not set(codes(report)) & set(RATIO_CODES), report.findings
    plan = report.survey.plan
    assert plan is not None
    assert {t.kind for t in plan.tensors if t.layer is not None} >= {"attention", "MLP", "norms"}
    for tensor in plan.tensors:
        value = rest[0] if tensor.layer is None else given.get(tensor.kind, rest)[tensor.layer]
        found = tensor.ratios[plan.roles.chats[0]]
        assert found == pytest.approx(value, abs=CLOSE), tensor.name


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["gausian", "--layers", "3"], "`gausian` is no shape"),
        (["linear", "--from", "1"], "--layers 32"),
        (["linear:1:2:3", "--layers", "3"], "no more numbers than from, to"),
        (["linear:1", "--from", "1", "--layers", "3"], "`from` twice"),
        (["step", "0-9:1", "--layers", "3"], "only 0 to 2"),
        (["linear", "--layers", "3", "--mlp", "half"], "`half` is no shape"),
        (["linear", "--into", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["per-layer:1,1", "--layers", "3"], "2 numbers for 3 layers"),
        (["linear", "--layers", "3", "--chat", "a/chat"], "--into RECIPE"),
        (["show", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["show", "a.yaml", "b.yaml", "c.yaml"], "one or two"),
        (["show", "a.yaml", "--dark"], "--png FILE"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: list[str], reason: str) -> None:
    result = chatvec(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert reason in line


def test_help_names_every_shape_and_its_numbers() -> None:
    text = written("--help")
    for shape, _ in formulas(3):
        assert f"\n  {shape.partition(':')[0]} " in text
    for option in ("--center", "--width", "--low", "--high", "default: 0.2", "--final-norm"):
        assert option in written("gaussian", "--help")


# --- show ----------------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(ROOT)
    return


def shown(*arguments: str | Path) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = json.loads(written("show", "--json", *arguments))
    return data


def test_every_layer_is_shown_with_what_mergekit_uses(recipe: Recipe, save: Saving) -> None:
    recipe["models"][CHAT]["parameters"]["ratio"] = [
        {"filter": "q_proj", "value": [1.0, 0.0]},
        {"filter": "mlp", "value": 0.25},
        {"value": [0.5, 1.0]},
    ]
    text = written("show", save(recipe))
    assert "outside the layers: model.embed_tokens.weight 0.5" in text
    rows = [line.split() for line in text.splitlines()[2:]]
    assert rows == [
        ["layer", "attention", "MLP", "norms"],
        ["0", "0.5…1", "0.25", "0.5"],
        ["1", "0.5…0.75", "0.25", "0.75"],
        ["2", "0…1", "0.25", "1"],
    ]

    (data,) = shown(save(recipe))
    (vector,) = data["vectors"]
    assert (data["layers"], vector["chat"]) == (3, recipe["models"][CHAT]["model"])
    assert set(vector["outside"].values()) == {0.5}
    assert vector["layers"][1] == {"attention": [0.5, 0.75], "MLP": [0.25], "norms": [0.75]}


def test_in_a_pipe_there_are_neither_bars_nor_colours(recipe: Recipe, save: Saving) -> None:
    assert not re.search("[\x1b█▌─━│]", written("show", save(recipe)))


def test_on_a_terminal_there_are_bars(recipe: Recipe, save: Saving, tmp_path: Path) -> None:
    from rich.console import Console

    from chatvec_method.cli.ratio_tables import print_ratios

    text = written("linear:1:0.25", "--into", save(recipe))
    with (tmp_path / "terminal").open("w+", encoding="utf-8") as terminal:
        console = Console(file=terminal, force_terminal=True, color_system=None, width=100)
        print_ratios(console, [("a recipe", plan_of(text))])
        terminal.seek(0)
        rows = [line for line in terminal.read().splitlines() if re.match("[012] ", line)]
    bars = [len(re.findall("█", row)) for row in rows]
    assert bars[0] > bars[1] > bars[2] > 0


def test_two_recipes_stand_side_by_side(recipe: Recipe, save: Saving, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(written("linear:1:0.5", "--into", save(recipe)), encoding="utf-8")

    lines = written("show", save(recipe), other).splitlines()

    assert lines[0].startswith("A: ")
    assert lines[2].startswith(f"B: {other}")
    header = "layer A attention A MLP A norms B attention B MLP B norms"
    assert lines[4].split() == header.split()
    assert lines[6].split() == ["1", "1", "1", "1", "0.75", "0.75", "0.75"]
    assert [data["recipe"] for data in shown(save(recipe), other)] == [
        str(save(recipe)),
        str(other),
    ]


def test_every_chat_vector_is_shown(no_network: None) -> None:
    (data,) = shown("recipes/openbio_ko.yaml", "--layers", "4")
    names = [vector["chat"] for vector in data["vectors"]]
    assert names == ["meta-llama/Meta-Llama-3-8B-Instruct", "aaditya/Llama3-OpenBioLLM-8B"]
    text = written("show", "recipes/openbio_ko.yaml", "--layers", "4")
    assert all(f"ratio of {name}" in text for name in names)


def test_slices_are_shown_as_the_layers_of_the_output(recipe: Recipe, save: Saving) -> None:
    made = sliced(recipe, [0, 2], [1, 3])
    made["slices"][1]["sources"][CHAT]["parameters"]["ratio"] = [0.5, 0.25]
    (data,) = shown(save(made))
    norms = [layer["norms"] for layer in data["vectors"][0]["layers"]]
    assert norms == [[1.0], [1.0], [0.5], [0.25]]


def test_a_recipe_can_be_shown_and_changed_without_its_models(
    no_network: None, save: Saving
) -> None:
    result = chatvec("show", "recipes/per_layer.yaml")
    assert result.exit_code == 1
    assert "the hub cannot be reached" in result.stderr
    assert "`--layers N`" in result.stderr

    (data,) = shown("recipes/per_layer.yaml", "--layers", "48")
    layers = data["vectors"][0]["layers"]
    assert [layers[i]["attention"] for i in (0, 24, 47)] == [
        pytest.approx([ratio]) for ratio in (1.0, 0.9, 0.6)
    ]

    text = written("0.25", "--into", "recipes/per_layer.yaml", "--layers", "48", "--head", "1")
    (data,) = shown(save(text), "--layers", "48")
    assert data["vectors"][0]["outside"] == {
        "model.embed_tokens.weight": 0.25,
        "model.norm.weight": 0.25,
        "lm_head.weight": 1.0,
    }


def test_pictures_are_drawn_for_light_and_dark_pages(no_network: None, tmp_path: Path) -> None:
    def picture(*arguments: str) -> bytes:
        file = tmp_path / "picture.png"
        written("show", *arguments, "--layers", "6", "--png", file)
        return file.read_bytes()

    light = picture("recipes/per_layer.yaml")
    assert light.startswith(b"\x89PNG")
    assert picture("recipes/per_layer.yaml") == light
    dark = picture("recipes/per_layer.yaml", "--dark")
    both = picture("recipes/per_layer.yaml", "recipes/openbio_ko.yaml")
    assert len({light, dark, both}) == 3

    result = chatvec("show", "recipes/world.yaml", "--png", tmp_path / "no" / "x.png")
    assert result.exit_code == 1
    assert "a folder that exists" in result.stderr
