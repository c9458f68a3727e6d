"""The traps of stock mergekit: what goes silently wrong, that check tells, and that its fix mends.

Each section is one trap. Where our method itself refuses the recipe, mergekit's other methods show
the trap.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import formats
import numpy as np
import oracle
import pytest
import torch
import yaml
import zoo
from checking import checked, codes, mended, the, with_edits, wrong_tensors
from click.testing import CliRunner
from conftest import BASE, CHAT, CP, FAMILY, Merge, Recipe, plain_recipe
from mergekit.config import MergeConfiguration
from mergekit.scripts import merge_raw_pytorch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from chatvec_method.checks.findings import Finding
from chatvec_method.checks.report import Severity
from chatvec_method.finishing.finish import finish

Merging = Callable[..., Merge]

KINDS = {
    "base": FAMILY["base"],
    "chat": FAMILY["chat"],
    "chat_long": zoo.Kind("llama", 3, 32256, torch.bfloat16),
    "chat_reordered": zoo.Kind("llama", 3, 32000, torch.bfloat16, reordered=True),
    "cp": FAMILY["cp"],
    "cp32": FAMILY["cp32"],
    "cp_extended": FAMILY["cp_extended"],
    "cp_reordered": zoo.Kind("llama", 3, 32000, torch.bfloat16, reordered=True),
    "cp_padded": zoo.Kind("llama", 3, 32768, torch.bfloat16, padding=6),
}
EMBEDDINGS = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the models of KINDS."""
    folder = tmp_path_factory.mktemp("traps")
    of_role = {role: [n for n in KINDS if n.startswith(role)] for role in ("base", "chat", "cp")}
    zoo.build_family(folder, KINDS, **of_role)
    return folder


@pytest.fixture
def plain(models: Path) -> Callable[..., Recipe]:
    """Return a function that makes a recipe on these models."""

    def make(chat: str = "chat", cp: str = "cp", ratio: Any = 1.0, **keys: Any) -> Recipe:
        return {
            "merge_method": "chat_vector",
            "base_model": str(models / cp),
            "models": [
                {"model": str(models / "base"), "parameters": {"role": "base"}},
                {"model": str(models / chat), "parameters": {"role": "chat", "ratio": ratio}},
                {"model": str(models / cp), "parameters": {"role": "cp"}},
            ],
            **keys,
        }

    return make


def other_method(method: str, recipe: Recipe, **parameters: Any) -> Recipe:
    """Return a recipe of another method on the same models, which come with the weight 1."""
    models = [{"model": m["model"], "parameters": {"weight": 1.0}} for m in recipe["models"]]
    return {**recipe, "merge_method": method, "models": models, "parameters": parameters}


def tensors_of(folder: Path | str) -> dict[str, torch.Tensor]:
    return oracle.stored_tensors(Path(folder))


def same(one: Path, other: Path) -> bool:
    """Tell whether two checkpoints have the same tensors, bit for bit."""
    first, second = tensors_of(one), tensors_of(other)
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def row(folder: Path | str, token: str, tensor: str = EMBEDDINGS) -> np.ndarray[Any, Any]:
    """Return a token's row of a model's embeddings, in float64."""
    weights: torch.Tensor = tensors_of(folder)[tensor]
    return weights[oracle.vocabulary(Path(folder))[token]].double().numpy()


def is_row(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> bool:
    """Tell whether a row in bfloat16 is the one that was computed in float64."""
    return bool(oracle.steps_off(torch.from_numpy(found).bfloat16(), expected).max() <= 1)


def assert_tells(finding: Finding, severity: Severity, *parts: str) -> None:
    """Assert how bad a finding is, and that it names the culprit and what to write."""
    assert finding.severity is severity
    for part in parts:
        assert part in f"{finding.place} {finding.message} {finding.fix}"


# --- 1: unknown names are ignored -------------------------------------------------------------


def test_1_a_misspelled_key_is_ignored_and_rows_are_mixed_up(
    plain: Callable[..., Recipe], merge: Merging
) -> None:
    recipe = plain(cp="cp_reordered")
    recipe["tokeniser"] = {"source": recipe["base_model"]}
    fixed = mended(recipe)

    stock = merge(recipe, out="stock")
    assert stock.exit_code == 0
    assert set(wrong_tensors(stock.out, fixed)) == {EMBEDDINGS, HEAD}

    finding = the("unknown-key", checked(recipe))
    assert_tells(finding, Severity.ERROR, "tokeniser", "`tokenizer:`")
    assert "tokeniser" not in fixed
    assert wrong_tensors(merge(fixed, out="fixed").out, fixed) == []
    assert checked(fixed).edits == ()


def test_1_a_misspelled_parameter_is_ignored_by_other_methods_and_refused_by_ours(
    plain: Callable[..., Recipe], merge: Merging
) -> None:
    recipe = plain()
    misspelled = merge(other_method("task_arithmetic", recipe, lamda=0.0), out="misspelled")
    without = merge(other_method("task_arithmetic", recipe), out="without")
    assert misspelled.exit_code == 0
    assert same(misspelled.out, without.out)

    parameters = recipe["models"][CHAT]["parameters"]
    parameters["ratios"] = parameters.pop("ratio")
    assert merge(recipe, out="ours").exit_code == 1
    finding = the("unknown-parameter", checked(recipe))
    assert_tells(finding, Severity.ERROR, "models[1].parameters", "`ratios`", "`ratio:`")
    fixed = mended(recipe)
    assert fixed == plain()
    assert wrong_tensors(merge(fixed, out="fixed").out, fixed) == []


# --- 2: settings in the wrong place -----------------------------------------------------------


def test_2_a_shared_setting_under_a_model_is_ignored_by_other_methods(
    plain: Callable[..., Recipe], merge: Merging
) -> None:
    recipe = other_method("task_arithmetic", plain())
    without = merge(recipe, out="without")
    recipe["models"][CHAT]["parameters"]["lambda"] = 0.0
    under_a_model = merge(recipe, out="under_a_model")
    assert under_a_model.exit_code == 0
    assert same(under_a_model.out, without.out)


def test_2_a_ratio_under_the_wrong_model_is_moved_to_the_chat_model(
    plain: Callable[..., Recipe], merge: Merging
) -> None:
    recipe = plain(ratio=0.5)
    recipe["models"][CP]["parameters"]["ratio"] = recipe["models"][CHAT]["parameters"].pop("ratio")

    assert merge(recipe, out="stock").exit_code == 1
    finding = the("misplaced-ratio", checked(recipe))
    assert_tells(finding, Severity.ERROR, "models[2].parameters.ratio", "cp", "role: chat")
    assert mended(recipe) == plain(ratio=0.5)


def test_2_a_shared_ratio_that_every_chat_model_overrides_never_counts(
    plain: Callable[..., Recipe], merge: Merging
) -> None:
    recipe = plain(ratio=1.0, parameters={"ratio": 0.25})
    stock = merge(recipe)
    assert stock.exit_code == 0
    assert wrong_tensors(stock.out, plain(ratio=1.0)) == []

    finding = the("ratio-never-counts", checked(recipe))
    assert_tells(finding, Severity.WARNING, "parameters.ratio", "never counts")
    fixed = with_edits(recipe, finding.edits)
    assert "ratio-never-counts" not in codes(checked(fixed))
    assert wrong_tensors(merge(fixed, out="fixed").out, plain(ratio=1.0)) == []


def test_2_a_setting_beside_parameters_is_ignored(
    plain: Callable[..., Recipe], merge: Merging
) -> None:
    recipe = plain(parameters={"ratio": 1.0})
    parameters = recipe["models"][CHAT]["parameters"]
    recipe["models"][CHAT]["ratio"] = 0.5
    del parameters["ratio"]
    stock = merge(recipe, out="stock")
    assert stock.exit_code == 0
    assert wrong_tensors(stock.out, plain(ratio=1.0)) == []

    finding = the("misplaced-key", checked(recipe))
    assert_tells(finding, Severity.ERROR, "models[1].ratio", "`ratio`", "`parameters:`")
    fixed = mended(recipe)
    assert wrong_tensors(merge(fixed, out="fixed").out, plain(ratio=0.5)) == []
    assert Severity.ERROR not in {f.severity for f in checked(fixed).findings}


# --- 3: dtype casts on load -------------------------------------------------------------------


def test_3_dtype_rounds_the_inputs_before_the_subtraction(
    plain: Callable[..., Recipe], merge: Merging
) -> None:
    recipe = plain(cp="cp32", dtype="bfloat16")
    stock = merge(recipe, out="stock")
    assert stock.exit_code == 0
    assert not correctly_rounded(stock.out, recipe)

    finding = the("dtype-rounds-inputs", checked(recipe))
    assert_tells(finding, Severity.WARNING, "dtype", "cp32 float32", "`out_dtype: bfloat16`")
    fixed = mended(recipe)
    assert fixed["out_dtype"] == "bfloat16"
    assert "dtype" not in fixed
    assert correctly_rounded(merge(fixed, out="fixed").out, fixed)


def correctly_rounded(out: Path, recipe: Recipe) -> bool:
    """Tell whether all but one element in 100 000 are the correctly rounded sum."""
    expected = oracle.expected_output(Path(), recipe)
    steps = [oracle.steps_off(t, expected[name]).ravel() for name, t in tensors_of(out).items()]
    return bool(np.mean(np.concatenate(steps) > 0) <= 1e-5)


# --- 4: vocabularies of one size with other ids -----------------------------------------------


def test_4_vocabularies_of_one_size_are_merged_by_position(
    plain: Callable[..., Recipe], merge: Merging
) -> None:
    recipe = plain(cp="cp_reordered")
    right = {**recipe, "tokenizer": {"source": recipe["base_model"]}}
    stock = merge(recipe, out="stock")
    assert stock.exit_code == 0
    assert set(wrong_tensors(stock.out, right)) == {EMBEDDINGS, HEAD}

    found = [f for f in checked(recipe).findings if f.code == "vocabulary-order"]
    assert {Path(finding.place).name for finding in found} == {"base", "chat"}
    assert_tells(found[0], Severity.ERROR, "▁token", "cp", f"source: {recipe['base_model']}")
    fixed = mended(recipe)
    assert fixed == right
    assert wrong_tensors(merge(fixed, out="fixed").out, right) == []


def test_4_a_tokenizer_that_does_not_load_is_taken_for_that_of_base_model(
    plain: Callable[..., Recipe], models: Path, merge: Merging, tmp_path: Path
) -> None:
    recipe = plain(chat="chat_reordered", tokenizer={"source": str(models / "cp")})
    broken = {**recipe, "models": [dict(model) for model in recipe["models"]]}
    broken["models"][CHAT]["model"] = str(tmp_path / "broken")
    shutil.copytree(models / "chat_reordered", tmp_path / "broken")
    (tmp_path / "broken" / "tokenizer.json").write_text("{}")

    stock = merge(broken, out="stock")
    assert stock.exit_code == 0
    assert set(wrong_tensors(stock.out, recipe)) == {EMBEDDINGS, HEAD}

    finding = the("tokenizer-unreadable", checked(broken))
    assert_tells(finding, Severity.ERROR, str(tmp_path / "broken"), "Download it again")
    # The fix is the tokenizer of the model as it was published.
    assert "tokenizer-unreadable" not in codes(checked(recipe))
    assert wrong_tensors(merge(recipe, out="fixed").out, recipe) == []


# --- 5: tokens that a model lacks -------------------------------------------------------------


def test_5_tokens_that_only_cp_has_keep_its_rows(
    plain: Callable[..., Recipe], models: Path, merge: Merging
) -> None:
    cp = str(models / "cp_extended")
    recipe = plain(cp="cp_extended", tokenizer={"source": cp})
    out = merge(recipe).out
    assert is_row(row(out, "새5"), row(cp, "새5"))

    finding = the("tokens-of-cp", checked(recipe))
    assert_tells(finding, Severity.ADVICE, "70 tokens", "stay cp's", "Nothing")


def test_5_tokens_that_chat_lacks_get_what_cp_learnt_twice(merge: Merging, tmp_path: Path) -> None:
    kinds = {
        "base": zoo.Kind("llama", 3, 32256, torch.bfloat16),
        "chat": KINDS["chat"],
        "cp": zoo.Kind("llama", 3, 40960, torch.bfloat16),
    }
    zoo.build_family(tmp_path, kinds, base=["base"], chat=["chat"], cp=["cp"])
    base, cp, tokens = tmp_path / "base", str(tmp_path / "cp"), ["새0", "새1"]
    recipe = {**plain_recipe(tmp_path), "tokenizer": {"source": cp}}
    stock = merge(recipe, out="stock")
    assert stock.exit_code == 0
    for token in tokens:
        twice = row(cp, token) + (row(cp, token) - row(base, token))
        assert is_row(row(stock.out, token), twice)

    finding = the("tokens-without-chat", checked(recipe))
    assert_tells(finding, Severity.WARNING, "chat lacks 2 tokens", "cp + r·(cp - base)", "force")
    fixed = mended(recipe)
    assert fixed["tokenizer"]["tokens"] == {
        token: {"source": cp, "force": True} for token in tokens
    }
    out = merge(fixed, out="fixed").out
    assert all(is_row(row(out, token), row(cp, token)) for token in tokens)
    assert "tokens-without-chat" not in codes(checked(fixed))


def test_5_tokens_of_chat_and_cp_alone_take_a_vector_that_base_has_no_part_in(
    plain: Callable[..., Recipe], models: Path, merge: Merging
) -> None:
    cp, chat, token = str(models / "cp_extended"), str(models / "chat_long"), "새1"
    recipe = plain(chat="chat_long", cp="cp_extended", ratio=0.5, tokenizer={"source": cp})
    stock = merge(recipe, out="stock")
    assert stock.exit_code == 0
    mixed = row(cp, token) + 0.5 * (row(chat, token) - row(cp, token))
    assert is_row(row(stock.out, token), mixed)

    finding = the("tokens-without-base", checked(recipe))
    assert_tells(finding, Severity.ADVICE, repr(token), "cp + r·(chat - cp)", f"source: {chat}")
    fixed = with_edits(recipe, finding.edits)
    assert is_row(row(merge(fixed, out="fixed").out, token), row(chat, token))
    assert "tokens-without-base" not in codes(checked(fixed))


# --- 6: padded rows ---------------------------------------------------------------------------


def test_6_rows_that_pad_are_lost_and_one_line_keeps_them(
    plain: Callable[..., Recipe], models: Path, merge: Merging
) -> None:
    cp = models / "cp_padded"
    recipe = plain(cp="cp_padded", tokenizer={"source": str(cp)})
    stock = merge(recipe, out="stock")
    assert stock.exit_code == 0
    assert len(tensors_of(cp)[EMBEDDINGS]) == 256
    assert len(tensors_of(stock.out)[EMBEDDINGS]) == 250

    finding = the("padding-lost", checked(recipe))
    assert_tells(finding, Severity.WARNING, "256 rows for 250 tokens", "pad_to_multiple_of: 256")
    fixed = mended(recipe)
    out = merge(fixed, out="fixed").out
    assert checked(fixed).edits == ()
    rows = tensors_of(out)[EMBEDDINGS]
    assert len(rows) == AutoConfig.from_pretrained(out).vocab_size == 256
    expected = oracle.expected_output(Path(), fixed)[EMBEDDINGS]
    assert oracle.steps_off(rows[:250], expected).max() <= 1


# --- 7: truncated embeddings ------------------------------------------------------------------


def test_7_truncated_embeddings_have_fewer_rows_than_the_config_says(
    plain: Callable[..., Recipe], models: Path, merge: Merging
) -> None:
    recipe = plain(cp="cp_extended")
    linear = other_method("linear", recipe)
    stock = merge(linear, "--unsafe-truncate-embeddings", out="stock")
    assert stock.exit_code == 0
    assert len(tensors_of(stock.out)[EMBEDDINGS]) == 250
    assert AutoConfig.from_pretrained(stock.out).vocab_size == 320

    report = checked(recipe, unsafe_truncate_embeddings=True)
    finding = the("truncated-embeddings", report)
    assert_tells(finding, Severity.ERROR, "--unsafe-truncate-embeddings", "Leave the option out")
    fixed = with_edits(recipe, report.edits)
    assert fixed["tokenizer"] == {"source": str(models / "cp_extended")}
    assert "truncated-embeddings" not in codes(checked(fixed))
    assert wrong_tensors(merge(fixed, out="fixed").out, fixed) == []


# --- 8: tied embeddings -----------------------------------------------------------------------


def tied(model: Path, folder: Path) -> Path:
    """Write a copy of a model whose embeddings are the head, too."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    copy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    copy.config.tie_word_embeddings = True
    copy.tie_weights()
    copy.save_pretrained(folder)
    return folder


def test_8_a_filter_for_the_head_does_nothing_where_all_are_tied(
    plain: Callable[..., Recipe], models: Path, merge: Merging, tmp_path: Path
) -> None:
    ratio = [{"filter": "lm_head", "value": 0.0}, {"value": 1.0}]
    recipe = plain(ratio=ratio)
    for model in recipe["models"]:
        model["model"] = str(tied(Path(model["model"]), tmp_path / Path(model["model"]).name))
    recipe["base_model"] = recipe["models"][CP]["model"]
    stock = merge(recipe, out="stock")
    assert stock.exit_code == 0
    assert HEAD not in tensors_of(stock.out)
    embeddings = tensors_of(stock.out)[EMBEDDINGS]
    assert not torch.equal(embeddings, tensors_of(recipe["base_model"])[EMBEDDINGS])

    finding = the("filter-matches-nothing", checked(recipe))
    assert_tells(finding, Severity.ERROR, "lm_head", "tied", "`filter: embed_tokens`")
    fixed = mended(recipe)
    assert fixed["models"][CHAT]["parameters"]["ratio"] == [{"value": 1.0}]
    assert wrong_tensors(merge(fixed, out="fixed").out, fixed) == []

    # What the filter was for: cp's head, which is its embeddings, kept.
    fixed["models"][CHAT]["parameters"]["ratio"].insert(0, {"filter": "embed_tokens", "value": 0})
    kept = tensors_of(merge(fixed, out="kept").out)[EMBEDDINGS]
    assert torch.equal(kept, tensors_of(recipe["base_model"])[EMBEDDINGS])


def test_8_a_head_is_written_that_a_tied_config_never_uses(
    plain: Callable[..., Recipe], models: Path, merge: Merging, tmp_path: Path
) -> None:
    recipe = plain()
    recipe["base_model"] = str(tied(models / "cp", tmp_path / "tied"))
    recipe["models"][CP]["model"] = recipe["base_model"]
    out = merge(recipe).out
    written = tensors_of(out)[HEAD]
    assert AutoConfig.from_pretrained(out).tie_word_embeddings
    assert not torch.equal(head_by_config(out), written)

    finding = the("tied-head", checked(recipe))
    assert_tells(finding, Severity.ADVICE, "tie_word_embeddings", "tied", "`chatvec finish`")
    finish(out, checked(recipe).survey)
    assert torch.equal(head_by_config(out), written)
    cp, base, chat = (tensors_of(recipe["models"][i]["model"]) for i in (CP, BASE, CHAT))
    head = cp[EMBEDDINGS].double() + chat[HEAD].double() - base[HEAD].double()
    assert oracle.steps_off(written, head.numpy()).max() <= 1


def head_by_config(folder: Path) -> torch.Tensor:
    """Return the head of a loaded model, once something has tied what the config says is tied.

    transformers finds both in the files and leaves the head alone, until for example a token is
    added; other programs go by the config at once.
    """
    model = load(folder)
    model.tie_weights()
    head: torch.Tensor = model.get_output_embeddings().weight
    return head


# --- 9: no base_model -------------------------------------------------------------------------


def test_9_without_base_model_config_and_tokenizer_are_those_of_any_model(
    plain: Callable[..., Recipe], models: Path, merge: Merging
) -> None:
    recipe = plain()
    del recipe["base_model"]
    assert merge(other_method("linear", recipe), out="stock").exit_code == 0
    assert {first_of(f"a{i}", f"b{i}") for i in range(64)} == {"a", "b"}

    assert merge(recipe, out="ours").exit_code == 1
    finding = the("no-base-model", checked(recipe))
    assert_tells(finding, Severity.ERROR, "base_model", "by chance", f"`base_model: {models}/cp`")
    fixed = mended(recipe)
    assert fixed == plain()
    assert wrong_tensors(merge(fixed, out="fixed").out, fixed) == []


def first_of(*names: str) -> str:
    """Return the first letter of the model whose config mergekit takes."""
    models = [{"model": name} for name in names]
    config = MergeConfiguration.model_validate({"merge_method": "linear", "models": models})
    return str(config.referenced_models()[0])[0]


# --- 10: numbers that are none ----------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), True])
def test_10_nan_and_true_pass_for_numbers(
    value: Any, plain: Callable[..., Recipe], merge: Merging
) -> None:
    linear = other_method("linear", plain())
    linear["models"][CHAT]["parameters"]["weight"] = value
    stock = merge(linear, out="stock")
    assert stock.exit_code == 0
    has_nan = any(tensor.isnan().any() for tensor in tensors_of(stock.out).values())
    assert has_nan is (value is not True)

    recipe = plain(ratio=value)
    assert merge(recipe, out="ours").exit_code == 1
    report = checked(recipe)
    (finding,) = report.of(Severity.ERROR)
    assert_tells(finding, Severity.ERROR, recipe["models"][CHAT]["model"], str(value), "ratio: 1.0")
    fixed = plain(ratio=1.0)
    assert checked(fixed).of(Severity.ERROR) == []
    assert wrong_tensors(merge(fixed, out="fixed").out, fixed) == []


# --- 11: mergekit-pytorch ---------------------------------------------------------------------


def test_11_mergekit_pytorch_takes_of_a_list_only_the_first_number(tmp_path: Path) -> None:
    names = ("base", "chat", "cp")
    values = {"base": 1.0, "chat": 2.0, "cp": 10.0}
    for name in names:
        layers = {f"layers.{i}.weight": torch.full((2, 2), values[name]) for i in range(3)}
        save_file(layers, tmp_path / f"{name}.safetensors", {"format": "pt"})
    files = {name: str(tmp_path / f"{name}.safetensors") for name in names}
    linear = {
        "merge_method": "linear",
        "parameters": {"normalize": False},
        "models": [
            {"model": files["chat"], "parameters": {"weight": [0.0, 1.0]}},
            {"model": files["cp"], "parameters": {"weight": 1.0}},
        ],
    }
    assert merge_files(linear, tmp_path / "stock") == [10.0, 10.0, 10.0]

    recipe: Recipe = {
        "merge_method": "chat_vector",
        "models": [{"model": files[role], "parameters": {"role": role}} for role in names],
    }
    recipe["models"][CHAT]["parameters"]["ratio"] = [0.0, 0.5, 1.0]
    with pytest.raises(AssertionError, match="knows no layers"):
        merge_files(recipe, tmp_path / "ours")
    found = [finding for finding in checked(recipe).findings if files["chat"] in finding.message]
    assert_tells(found[0], Severity.ERROR, "`mergekit-pytorch`", "filters in place of lists")

    filters = [{"filter": f"layers.{i}.", "value": i / 2} for i in range(3)]
    recipe["models"][CHAT]["parameters"]["ratio"] = filters
    assert merge_files(recipe, tmp_path / "fixed") == [10.0, 10.5, 11.0]


def merge_files(recipe: Recipe, out: Path) -> list[float]:
    """Run `mergekit-pytorch` and return the first element of every tensor."""
    file = out.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(recipe))
    result = CliRunner().invoke(merge_raw_pytorch.main, [str(file), str(out)])
    assert result.exit_code == 0, result.output
    merged = tensors_of(out)
    return [float(merged[name][0, 0]) for name in sorted(merged)]


# --- 12: no template, no stop token -----------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, {"stock-has-no-template", "stock-does-not-stop"}),
        (
            {"chat_template": "auto"},
            {"stock-drops-generation-config", "stock-does-not-stop"},
        ),
    ],
    ids=["plain", "auto"],
)
def test_12_the_output_of_stock_mergekit_talks_on_and_finish_makes_it_stop(
    keys: Recipe, told: set[str], merge: Merging, tmp_path: Path
) -> None:
    family = formats.build(tmp_path / "family", "llama-3")
    recipe = {**formats.recipe(family), **keys}
    out = merge(recipe).out
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert (tokenizer.chat_template is None) is not keys
    assert (out / "generation_config.json").exists() is not bool(keys)
    said = formats.speak(load(out), tokenizer, family.format.template)
    assert said[: len(family.format.answer)] == family.format.answer
    assert len(said) == 8

    report = checked(recipe)
    assert told <= set(codes(report, Severity.ADVICE))
    for code in told:
        assert_tells(the(code, report), Severity.ADVICE, "`chatvec finish`")
    finish(out, report.survey)
    assert formats.speak(load(out), AutoTokenizer.from_pretrained(out)) == family.format.answer


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)


# --- 13: configs that differ ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("rope_theta", 1e6, "1000000"),
        ("rope_scaling", {"rope_type": "linear", "factor": 4.0}, "'factor': 4.0"),
        ("sliding_window", 64, "64"),
        ("rms_norm_eps", 1e-3, "0.001"),
        ("hidden_act", "gelu", "gelu"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_13_configs_that_differ_are_not_looked_at(
    field: str, value: Any, shown: str, merge: Merging, tmp_path: Path
) -> None:
    kind = zoo.Kind("mistral", 3, 32000, torch.bfloat16)
    names = ("base", "chat", "cp")
    zoo.build_family(tmp_path, dict.fromkeys(names, kind), **{name: [name] for name in names})
    recipe = plain_recipe(tmp_path)
    assert "config-differs" not in codes(checked(recipe))

    chat = with_config(tmp_path / "chat", tmp_path / "other", **{field: value})
    recipe["models"][CHAT]["model"] = str(chat)
    stock = merge(recipe)
    assert stock.exit_code == 0
    assert saved(stock.out, field) == saved(tmp_path / "cp", field) != saved(chat, field)

    finding = the("config-differs", checked(recipe))
    assert_tells(finding, Severity.WARNING, str(chat), shown, str(tmp_path / "cp"), "`base_model:`")


def with_config(model: Path, folder: Path, **fields: Any) -> Path:
    """Write a copy of a model with other values in its config."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    if "rope_theta" in fields or "rope_scaling" in fields:  # written as before transformers 5
        config.pop("rope_parameters", None)
        config.setdefault("rope_theta", 1e4)
    (folder / "config.json").write_text(json.dumps({**config, **fields}))
    return folder


def saved(folder: Path, field: str) -> Any:
    config = AutoConfig.from_pretrained(folder)
    return config.rope_parameters if field.startswith("rope") else getattr(config, field, None)


def test_13_another_rope_is_no_matter_where_queries_and_keys_are_left_out(
    plain: Callable[..., Recipe], models: Path, merge: Merging, tmp_path: Path
) -> None:
    recipe = plain()
    chat = str(with_config(models / "chat", tmp_path / "other", rope_theta=1e6))
    recipe["models"][CHAT]["model"] = chat
    assert "`- {filter: q_proj, value: 0}`" in the("config-differs", checked(recipe)).fix

    left_out = [{"filter": name, "value": 0} for name in ("q_proj", "k_proj")]
    recipe["models"][CHAT]["parameters"]["ratio"] = [*left_out, {"value": 1.0}]
    assert "config-differs" not in codes(checked(recipe))
    out = merge(recipe).out
    assert wrong_tensors(out, recipe) == []
    name = "model.layers.1.self_attn.q_proj.weight"
    assert torch.equal(tensors_of(out)[name], tensors_of(models / "cp")[name])


def test_13_heads_that_are_cut_differently_are_an_error(
    plain: Callable[..., Recipe], models: Path, merge: Merging, tmp_path: Path
) -> None:
    recipe = plain()
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 4}
    chat = with_config(models / "chat", tmp_path / "other", **heads)
    recipe["models"][CHAT]["model"] = str(chat)
    assert merge(recipe).exit_code == 0

    found = [f for f in checked(recipe).findings if f.code == "config-differs"]
    assert any("num_attention_heads" in f.place for f in found)
    assert {f.severity for f in found} == {Severity.ERROR}


# --- 14: NaN in an input ----------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_14_what_is_not_finite_in_an_input_goes_to_the_output(
    value: float, plain: Callable[..., Recipe], models: Path, merge: Merging, tmp_path: Path
) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    chat = damaged(models / "chat", tmp_path / "damaged", name, value)
    recipe = plain()
    recipe["models"][CHAT]["model"] = str(chat)
    stock = merge(other_method("linear", recipe), out="stock")
    assert stock.exit_code == 0
    assert not tensors_of(stock.out)[name].isfinite().all()

    assert merge(recipe, out="ours").exit_code == 1
    assert "not-finite" not in codes(checked(recipe))
    finding = the("not-finite", checked(recipe, deep=True))
    assert_tells(finding, Severity.ERROR, str(chat), name, "Download or convert it again")
    # The fix is the checkpoint as it was published.
    fixed = plain()
    assert "not-finite" not in codes(checked(fixed, deep=True))
    assert wrong_tensors(merge(fixed, out="fixed").out, fixed) == []


def damaged(model: Path, folder: Path, name: str, value: float) -> Path:
    """Write a copy of a model in which one element of a tensor is another."""
    shutil.copytree(model, folder)
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        if name in tensors:
            tensors[name].view(-1)[7] = value
            save_file(tensors, file, {"format": "pt"})
    return folder


def test_every_finding_names_where_it_is_and_what_to_write(
    plain: Callable[..., Recipe], models: Path
) -> None:
    recipes = [plain(cp="cp_extended"), plain(dtype="bfloat16"), plain(cp="cp_reordered")]
    for recipe in recipes:
        for finding in checked(recipe).findings:
            assert finding.place
            assert finding.message.endswith(".")
            assert finding.fix
