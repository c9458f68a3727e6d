"""`chatvec check`: each kind of finding where it fits and only there, and the command."""

from __future__ import annotations

import ast
import copy
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import formats
import hub
import oracle
import peft
import pytest
import torch
import yaml
import zoo
from checking import as_text, checked, codes, mended, the, with_edits
from click.testing import CliRunner, Result
from conftest import BASE, CHAT, CP, ROOT, Recipe, plain_recipe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_files import with_json
from mergekit.architecture import get_architecture_info
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import SaveTensor
from mergekit.options import MergeOptions
from mergekit.plan import MergePlanner
from safetensors.torch import save_file
from sparse import build_sparse_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from chatvec_method.checks.report import Report, Severity, check
from chatvec_method.checks.stock import TOLD_BY_DIFFERENCES
from chatvec_method.cli import main
from chatvec_method.errors import ChatVecError
from chatvec_method.recipe.file import parse_recipe

Change = Callable[[Recipe], None]
ERROR, WARNING, ADVICE = Severity.ERROR, Severity.WARNING, Severity.ADVICE


# --- recipes ----------------------------------------------------------------------------------


def as_it_is(_: Any) -> None:
    """Change nothing, of a recipe or of a model's folder."""


def top(**keys: Any) -> Change:
    """Set top-level keys; remove those that are None."""

    def change(recipe: Recipe) -> None:
        recipe.update(keys)
        for key in [key for key, value in keys.items() if value is None]:
            recipe.pop(key)

    return change


def under(model: int, **parameters: Any) -> Change:
    def change(recipe: Recipe) -> None:
        recipe["models"][model]["parameters"].update(parameters)

    return change


def ratio(value: Any) -> Change:
    return under(CHAT, ratio=value)


def beside(model: int, **keys: Any) -> Change:
    def change(recipe: Recipe) -> None:
        recipe["models"][model].update(keys)

    return change


def named(model: int, name: str) -> Change:
    """Put another model of the family in the place of one."""

    def change(recipe: Recipe) -> None:
        entry = recipe["models"][model]
        new = str(Path(entry["model"]).parent / name)
        if recipe["base_model"] == entry["model"]:
            recipe["base_model"] = new
        entry["model"] = new

    return change


def all_of(*changes: Change) -> Change:
    def change(recipe: Recipe) -> None:
        for each in changes:
            each(recipe)

    return change


def in_slices(*ranges: tuple[int, int], **parameters: Any) -> Change:
    """Write the models as slices, with these parameters in the first one."""

    def change(recipe: Recipe) -> None:
        models = recipe.pop("models")
        recipe["slices"] = [
            {"sources": copy.deepcopy([{**m, "layer_range": list(layers)} for m in models])}
            for layers in ranges
        ]
        if parameters:
            recipe["slices"][0]["parameters"] = parameters

    return change


def in_modules(**parameters: Any) -> Change:
    def change(recipe: Recipe) -> None:
        recipe["modules"] = {"default": {"models": recipe.pop("models"), "parameters": parameters}}

    return change


def second_chat(**parameters: Any) -> Change:
    def change(recipe: Recipe) -> None:
        model = recipe["models"][CHAT]["model"] + "2"
        recipe["models"].append({"model": model, "parameters": {"role": "chat", **parameters}})

    return change


def with_tokenizer(**more: Any) -> Change:
    def change(recipe: Recipe) -> None:
        recipe["tokenizer"] = {"source": recipe["base_model"], **more}

    return change


extended = all_of(named(CP, "cp_extended"), with_tokenizer())
"""The plain right recipe where cp has more tokens."""


# --- every kind of finding --------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A change to a right recipe after which a finding comes up, with what it must say."""

    code: str
    severity: Severity
    change: Change
    says: tuple[str, ...]
    before: Change = as_it_is
    """What makes of the plain recipe the right one that is changed."""
    mends: bool = False
    """Whether check's own edits mend it."""


CASES = [
    Case("unknown-key", ERROR, top(out_type="bfloat16"), ("out_type", "`out_dtype:`"), mends=True),
    Case("unknown-key", ERROR, beside(CP, params={}), ("models[2].params", "`parameters:`")),
    Case(
        "unknown-key",
        ERROR,
        ratio([{"filters": "mlp", "value": 0.5}, {"value": 1.0}]),
        ("models[1].parameters.ratio[0].filters", "`filter:`"),
        mends=True,
    ),
    Case(
        "unknown-key",
        WARNING,
        top(remarks="tried on Monday"),
        ("remarks", "ignores", "`chatvec:`"),
        mends=True,
    ),
    Case(
        "unknown-key",
        ERROR,
        with_tokenizer(pad_to_multiple=64),
        ("tokenizer.pad_to_multiple", "`pad_to_multiple_of:`"),
        mends=True,
    ),
    Case(
        "misplaced-key",
        ERROR,
        all_of(beside(CHAT, ratios=0.5), lambda r: r["models"][CHAT]["parameters"].pop("ratio")),
        ("models[1].ratios", "`ratio:`", "`parameters:`"),
        mends=True,
    ),
    Case(
        "misplaced-key",
        ERROR,
        all_of(top(ratio=0.5), lambda r: r["models"][CHAT]["parameters"].pop("ratio")),
        ("ratio", "top-level `parameters:`"),
        mends=True,
    ),
    Case("misplaced-key", ERROR, beside(CP, dtype="float32"), ("models[2].dtype", "top level")),
    Case(
        "misplaced-key",
        ERROR,
        beside(CHAT, chat_template="auto"),
        ("models[1].chat_template", "top level"),
        mends=True,
    ),
    Case("unknown-parameter", ERROR, under(CP, weight=1.0), ("`weight`", "Remove"), mends=True),
    Case("misplaced-ratio", ERROR, under(BASE, ratio=1.0), ("models[0]", "base"), mends=True),
    Case("no-base-model", ERROR, top(base_model=None), ("by chance", "/cp`"), mends=True),
    Case("recipe-refused", ERROR, under(CP, role="base"), ("/base", "/cp", "role base")),
    Case("recipe-refused", ERROR, ratio("half"), ("/chat", "'half'")),
    Case("recipe-refused", ERROR, top(dtype="bf16"), ("`dtype: bf16`", "bfloat16")),
    Case("no-such-model", ERROR, named(BASE, "nobody"), ("/nobody", "neither a folder")),
    Case("model-is-a-file", ERROR, named(BASE, "base/config.json"), ("is a file",)),
    Case(
        "no-lora-cache",
        ERROR,
        named(CHAT, "chat+adapter"),
        ("chat+", "`--lora-merge-cache FOLDER`"),
    ),
    Case(
        "same-model",
        ERROR,
        named(CHAT, "base/../base"),
        ("vector is zero", "role: chat"),
    ),
    Case("same-model", ERROR, named(CP, "base/../chat"), ("a second time", "/chat", "role: cp")),
    Case("same-model", ERROR, named(CP, "base/../base"), ("nothing new in cp",)),
    Case(
        "mixed-dtypes",
        WARNING,
        named(CHAT, "chat16"),
        ("float16", "`out_dtype: bfloat16`"),
        mends=True,
    ),
    Case(
        "dtype-rounds-inputs",
        WARNING,
        all_of(named(CHAT, "chat16"), top(dtype="bfloat16", out_dtype="bfloat16")),
        ("chat16 float16", "`out_dtype: bfloat16` alone"),
        mends=True,
    ),
    Case(
        "ratio-never-counts",
        WARNING,
        top(parameters={"ratio": 0.1}),
        ("parameters.ratio", "never counts"),
        mends=True,
    ),
    Case(
        "filter-matches-nothing",
        ERROR,
        ratio([{"filter": "self_atn", "value": 0.5}, {"value": 1.0}]),
        ("`self_atn`", "self_attn"),
    ),
    Case(
        "filter-matches-nothing",
        ERROR,
        all_of(
            in_slices((0, 2), (2, 3)),
            lambda r: r["slices"][1]["sources"][CHAT]["parameters"].update(
                ratio=[{"filter": "layers.0.", "value": 0.5}, {"value": 1.0}]
            ),
        ),
        ("slices[1].sources[1].parameters.ratio[0]", "`layers.0.`", "Remove it."),
        mends=True,
    ),
    Case(
        "filter-hidden",
        ERROR,
        ratio([{"filter": "mlp", "value": 1}, {"filter": "mlp.up", "value": 0}, {"value": 1.0}]),
        ("ratio[1]", "`mlp.up`", "`mlp`", "above"),
        mends=True,
    ),
    Case(
        "filter-hidden",
        ERROR,
        ratio([{"filter": "mlp", "value": 1}, {"filter": "mlp.", "value": 0}, {"value": 1.0}]),
        ("ratio[1]", "`mlp.`", "Remove one of them"),
        mends=True,
    ),
    Case(
        "list-without-depth",
        WARNING,
        ratio([1.0, 0.5, 0.25]),
        ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight", "first number, 1.0"),
        mends=True,
    ),
    Case(
        "list-without-depth",
        WARNING,
        ratio([{"filter": "mlp", "value": 0.5}, {"value": [0.0, 1.0]}]),
        ("models[1].parameters.ratio[1]", "lm_head", "`- {filter: lm_head, value: 0.0}`"),
        mends=True,
    ),
    Case(
        "list-interpolated",
        ADVICE,
        ratio([{"filter": "layers", "value": [1.0, 0.9, 0.8, 0.7]}, {"value": 1.0}]),
        ("4 numbers for 3 layers", "Write 3 numbers"),
    ),
    Case("vocabulary-sizes", ERROR, named(CP, "cp_extended"), ("250", "320"), mends=True),
    Case(
        "cp-tokens-lost",
        ERROR,
        lambda r: r["tokenizer"].update(source=r["models"][BASE]["model"]),
        ("70 tokens", "of cp", "/cp_extended}`"),
        before=extended,
        mends=True,
    ),
    Case(
        "cp-tokens-lost",
        ERROR,
        all_of(
            top(tokenizer=None), lambda r: r.update(tokenizer_source=r["models"][BASE]["model"])
        ),
        ("tokenizer_source", "70 tokens", "/cp_extended}`"),
        before=extended,
        mends=True,
    ),
    Case(
        "tokenizer-not-built",
        ERROR,
        lambda r: r["tokenizer"].update(source="/nowhere/at/all"),
        ("/nowhere/at/all", "`tokenizer: {source: ...}`"),
        before=extended,
    ),
    Case(
        "recipe-refused",
        ERROR,
        lambda r: r["tokenizer"].update(tokens={"<x>": {"source": r["base_model"]}}),
        ("'<x>'", "has no token '<x>'"),
        before=extended,
    ),
    Case(
        "tokens-without-cp",
        ADVICE,
        lambda r: r.update(
            tokenizer={"source": "union"}, **exchanged(r, BASE, str(r["base_model"]))
        ),
        ("cp lacks 70 tokens", "base's at any ratio"),
    ),
    Case("no-chat-template", WARNING, named(CHAT, "chat2"), ("nor any model", "`chatml`")),
    Case("template-broken", ERROR, top(chat_template="{{ nobody.said }}"), ("cannot be used",)),
    Case("template-broken", ERROR, top(chat_template="llama-3"), ("leaves out what was said",)),
    Case(
        "marker-unknown",
        WARNING,
        top(chat_template="chatml"),
        ("'<|im_start|>', '<|im_end|>'", "no model was tuned"),
    ),
]


def exchanged(recipe: Recipe, model: int, cp: str) -> Recipe:
    """Return models among which base has the larger vocabulary."""
    models = copy.deepcopy(recipe["models"])
    models[model]["model"] = cp + "_extended"
    return {"models": models}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.code)
def test_finding_comes_up_where_it_fits_and_only_there(case: Case, recipe: Recipe) -> None:
    case.before(recipe)
    assert (case.code, case.severity) not in kinds(checked(recipe))

    case.change(recipe)

    report = checked(recipe)
    assert (case.code, case.severity) in kinds(report)
    texts = [f"{f.place} {f.message} {f.fix}" for f in report.findings if f.code == case.code]
    assert any(all(part in text for part in case.says) for text in texts), texts
    if case.mends:
        after = checked(mended(recipe))
        assert (case.code, case.severity) not in kinds(after)
        assert after.of(ERROR) == []


def kinds(report: Report) -> set[tuple[str, Severity]]:
    return {(finding.code, finding.severity) for finding in report.findings}


def test_a_key_that_is_written_twice_is_told(recipe: Recipe) -> None:
    text = as_text(recipe) + "chatvec: {note: a, note: b}\n"
    assert "repeated-key" not in codes(checked(text))
    twice = re.sub(r"( +)ratio: 1\.0\n", r"\g<0>\1ratio: 0.5\n", text)
    finding = the("repeated-key", checked(twice))
    assert finding.severity is ERROR
    assert finding.place == "models[1].parameters.ratio"
    assert "only the last one counts" in finding.message


# --- models that are not what they should be --------------------------------------------------


@pytest.fixture
def changed(family: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """Return a function that gives the plain recipe, with a copy of one of its models changed."""

    def change(place: int, alter: Callable[[Path], None], name: str = "") -> Recipe:
        recipe = plain_recipe(family)
        entry = recipe["models"][place]
        model = Path(entry["model"])
        copied = shutil.copytree(model, tmp_path / (name or f"{model.name}-copy"))
        alter(copied)
        if recipe["base_model"] == entry["model"]:
            recipe["base_model"] = str(copied)
        entry["model"] = str(copied)
        return recipe

    return change


def without_end(folder: Path) -> None:
    file = folder / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-8])


def with_tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    """Change the weights of a model, which is then one file."""

    def alter(folder: Path) -> None:
        tensors = oracle.stored_tensors(folder)
        change(tensors)
        without_weights(folder)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return alter


def with_token(old: str, new: str) -> Callable[[Path], None]:
    """Give a token of a model another name."""

    def alter(folder: Path) -> None:
        file = folder / "tokenizer.json"
        content = json.loads(file.read_text())
        vocabulary = content["model"]["vocab"]
        vocabulary[new] = vocabulary.pop(old)
        file.write_text(json.dumps(content))

    return alter


def with_more_tokens(*tokens: str) -> Callable[[Path], None]:
    """Give a model's tokenizer tokens for which it has no rows."""

    def alter(folder: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens(list(tokens))
        tokenizer.save_pretrained(folder)

    return alter


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def with_fewer_heads(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if "q_proj" in name]:
        tensors[name] = tensors[name][:8].contiguous()


def test_damaged_files_are_an_error_that_names_the_model(changed: Callable[..., Recipe]) -> None:
    report = checked(changed(CHAT, without_end))
    finding = the("damaged-files", report)
    assert finding.severity is ERROR
    assert finding.place.endswith("chat-copy")
    assert "model-00002-of-00002.safetensors" in finding.message
    assert codes(checked(changed(CHAT, as_it_is, "sound")), ERROR) == []


def test_pickles_are_named_as_a_risk(changed: Callable[..., Recipe]) -> None:
    finding = the("pickled-weights", checked(changed(CP, zoo.pickle_shards)))
    assert finding.severity is WARNING
    assert finding.place.endswith("cp-copy")


def test_a_tensor_that_a_model_lacks_is_named(changed: Callable[..., Recipe]) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    finding = the("tensor-missing", checked(changed(CHAT, with_tensors(lambda t: t.pop(name)))))
    assert finding.severity is ERROR
    assert name in finding.message


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
@pytest.mark.parametrize("place", [BASE, CHAT, CP])
def test_weights_of_a_dtype_that_nothing_is_added_to_are_told(
    place: int, dtype: torch.dtype, changed: Callable[..., Recipe]
) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    recipe = changed(place, with_tensors(lambda t: t.update({name: t[name].to(dtype)})))
    for deep in (False, True):
        finding = the("quantised", checked(recipe, deep=deep))
        assert finding.severity is ERROR
        assert finding.place.endswith("-copy")
        assert name in finding.message


def test_a_head_that_only_cp_has_is_no_missing_tensor(changed: Callable[..., Recipe]) -> None:
    def without_head(folder: Path) -> None:
        with_tensors(lambda tensors: tensors.pop("lm_head.weight"))(folder)
        with_json("config.json", tie_word_embeddings=True)(folder)

    report = checked(changed(BASE, without_head))
    assert codes(report, ERROR, WARNING) == []
    assert the("tied-head", report).severity is ADVICE


def test_a_tied_model_that_stores_another_head_is_told_before_it_is_merged(
    family: Path, tmp_path: Path
) -> None:
    recipe = plain_recipe(family)
    for entry in recipe["models"]:
        model = Path(entry["model"])
        tied = shutil.copytree(model, tmp_path / model.name)
        with_json("config.json", tie_word_embeddings=True)(tied)
        if entry is not recipe["models"][CHAT]:
            with_tensors(
                lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()})
            )(tied)
        recipe["base_model"] = recipe["base_model"].replace(entry["model"], str(tied))
        entry["model"] = str(tied)

    finding = the("head-not-tied", checked(recipe))
    assert finding.severity is ERROR
    assert finding.place == recipe["models"][CHAT]["model"]
    recipe["models"][CHAT]["parameters"]["ratio"] = [
        {"filter": "lm_head", "value": 0},
        {"value": 1},
    ]
    assert "head-not-tied" not in codes(checked(recipe))  # then the output has a head of its own


@pytest.mark.parametrize("layers", [(0, 4), (-1, 2), (2, 1), (1, 1)])
def test_layers_that_a_model_has_not_are_told(layers: tuple[int, int], recipe: Recipe) -> None:
    in_slices(layers)(recipe)
    finding = the("layer-range", checked(recipe))
    assert finding.severity is ERROR
    assert f"[{layers[0]}, {layers[1]}]" in finding.message
    assert "the 3 layers" in finding.message


@pytest.mark.parametrize("value", [5, "x", {"model_type": "llama"}, {}])
def test_a_part_that_its_class_has_not_is_told(value: Any, changed: Callable[..., Recipe]) -> None:
    # transformers does not load such a model either.
    report = checked(changed(BASE, with_json("config.json", text_config=value)))
    finding = the("config-unreadable", report)
    assert "models of the type 'llama' have no such part" in finding.message


def test_a_head_that_a_config_tells_of_and_no_model_has_is_told(
    recipe: Recipe, tmp_path: Path
) -> None:
    for entry in recipe["models"]:
        model = Path(entry["model"])
        headless = shutil.copytree(model, tmp_path / model.name)
        with_tensors(lambda tensors: tensors.pop("lm_head.weight"))(headless)
        recipe["base_model"] = recipe["base_model"].replace(entry["model"], str(headless))
        entry["model"] = str(headless)
    finding = the("head-missing", checked(recipe))
    assert finding.severity is ERROR
    assert "no model has lm_head.weight" in finding.message


def test_layers_that_a_config_counts_and_no_model_has_are_told(
    recipe: Recipe, tmp_path: Path
) -> None:
    def without_the_last(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if ".layers.2." in name]:
            del tensors[name]

    for entry in recipe["models"]:
        model = Path(entry["model"])
        shorter = shutil.copytree(model, tmp_path / model.name)
        with_tensors(without_the_last)(shorter)
        recipe["base_model"] = recipe["base_model"].replace(entry["model"], str(shorter))
        entry["model"] = str(shorter)
    finding = the("layers-missing", checked(recipe))
    assert finding.severity is ERROR
    assert "`num_hidden_layers: 3`, and there are tensors of 2 layers" in finding.message


def test_a_config_by_which_nothing_loads_is_told(changed: Callable[..., Recipe]) -> None:
    report = checked(changed(CP, with_json("config.json", hidden_act="nobody's")))
    finding = the("config-does-not-fit", report)
    assert finding.severity is WARNING
    assert "nobody's" in finding.message


def test_one_model_behind_a_link_is_told(recipe: Recipe, tmp_path: Path) -> None:
    model = Path(recipe["models"][BASE]["model"])
    (tmp_path / "linked").symlink_to(model)
    (tmp_path / "files").mkdir()
    for file in model.iterdir():
        shutil.copy(file, tmp_path / "files")
    for weights in model.glob("*.safetensors"):
        (tmp_path / "files" / weights.name).unlink()
        (tmp_path / "files" / weights.name).symlink_to(weights)
    for name in ("linked", "files"):
        recipe["models"][CHAT]["model"] = str(tmp_path / name)
        assert "the chat vector is zero" in the("same-model", checked(recipe)).message


@pytest.mark.parametrize(
    ("alter", "says"),
    [
        (with_tensors(with_fewer_heads), ("q_proj.weight", "[8, 16]", "[16, 16]")),
        (with_json("config.json", num_hidden_layers=2), ("`num_hidden_layers`", " 2", " 3")),
        (with_json("config.json", hidden_size=32), ("`hidden_size`", "32", "16")),
        (with_json("config.json", model_type="mistral"), ("`model_type`", "mistral")),
    ],
    ids=["tensor", "layers", "width", "kind"],
)
def test_models_that_cannot_come_from_one_are_told(
    alter: Callable[[Path], None], says: tuple[str, ...], changed: Callable[..., Recipe]
) -> None:
    recipe = changed(CHAT, alter)
    found = [f for f in checked(recipe).findings if f.code == "not-related"]
    assert found[0].severity is ERROR
    assert recipe["models"][CHAT]["model"] in f"{found[0].place} {found[0].message}"
    assert all(part in found[0].message for part in says)


@pytest.mark.parametrize(
    ("place", "name", "says"),
    [
        (BASE, "Llama-2-7b-chat-hf", "the base model is named like a chat model"),
        (CP, "gemma-2b-it", "cp is named like a chat model"),
    ],
)
def test_names_tell_of_exchanged_roles(
    place: int, name: str, says: str, changed: Callable[..., Recipe]
) -> None:
    recipe = changed(CHAT, as_it_is, "tuned")
    tuned = recipe["models"][CHAT]
    assert "roles-look-swapped" not in codes(checked(recipe))
    recipe = changed(place, as_it_is, name)
    recipe["models"][CHAT] = tuned

    finding = the("roles-look-swapped", checked(recipe))
    assert finding.severity is WARNING
    assert says in finding.message
    assert name in finding.fix


def test_the_folders_above_a_model_do_not_make_it_a_chat_model(
    changed: Callable[..., Recipe],
) -> None:
    recipe = changed(CHAT, as_it_is, "tuned")
    for place in (BASE, CP):
        here = Path(recipe["models"][CHAT]["model"]).parent / "chat" / "my-it-models" / str(place)
        shutil.copytree(recipe["models"][place]["model"], here)
        recipe["models"][place]["model"] = str(here)
    recipe["base_model"] = recipe["models"][CP]["model"]
    assert "roles-look-swapped" not in codes(checked(recipe))


@pytest.mark.parametrize("roles", [(BASE, "large", CP), ("large", CHAT, CP)])
def test_vocabularies_tell_of_exchanged_roles(roles: tuple[Any, ...], tmp_path: Path) -> None:
    small = zoo.Kind("llama", 1, 32000, torch.bfloat16)
    large = zoo.Kind("llama", 1, 32000 + 300 * zoo.SCALE, torch.bfloat16)
    kinds = {
        name: large if role == "large" else small
        for name, role in zip(("base", "chat", "cp"), roles, strict=True)
    }
    zoo.build_family(tmp_path, kinds, base=["base"], chat=["chat"], cp=["cp"])
    finding = the("roles-look-swapped", checked(plain_recipe(tmp_path)))
    assert finding.severity is WARNING
    assert "550 tokens" in finding.message


def test_a_filter_with_a_number_is_also_in_longer_numbers(tmp_path: Path) -> None:
    kind = zoo.Kind("llama", 12, 32000, torch.bfloat16)
    names = ("base", "chat", "cp")
    zoo.build_family(tmp_path, dict.fromkeys(names, kind), **{name: [name] for name in names})
    recipe = plain_recipe(tmp_path)
    ratio([{"filter": "layers.1", "value": 0.5}, {"value": 1.0}])(recipe)

    finding = the("filter-matches-more", checked(recipe))
    assert finding.severity is WARNING
    assert "layers.10, layers.11" in finding.message
    fixed = with_edits(recipe, finding.edits)
    assert fixed["models"][CHAT]["parameters"]["ratio"][0]["filter"] == "layers.1."
    assert "filter-matches-more" not in codes(checked(fixed))
    of = {t.name: set(t.ratios.values()) for t in checked(fixed).survey.plan.tensors}  # type: ignore[union-attr]
    assert of["model.layers.1.mlp.up_proj.weight"] == {0.5}
    assert of["model.layers.10.mlp.up_proj.weight"] == {1.0}

    # Where the longer ones have lines of their own above, it is what it says.
    others = [{"filter": f"layers.1{i}.", "value": 0.1} for i in range(2)]
    ratio([*others, {"filter": "layers.1", "value": 0.5}, {"value": 1.0}])(recipe)
    assert "filter-matches-more" not in codes(checked(recipe))


# --- tokens -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "aligned", "severity", "says"),
    [
        (CHAT, False, WARNING, "not known whether the same rows"),
        (CHAT, True, ERROR, "assume without a word"),
        (CP, False, ERROR, "is to give the output one"),
    ],
)
def test_a_tokenizer_that_does_not_load_is_told_with_what_it_means(
    place: int, aligned: bool, severity: Severity, says: str, changed: Callable[..., Recipe]
) -> None:
    recipe = changed(place, without_tokenizer)
    if aligned:
        recipe["tokenizer"] = {"source": recipe["base_model"]}
    finding = the("tokenizer-unreadable", checked(recipe))
    assert finding.severity is severity
    assert finding.place == recipe["models"][place]["model"]
    assert says in finding.message


def test_without_the_output_s_tokenizer_no_marker_is_called_missing(tmp_path: Path) -> None:
    family = formats.build(tmp_path, "llama-3")
    without_tokenizer(family.cp)
    assert codes(checked(formats.recipe(family)), ERROR) == ["tokenizer-unreadable"]


def test_tokens_that_were_only_renamed_are_no_error(changed: Callable[..., Recipe]) -> None:
    recipe = changed(CHAT, with_token("▁token7", "<|im_start|>"))
    finding = the("vocabulary-order", checked(recipe))
    assert finding.severity is WARNING
    assert "tokens renamed" in finding.message
    assert finding.edits == ()


def test_tokens_of_chat_that_the_output_lacks_are_counted(tmp_path: Path) -> None:
    family = formats.build(tmp_path, "chatml")
    recipe = formats.recipe(family)
    recipe["tokenizer"] = {"source": str(family.cp)}
    recipe["chat_template"] = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    finding = the("tokens-dropped", checked(recipe))
    assert finding.severity is ADVICE
    assert "2 tokens ('<|im_start|>', '<|im_end|>') of chat" in finding.message


def test_a_padding_token_that_cp_loses_is_no_error(
    family: Path, changed: Callable[..., Recipe]
) -> None:
    recipe = changed(CP, with_more_tokens("<pad>"))
    recipe["tokenizer"] = {"source": str(family / "chat")}
    recipe["base_model"] = str(family / "chat")
    assert codes(checked(recipe), ERROR) == []
    finding = the("cp-tokens-lost", checked(recipe))
    assert finding.severity is WARNING
    assert "the token '<pad>'" in finding.message


def test_what_the_method_refuses_is_an_error_whatever_else_is_said_of_it(
    family: Path, changed: Callable[..., Recipe]
) -> None:
    def with_a_row_more(folder: Path) -> None:
        with_more_tokens("<x>")(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        model.resize_token_embeddings(251)
        without_weights(folder)
        model.save_pretrained(folder)

    recipe = changed(CP, with_a_row_more)
    recipe["tokenizer"] = {"source": str(family / "chat")}
    found = [f for f in checked(recipe).findings if f.code == "cp-tokens-lost"]
    assert found[0].severity is ERROR
    assert codes(checked(mended(recipe)), ERROR, WARNING) == []


def without_weights(folder: Path) -> None:
    for file in folder.glob("model*"):
        file.unlink()


def test_a_token_that_no_model_has_a_row_for_is_told(changed: Callable[..., Recipe]) -> None:
    recipe = changed(CP, with_more_tokens("<pad>"))
    recipe["tokenizer"] = {"source": recipe["base_model"]}
    finding = the("tokens-without-row", checked(recipe))
    assert finding.severity is WARNING
    assert "the token '<pad>': the output's are zeros" in finding.message


def test_a_token_beyond_a_model_s_rows_is_told_before_mergekit_stops_at_it(
    changed: Callable[..., Recipe], merge: Callable[..., Any]
) -> None:
    recipe = changed(CHAT, with_more_tokens("새0", "<pad>"))
    extended = str(Path(recipe["base_model"]).parent / "cp_extended")
    recipe["base_model"] = recipe["models"][CP]["model"] = extended
    recipe["tokenizer"] = {"source": extended, "tokens": {"<pad>": {"source": {"kind": "zero"}}}}
    with pytest.raises(KeyError):
        merge(recipe)
    finding = the("tokens-beyond-rows", checked(recipe))
    assert finding.severity is ERROR
    assert recipe["models"][CHAT]["model"] in finding.message
    assert "'<pad>'" in finding.message


# --- chat-readiness ---------------------------------------------------------------------------


OTHER_TEMPLATE = (
    "{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>' "
    "+ m['content'] + '<|eot_id|>' }}{% endfor %}"
)


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., formats.Family]:
    """Return a function that gives a family of a format, built once."""
    built: dict[tuple[str, bool], formats.Family] = {}

    def give(format: str, extended: bool = False) -> formats.Family:
        if (format, extended) not in built:
            folder = tmp_path_factory.mktemp(format)
            built[format, extended] = formats.build(folder, format, extended=extended)
        return built[format, extended]

    return give


@pytest.mark.parametrize("extended", [False, True], ids=["equal", "extended"])
@pytest.mark.parametrize("format", formats.FORMATS)
def test_the_plain_recipe_of_every_format_gets_nothing_but_advice(
    format: str, extended: bool, chats: Callable[..., formats.Family]
) -> None:
    for value in (1.0, 0.5):
        report = checked(formats.recipe(chats(format, extended), value))
        assert codes(report, ERROR, WARNING) == []
        assert report.survey.format is not None
        assert report.survey.format.end_of_turn == chats(format, extended).format.end_of_turn


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("extended", [False, True], ids=["equal", "extended"])
def test_markers_that_the_output_lacks_are_added_with_chat_s_rows(
    extended: bool, short: bool, chats: Callable[..., formats.Family], merge: Callable[..., Any]
) -> None:
    family = chats("chatml", extended)
    recipe = formats.recipe(family, 0.5)
    del recipe["tokenizer"]
    if short:
        recipe["tokenizer_source"] = str(family.cp)

    report = checked(recipe)
    if short:
        finding = the("marker-missing", report)
        assert finding.severity is ERROR
        assert "'<|im_start|>', '<|im_end|>'" in finding.message
    else:  # the first thing to mend
        assert the("vocabulary-sizes", report).severity is ERROR
    fixed = mended(recipe)
    source = {"source": str(family.chat), "force": True}
    assert fixed["tokenizer"]["tokens"] == {"<|im_start|>": source, "<|im_end|>": source}
    assert codes(checked(fixed), ERROR, WARNING) == []
    out = merge(fixed).out
    rows = {folder: oracle.stored_tensors(folder) for folder in (out, family.chat)}
    for marker in family.format.markers:
        of_out, of_chat = (
            tensors["model.embed_tokens.weight"][oracle.vocabulary(folder)[marker]]
            for folder, tensors in rows.items()
        )
        assert torch.equal(of_out, of_chat)


@pytest.mark.parametrize("format", ["chatml-reserved", "llama-3", "mistral-v3"])
def test_markers_that_cp_never_trained_take_chat_s_rows_where_the_ratio_is_less(
    format: str, chats: Callable[..., formats.Family]
) -> None:
    family = chats(format)
    assert "marker-untrained" not in codes(checked(formats.recipe(family, 1.0)))
    recipe = formats.recipe(family, 0.5)
    finding = the("marker-untrained", checked(recipe))
    assert finding.severity is ADVICE
    assert all(repr(marker) in finding.message for marker in family.format.markers)
    fixed = with_edits(recipe, finding.edits)
    assert [*fixed["tokenizer"]["tokens"]] == list(family.format.markers)
    assert "marker-untrained" not in codes(checked(fixed))


def test_deep_tells_which_markers_cp_never_trained(chats: Callable[..., formats.Family]) -> None:
    family = chats("llama-3")
    recipe = formats.recipe(family, 0.5)
    found = [f for f in checked(recipe, deep=True).findings if f.code == "marker-untrained-row"]
    assert [f.message.split("'")[1] for f in found] == list(family.format.markers)
    assert {f.severity for f in found} == {ADVICE}
    # bos was trained, and llama-2 has no markers of its own.
    other = formats.recipe(chats("llama-2"), 0.5)
    assert "marker-untrained-row" not in codes(checked(other, deep=True))
    assert "marker-untrained-row" not in codes(checked(formats.recipe(family), deep=True))


def with_template(template: str) -> Callable[[Path], None]:
    def alter(folder: Path) -> None:
        (folder / "chat_template.jinja").write_text(template)

    return alter


def test_auto_with_two_templates_is_a_toss_up_until_one_is_written(
    changed: Callable[..., Recipe],
) -> None:
    recipe = {**changed(CP, with_template("{{ messages }} {{ 1 }}")), "chat_template": "auto"}
    finding = the("auto-template-tie", checked(recipe))
    assert finding.severity is WARNING
    assert "by chance" in finding.message
    fixed = with_edits(recipe, finding.edits)
    assert fixed["chat_template"] == zoo.LLAMA_2_TEMPLATE
    assert codes(checked(fixed), ERROR, WARNING) == []


def test_auto_may_choose_a_template_that_is_not_chat_s(
    family: Path, tmp_path: Path, changed: Callable[..., Recipe]
) -> None:
    other = with_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    recipe = changed(CP, other)
    base = shutil.copytree(family / "base", tmp_path / "base-copy")
    other(base)
    recipe["models"][BASE]["model"] = str(base)
    recipe["chat_template"] = "auto"
    finding = the("auto-template-not-chat", checked(recipe))
    assert finding.severity is WARNING
    assert str(family / "chat") in finding.fix
    fixed = with_edits(recipe, finding.edits)
    assert fixed["chat_template"] == zoo.LLAMA_2_TEMPLATE
    assert "auto-template-not-chat" not in codes(checked(fixed))


def test_a_stop_token_of_another_vocabulary_is_left_out_and_told(
    changed: Callable[..., Recipe],
) -> None:
    recipe = changed(CP, with_json("generation_config.json", eos_token_id=[2, 77, 9999]))
    found = [f for f in checked(recipe).findings if f.code == "stop-token-ignored"]
    assert {f.severity for f in found} == {ADVICE}
    assert any("77" in f.message and "▁token74" in f.message for f in found)
    assert any("9999" in f.message for f in found)


def test_an_output_without_any_stop_token_is_told(family: Path, tmp_path: Path) -> None:
    recipe = plain_recipe(family)
    for entry in recipe["models"]:
        copied = shutil.copytree(entry["model"], tmp_path / Path(entry["model"]).name)
        with_json("tokenizer_config.json", eos_token=None)(copied)
        for name in ("config.json", "generation_config.json"):
            with_json(name, eos_token_id=None)(copied)
        entry["model"] = str(copied)
    recipe["base_model"] = recipe["models"][CP]["model"]
    recipe["chat_template"] = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    assert the("no-stop-token", checked(recipe)).severity is WARNING


# --- weights ----------------------------------------------------------------------------------


def test_deep_finds_nothing_in_a_right_family(recipe: Recipe) -> None:
    seen: list[str] = []
    deep = check(
        parse_recipe(as_text(recipe), "recipe"), MergeOptions(), deep=True, on_tensor=seen.append
    )
    assert deep.findings == checked(recipe).findings
    assert sorted(seen) == sorted(oracle.stored_tensors(Path(recipe["base_model"])))


@pytest.mark.parametrize(("place", "severity"), [(CHAT, ERROR), (CP, WARNING)])
def test_deep_finds_a_vector_that_is_zero(
    place: int, severity: Severity, recipe: Recipe, tmp_path: Path
) -> None:
    base = recipe["models"][BASE]["model"]
    recipe["models"][place]["model"] = str(shutil.copytree(base, tmp_path / "copy"))
    recipe["base_model"] = recipe["models"][CP]["model"]
    assert "zero-vector" not in codes(checked(recipe))
    finding = the("zero-vector", checked(recipe, deep=True))
    assert finding.severity is severity
    assert base in finding.message


@pytest.mark.parametrize("place", [CHAT, CP])
def test_deep_finds_models_that_were_trained_apart(
    place: int, recipe: Recipe, tmp_path: Path
) -> None:
    kind = zoo.Kind("llama", 3, 32000, torch.bfloat16)
    zoo.build_family(tmp_path, {"stranger": kind}, base=["stranger"], chat=[], cp=[])
    recipe["models"][place]["model"] = str(tmp_path / "stranger")
    recipe["base_model"] = recipe["models"][CP]["model"]
    assert "not-related" not in codes(checked(recipe))
    finding = the("not-related", checked(recipe, deep=True))
    assert finding.severity is ERROR
    assert finding.place == str(tmp_path / "stranger")


def test_deep_survives_files_that_cannot_be_read(changed: Callable[..., Recipe]) -> None:
    report = checked(changed(CHAT, without_end), deep=True)
    assert the("damaged-files", report).severity is ERROR


# --- cost -------------------------------------------------------------------------------------


def test_an_adapter_is_checked_as_far_as_its_model_tells(
    family: Path, recipe: Recipe, tmp_path: Path
) -> None:
    adapter, cache = tmp_path / "adapter", {"lora_merge_cache": str(tmp_path / "cache")}
    all_of(named(CHAT, f"chat+{adapter}"), top(out_dtype="bfloat16"))(recipe)
    assert the("no-such-adapter", checked(recipe, **cache)).severity is ERROR

    model = AutoModelForCausalLM.from_pretrained(family / "chat")
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(adapter)
    report = checked(recipe, **cache)
    assert codes(report, ERROR, WARNING) == []
    stored = oracle.stored_tensors(family / "cp").values()
    assert report.cost.write == sum(tensor.nbytes for tensor in stored)
    assert codes(checked(recipe, deep=True), ERROR) == ["no-lora-cache"]
    assert codes(checked(recipe, deep=True, **cache), ERROR) == []


def test_cost_is_what_the_files_have(recipe: Recipe, tmp_path: Path) -> None:
    cost = checked(recipe).cost
    stored = oracle.stored_tensors(Path(recipe["base_model"]))
    size = sum(tensor.nbytes for tensor in stored.values())
    assert (cost.read, cost.write, cost.download) == (3 * size, size, 0)

    ratio([{"filter": "mlp", "value": 0}, {"value": 1.0}])(recipe)
    left_out = sum(tensor.nbytes for name, tensor in stored.items() if "mlp" in name)
    assert checked(recipe).cost.read == 3 * size - 2 * left_out


def test_a_disk_or_memory_too_small_is_told(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not {"disk-too-small", "memory-tight"} & {*codes(checked(recipe))}
    usage, memory = shutil.disk_usage("."), type("Memory", (), {"available": 5})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=10))
    monkeypatch.setattr("psutil.virtual_memory", memory)
    report = checked(recipe)
    assert "10 B free" in the("disk-too-small", report).message
    assert the("disk-too-small", report).severity is ERROR
    assert the("memory-tight", report).severity is WARNING
    assert "Close other programs" in the("memory-tight", report).fix


# --- what the merge will do -------------------------------------------------------------------


SHARED_RECIPES = {
    "breeze": {"padding-lost"},
    "chinese_llama2": {"pickled-weights"},
    "eeve_chat": set(),
    "ft_then_chat": set(),
    "gemma2_baku": set(),
    "llama2_ko": set(),
    "llama3_open_ko": set(),
    "llama3_to_31": set(),
    "openbio_ko": {"pickled-weights"},
    "per_layer": set(),
    "qwen3_eu": set(),
    "r1_bakeneko": set(),
    "swallow_ms": {"config-differs"},
    "swallow_mx": set(),
    "taiwan_llama2": set(),
    "taiwan_llama2_half": set(),
    "youko_half": set(),
}
"""The warnings that each gets: one row of padding, a pickle, another RoPE in chat."""


@pytest.mark.parametrize("file", zoo.MODEL_RECIPES, ids=lambda file: file.stem)
def test_shared_recipes_are_right_and_their_ratios_are_those_that_mergekit_resolves(
    file: Path, monkeypatch: pytest.MonkeyPatch, merged_by_stock: Callable[[Path], Path]
) -> None:
    text = file.read_text(encoding="utf-8")
    monkeypatch.chdir(merged_by_stock(file))
    report = checked(text)
    assert codes(report, ERROR) == []
    assert set(codes(report, WARNING)) == SHARED_RECIPES[file.stem]
    ratios, by_mergekit = ratios_of(report), resolved_by_mergekit(text)
    shared = ratios.keys() & by_mergekit.keys()
    assert {n: ratios[n] for n in shared} == {n: by_mergekit[n] for n in shared}
    # mergekit joins experts, and the output has them as cp has them.
    assert all(".mlp." in n or "_moe." in n for n in ratios.keys() ^ by_mergekit.keys())


def test_the_recipe_of_the_world_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert codes(checked((zoo.RECIPES / "world.yaml").read_text()), ERROR, WARNING) == []


@pytest.mark.parametrize(
    "change",
    [
        ratio([1.0, 0.5, 0.0]),
        ratio([0.0, 1.0]),
        all_of(top(parameters={"ratio": 0.5}), ratio({"filter": "mlp", "value": [0.25, 0.75]})),
        ratio([{"filter": "layers.1.", "value": "1e-1"}, {"filter": "*", "value": [1, 0.5]}]),
        all_of(top(parameters={"ratio": [1.0, 0.1]}), ratio([{"filter": "norm", "value": 0.3}])),
        all_of(second_chat(), top(parameters={"ratio": 0.4})),
        all_of(second_chat(ratio=[{"filter": "self_attn", "value": -1}, {"value": [0.5, 0.1]}])),
        in_slices((0, 2), (2, 3)),
        all_of(ratio([1.0, 0.5]), in_slices((0, 2), (1, 3))),
        all_of(
            lambda recipe: recipe["models"][CHAT]["parameters"].pop("ratio"),
            top(parameters={"ratio": 0.7}),
            in_slices((0, 1), (1, 3), ratio=[0.1, 0.2]),
        ),
        all_of(
            lambda recipe: recipe["models"][CHAT]["parameters"].pop("ratio"),
            in_modules(ratio=[{"filter": "layers.0.", "value": 0.5}, {"value": [1.0, 0.0]}]),
        ),
        extended,
    ],
    ids=lambda change: "",
)
def test_ratios_are_those_that_mergekit_resolves(change: Change, recipe: Recipe) -> None:
    change(recipe)
    if isinstance(recipe.get("parameters"), dict) and "models" in recipe:
        recipe["models"][CHAT]["parameters"].setdefault("ratio", 1.0)
    assert ratios_of(checked(recipe)) == resolved_by_mergekit(as_text(recipe))


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 4},
    "gemma2": {"head_dim": 4},
    "phi": {},
    "qwen2_moe": {
        "num_experts": 4,
        "moe_intermediate_size": 8,
        "shared_expert_intermediate_size": 8,
    },
    "t5": {"d_model": 16, "d_ff": 32, "num_layers": 2, "num_heads": 2, "d_kv": 8},
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_other_architectures_are_checked_too(name: str, tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    given = ARCHITECTURES[name] if name in ("gpt2", "t5") else {**sizes, **heads}
    config = AutoConfig.for_model(name, vocab_size=250, **{**given, **ARCHITECTURES[name]})
    auto = AutoModelForSeq2SeqLM if name == "t5" else AutoModelForCausalLM
    kind = zoo.Kind("llama", 2, 32000, torch.bfloat16, template=zoo.LLAMA_2_TEMPLATE)
    for role in ("base", "chat", "cp"):
        torch.manual_seed(zoo.seed_of(role))
        auto.from_config(config).bfloat16().save_pretrained(tmp_path / role)
        zoo.save_tokenizer(zoo.tokens(kind), "</s>", kind.template, tmp_path / role)
    recipe = plain_recipe(tmp_path)

    report = checked(recipe)

    assert codes(report, ERROR, WARNING) == []
    stored = oracle.stored_tensors(tmp_path / "cp")
    ratios, by_mergekit = ratios_of(report), resolved_by_mergekit(as_text(recipe))
    shared = ratios.keys() & by_mergekit.keys()
    assert {n: ratios[n] for n in shared} == {n: by_mergekit[n] for n in shared}
    # mergekit knows T5 not quite as it is stored.
    assert ratios.keys() - shared <= stored.keys()
    assert not (by_mergekit.keys() - shared) & stored.keys()
    assert report.cost.write == sum(tensor.nbytes for tensor in stored.values())
    deep = codes(checked(recipe, deep=True), ERROR)
    assert set(deep) == {"not-related"}  # each was made by itself


def ratios_of(report: Report) -> dict[str, dict[str, float]]:
    """Return the ratio of every chat model for every tensor, as check shows it."""
    plan = report.survey.plan
    assert plan is not None, report.findings
    return {t.name: {str(chat): value for chat, value in t.ratios.items()} for t in plan.tensors}


def resolved_by_mergekit(text: str) -> dict[str, dict[str, float]]:
    """Return the same out of the tasks that mergekit would run."""
    config, options = MergeConfiguration.model_validate(yaml.safe_load(text)), MergeOptions()
    architecture = get_architecture_info(config, options)
    assert config.base_model is not None
    planner = MergePlanner(config, architecture, options, config.base_model.config())
    resolved = {}
    for task in planner.plan_to_disk("nowhere"):
        if isinstance(task, SaveTensor):
            inputs = task.tensor_task.input_parameters  # type: ignore[attr-defined]
            resolved[task.tensor_name] = {
                str(model): float(values["ratio"])
                for model, values in inputs.items()
                if values["role"] == "chat"
            }
    return resolved


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Result]:
    """Return a function that runs `chatvec check` on a recipe, with its output in a pipe."""

    def run(recipe: Recipe | str | bytes, *options: str) -> Result:
        file = tmp_path / "recipe.yaml"
        content = recipe if isinstance(recipe, bytes) else as_text(recipe).encode()
        file.write_bytes(content)
        result = CliRunner().invoke(main, ["check", str(file), *options])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.mark.parametrize(
    ("change", "options", "exit_code"),
    [
        (as_it_is, (), 0),
        (as_it_is, ("--strict",), 0),
        (ratio([1.0, 0.5]), (), 0),
        (ratio([1.0, 0.5]), ("--strict",), 3),
        (top(tokeniser="x"), (), 1),
        (top(tokeniser="x"), ("--strict", "--json"), 1),
        (named(CP, "cp_extended"), ("--json",), 1),
    ],
)
def test_exit_code_tells_how_bad_it_is(
    change: Change,
    options: tuple[str, ...],
    exit_code: int,
    recipe: Recipe,
    command: Callable[..., Result],
) -> None:
    change(recipe)
    assert command(recipe, *options).exit_code == exit_code


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: [1", "is not YAML (line 1, column 6"),
        ("a: 1\nb: 2020-13-45", "is not YAML"),
        ("a: 1\n---\nb: 2\n", "is not YAML"),
        ("- 1", "is not a recipe"),
        ("", "is empty"),
        ("just words", "is not a recipe"),
        ("merge_method: ties\nmodels: []\n", "`merge_method: ties`, and chatvec only knows"),
        ("models: []\n", "has no `merge_method:`"),
        ("merge_method: chat_vector\n", "Exactly one of"),
        ("merge_method: chat_vector\nmodels: [{modell: x}]\n", "Write `model:`"),
        ("merge_method: chat_vector\nmodels: 5\n", "models is 5, which mergekit cannot read"),
        (
            "merge_method: chat_vector\nmodels: [{model: a, parameters: {ratio: {a: 1}}}]\n",
            "models[0].parameters.ratio has no `value:`",
        ),
        (
            "merge_method: chat_vector\nmodels: [{model: a}]\ntokenizer: {source: [a]}\n",
            "tokenizer.source is ['a'], which",
        ),
        ("merge_method: chat_vector\nmodels: [{model: a@b@c}]\n", "multiple @"),
        (b"merge_method: \xff\xfe", "it is not UTF-8 text"),
        ("a: " + "[" * 3000, "is not YAML"),
    ],
)
def test_what_is_no_recipe_is_one_line_and_no_traceback(
    content: str | bytes, says: str, command: Callable[..., Result]
) -> None:
    result = command(content)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("path", ["nowhere.yaml", "."])
def test_a_recipe_that_cannot_be_read_is_one_line(path: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["check", str(tmp_path / path)])
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: the recipe .* cannot be read \(.*\)\. .*\n", result.stderr)


def test_a_pipe_gets_plain_text_with_whole_lines(
    recipe: Recipe, command: Callable[..., Result]
) -> None:
    ratio([{"filter": "mlp", "value": [1.0, 0.5]}, {"value": 1.0}])(recipe)
    printed = command(recipe).stdout
    assert not re.search(r"[\x1b\u2500-\u259f]", printed)
    (row,) = [line for line in printed.splitlines() if line.startswith("cp ")]
    assert recipe["base_model"] in row
    for words in ("LlamaForCausalLM", "bfloat16", "Ratio of", "layer 1 ", "stock mergekit-yaml"):
        assert words in printed


def test_text_names_each_finding_with_its_fix(
    recipe: Recipe, command: Callable[..., Result]
) -> None:
    top(tokeniser="x")(recipe)
    printed = command(recipe).stdout
    told = [f for f in checked(recipe).findings if f.code not in TOLD_BY_DIFFERENCES]
    for finding in told:
        assert f"{finding.severity.value} {finding.code}  {finding.place}" in printed
        assert f"  {finding.message}\n  {finding.fix}\n" in printed
    counted, mended = printed.splitlines()[-2:]
    assert counted.startswith("1 error")
    assert re.fullmatch(r"`chatvec check (.*) --fix -o \1` mends unknown-key\.", mended)


def test_what_only_stock_mergekit_leaves_out_stands_in_the_table_alone(
    recipe: Recipe, command: Callable[..., Result]
) -> None:
    top(chat_template="auto")(recipe)
    told = set(TOLD_BY_DIFFERENCES) & {finding.code for finding in checked(recipe).findings}
    printed = command(recipe).stdout
    assert "stock-drops-generation-config" in told
    assert not any(code in printed for code in told)
    assert "none, with `tokenizer:` or `chat_template:`" in printed
    assert "`chatvec finish OUT`" in printed


def test_a_finding_has_the_line_where_it_stands(
    recipe: Recipe, command: Callable[..., Result]
) -> None:
    text = as_text(recipe)
    lines = text.splitlines()
    printed = command(f"{text}tokeniser: x\n").stdout
    assert f"tokeniser, line {len(lines) + 1}\n" in printed
    ratio([{"filter": "mlp", "value": 1}, {"filter": "mlp.up", "value": 2}, {"value": 1}])(recipe)
    at = next(i for i, line in enumerate(as_text(recipe).splitlines(), 1) if "mlp.up" in line)
    assert re.search(rf"filter-hidden .*ratio\[1\], line {at}\n", command(recipe).stdout)


def test_json_has_everything(recipe: Recipe, command: Callable[..., Result]) -> None:
    ratio([1.0, 0.5])(recipe)
    report = checked(recipe)

    data = json.loads(command(recipe, "--json").stdout)

    assert [model["role"] for model in data["models"]] == ["base", "chat", "cp"]
    assert [model["model"] for model in data["models"]] == [m["model"] for m in recipe["models"]]
    assert {model["rows"] for model in data["models"]} == {250}
    (by_tensor,) = data["ratios"].values()
    assert by_tensor == {name: value for name, (value,) in tensor_ratios(report).items()}
    assert data["chat"]["template"] == zoo.LLAMA_2_TEMPLATE
    assert data["chat"]["stops"][0]["token"] == "</s>"
    assert data["cost"]["write"] == report.cost.write
    assert [f["code"] for f in data["findings"]] == codes(report)
    assert {*data["findings"][0]} == {"code", "severity", "place", "message", "fix"}
    assert len(data["differences"]) >= 5


def tensor_ratios(report: Report) -> dict[str, list[float]]:
    return {name: [*values.values()] for name, values in ratios_of(report).items()}


def test_json_of_a_recipe_that_is_refused_is_whole(
    recipe: Recipe, command: Callable[..., Result]
) -> None:
    named(CHAT, "nobody")(recipe)
    data = json.loads(command(recipe, "--json").stdout)
    assert (data["ratios"], data["chat"]) == (None, None)
    assert [finding["code"] for finding in data["findings"]] == ["no-such-model"]


COMMENTED = """\
# What this makes, and from what.
merge_method: chat_vector # ours
models:
  - model: {family}/base
    parameters: {{role: base}} # the start
  - model: {family}/chat
    parameters:
      role: chat
      ratio: # by part
        - {{filter: mlp, value: 0.5}} # half
        - {{filter: mlp.up_proj, value: 0.25}} # hidden
        - {{filter: mlp.down_proj, value: 0.75}} # hidden, too
        - {{value: [1.0, 0.9, 0.8]}} # the rest
  - model: {family}/cp_extended
    parameters: {{role: cp, weight: 1}}
dtype: float16 # rounds
tokeniser: {{sources: {family}/cp_extended, pad_to_multiple: 64}} # misspelled thrice
"""


def test_fix_prints_a_recipe_that_checks_clean_and_keeps_its_comments(
    family: Path, command: Callable[..., Result]
) -> None:
    text = COMMENTED.format(family=family)
    assert command(text).exit_code == 1

    result = command(text, "--fix")

    assert result.exit_code == 0
    fixed = result.stdout
    assert codes(checked(fixed), ERROR, WARNING) == []
    recipe = yaml.safe_load(fixed)
    cp = str(family / "cp_extended")
    assert recipe["base_model"] == cp
    assert recipe["out_dtype"] == "float16"
    assert recipe["tokenizer"] == {"source": cp, "pad_to_multiple_of": 64}
    cases = recipe["models"][CHAT]["parameters"]["ratio"]
    assert [case["filter"] for case in cases[:3]] == ["mlp.up_proj", "mlp.down_proj", "mlp"]
    assert cases[-1] == {"value": [1.0, 0.9, 0.8]}
    for comment in re.findall(r"#.*", text):
        assert comment in fixed or "hidden" in comment
    assert command(fixed, "--fix").stdout == fixed


def test_fix_leaves_a_right_recipe_as_it_is(recipe: Recipe, command: Callable[..., Result]) -> None:
    text = "# fine\n" + as_text(recipe)
    result = command(text, "--fix")
    assert (result.exit_code, result.stdout) == (0, text)


def test_fix_tells_what_only_a_person_can_mend(
    recipe: Recipe, command: Callable[..., Result]
) -> None:
    ratio("half")(recipe)
    result = command(recipe, "--fix")
    assert result.exit_code == 1
    assert yaml.safe_load(result.stdout) == recipe
    assert "'half'" in result.stderr


def test_fix_of_a_recipe_with_aliases_says_what_is_left_to_do(
    family: Path, command: Callable[..., Result]
) -> None:
    recipe = plain_recipe(family)
    recipe["models"][BASE]["parameters"] = recipe["models"][CP]["parameters"] = {
        "role": "x",
        "a": 1,
    }
    text = as_text(recipe)
    assert "&id" in text
    result = command(text, "--fix")
    assert result.exit_code == 1
    assert result.stdout == text
    assert "by hand" in result.stderr


def test_fix_writes_a_file_in_utf8_and_the_recipe_itself(
    recipe: Recipe, command: Callable[..., Result], tmp_path: Path
) -> None:
    text = f"# 오늘\n{as_text(recipe)}chat_templat: auto\n"
    shown = command(text, "--fix", "--diff").stdout
    changed = [line for line in shown.splitlines() if re.match(r"[+-][^+-]", line)]
    assert changed == ["-chat_templat: auto", "+chat_template: auto"]
    file = tmp_path / "recipe.yaml"
    result = command(text, "--fix", "-o", str(file))
    assert result.stdout == ""
    assert file.read_bytes() == text.replace("templat:", "template:").encode()


def test_a_place_for_a_recipe_needs_one(recipe: Recipe, command: Callable[..., Result]) -> None:
    for option in (["-o", "x.yaml"], ["--diff"]):
        result = command(recipe, *option)
        assert result.exit_code == 2
        assert "add --fix" in result.stderr


def test_an_address_is_no_file(command: Callable[..., Result]) -> None:
    address = "https://example.org/recipe.yaml"
    result = CliRunner().invoke(main, ["check", address])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {address} is ")


def test_fix_and_json_exclude_each_other(recipe: Recipe, command: Callable[..., Result]) -> None:
    result = command(recipe, "--fix", "--json")
    assert result.exit_code == 2
    assert "--fix" in result.stderr


def test_deep_is_also_a_command(
    recipe: Recipe, command: Callable[..., Result], tmp_path: Path
) -> None:
    base = recipe["models"][BASE]["model"]
    recipe["models"][CHAT]["model"] = str(shutil.copytree(base, tmp_path / "copy"))
    assert "zero-vector" not in command(recipe).stdout
    assert "zero-vector" in command(recipe, "--deep").stdout


# --- the hub ----------------------------------------------------------------------------------


def test_models_on_the_hub_are_checked_like_those_in_folders(
    family: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "o").symlink_to(family)
    ratio([1.0, 0.5])(recipe)
    here = checked(recipe)
    text = as_text(recipe).replace(str(family), "o")
    with hub.serving(tmp_path / "shelf") as served:
        hub.ask(served, monkeypatch, tmp_path / "cache")
        there = checked(text)
    assert [(f.code, f.message.replace(str(family), "o")) for f in here.findings] == [
        (f.code, f.message) for f in there.findings
    ]
    assert [*tensor_ratios(here).values()] == [*tensor_ratios(there).values()]
    assert there.cost.download == 3 * here.cost.write  # type: ignore[operator]


@pytest.mark.parametrize(
    ("model", "code"),
    [("o/chat", "hub-unreachable"), ("o/cp", "model-gated"), ("o/nobody", "no-such-model")],
)
def test_what_the_hub_does_not_tell_leaves_the_other_checks(
    model: str,
    code: str,
    family: Path,
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "o").symlink_to(family)
    recipe["models"][CHAT]["model"] = model
    recipe["models"][CP]["model"] = recipe["base_model"] = str(family / "cp32")
    top(tokeniser={}, dtype="bfloat16")(recipe)
    under(CHAT, ratio="half")(recipe)
    with hub.serving(tmp_path, gated={"o/cp"}) as served:
        hub.ask(served, monkeypatch, tmp_path / "cache")
        served.trouble = 0 if code == "hub-unreachable" else None
        report = checked(recipe)
    assert set(codes(report)) == {code, "unknown-key", "recipe-refused", "dtype-rounds-inputs"}
    assert model in the(code, report).message
    assert "'half'" in the("recipe-refused", report).message


@pytest.mark.parametrize("name", ["chat", "chat@main"])
def test_one_model_of_the_hub_under_two_names_is_told(
    name: str, family: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "o").symlink_to(family)
    recipe["models"][BASE]["model"] = f"o/{name}"
    with hub.serving(tmp_path) as served:
        hub.ask(served, monkeypatch, tmp_path / "cache")
        recipe["models"][CHAT]["model"] = f"o/chat@{served.commit('o/chat')}"
        finding = the("same-model", checked(recipe))
    assert "the chat vector is zero" in finding.message


# --- size -------------------------------------------------------------------------------------


# `getrusage` would tell of the tests' own process, too, by which this one is started.
PEAK_OF_CHECK = """
import pathlib, re, sys
from chatvec_method.cli import main
try:
    main(["check", sys.argv[1], "--json"])
finally:
    status = pathlib.Path("/proc/self/status").read_text()
    print(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1], file=sys.stderr)
"""


@pytest.mark.parametrize("aligned", [False, True], ids=["equal", "extended"])
def test_three_models_of_70b_are_checked_in_less_than_a_gigabyte(
    aligned: bool, tmp_path: Path
) -> None:
    build_sparse_model(tmp_path / "base")
    build_sparse_model(tmp_path / "chat", tokenizer_from=tmp_path / "base")
    build_sparse_model(tmp_path / "cp", vocabulary=144640 if aligned else 128256)
    recipe = plain_recipe(tmp_path)
    if aligned:
        with_tokenizer()(recipe)
    (tmp_path / "recipe.yaml").write_text(as_text(recipe))

    process = subprocess.run(
        [sys.executable, "-c", PEAK_OF_CHECK, str(tmp_path / "recipe.yaml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    report = json.loads(process.stdout)
    assert {model["bytes"] > 141e9 for model in report["models"]} == {True}
    unexpected = {"disk-too-small", "memory-tight", "no-chat-template"}
    unexpected = {f["code"] for f in report["findings"] if f["severity"] != "advice"} - unexpected
    assert unexpected == set()
    peak_kilobytes = int(process.stderr.split()[-1])
    assert peak_kilobytes < 1e6


# --- whatever people write --------------------------------------------------------------------


ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.floats(),
    st.sampled_from(
        ["", "cp", "base", "mlp", "layers.1", "union", "a/b", "../x", "bfloat16", "x+y"]
    ),
    st.text(max_size=8),
    st.lists(st.floats(-2, 2), max_size=4),
    st.lists(
        st.fixed_dictionaries(
            {"value": st.floats(0, 1) | st.lists(st.floats(0, 1), max_size=5)},
            optional={"filter": st.sampled_from(["mlp", "lm_head", "layers.1", "*", "nope"])},
        ),
        max_size=3,
    ),
    st.dictionaries(st.sampled_from(["model", "source", "value", "filter", "x"]), st.none()),
)
ODD_KEYS = ["ratio", "role", "tokeniser", "dtype", "parameters", "slices", "models", "filter", "x"]


@st.composite
def mutated(draw: st.DrawFn, recipe: Recipe) -> Recipe:
    """Draw a recipe in which a few things are deleted, misspelled, or of another kind."""
    recipe = copy.deepcopy(recipe)
    for _ in range(draw(st.integers(1, 4))):
        place: Any = recipe
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from([*keys, None]))
            inner = None if key is None else place[key]
            if isinstance(inner, (dict, list)) and inner and draw(st.integers(0, 3)):
                place = inner
                continue
            break
        if key is None and isinstance(place, dict):
            place[draw(st.sampled_from(ODD_KEYS))] = draw(ODD_VALUES)
        elif key is None:
            place.append(draw(ODD_VALUES))
        elif draw(st.booleans()):
            place[key] = draw(ODD_VALUES)
        elif isinstance(place, dict) and draw(st.booleans()):
            place[str(key)[:-1]] = place.pop(key)
        else:
            del place[key]
        if not recipe:
            break
    return recipe


@pytest.mark.parametrize(
    "change",
    [
        as_it_is,
        all_of(extended, lambda r: r["tokenizer"].update(pad_to_multiple_of=64, tokens={})),
        all_of(
            ratio([{"filter": "mlp", "value": [1.0, 0.5]}, {"value": 1.0}]), second_chat(ratio=1)
        ),
        in_slices((0, 2), (2, 3), ratio=0.5),
        in_modules(ratio=0.5),
    ],
    ids=["plain", "extended", "filters", "slices", "modules"],
)
def test_whatever_is_written_is_a_report_or_a_message(
    change: Change, family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = plain_recipe(family)
    change(recipe)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    @settings(
        max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
    )
    @given(mutated(recipe))
    def holds(written: Recipe) -> None:
        try:
            report = checked(written)
            mended(written)
        except ChatVecError:
            return
        assert all(finding.place and finding.message and finding.fix for finding in report.findings)

    holds()


def test_every_kind_of_finding_has_a_test() -> None:
    rooms = [ROOT / "tests" / room for room in ("checks", "recipe", "vectors")]
    files = [*(file for room in rooms for file in room.glob("test_*.py"))]
    files.append(ROOT / "tests" / "test_traps.py")
    tests = "".join(file.read_text(encoding="utf-8") for file in files)
    for file in (ROOT / "chatvec_method" / "checks").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                first = node.args[0] if node.args else None
                if node.func.id in ("error", "warning", "advice", "report") and isinstance(
                    first, ast.Constant
                ):
                    assert f'"{first.value}"' in tests, f"{first.value} of {file.name}"
