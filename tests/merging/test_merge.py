"""The safe run: stock's weights, chat-ready and verified, and OUT whole or as it was."""

from __future__ import annotations

import copy
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import torch
import yaml
import zoo
from conftest import BASE, CHAT, CP, Merge, Recipe, plain_recipe
from mergekit.options import MergeOptions
from safetensors.torch import load_file, save_file
from surveying import surveyed
from transformers import AutoModelForCausalLM, AutoTokenizer
from varieties import CHANGES, adapter_as_chat, use

import chatvec_method.merging.merge as merge_module
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.survey import Survey, survey
from chatvec_method.merging.merge import MergeResult
from chatvec_method.merging.merge import merge as safe_merge
from chatvec_method.progress import Progress
from chatvec_method.recipe.file import read_recipe

SHARDS = {"out_shard_size": 20_000}


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def assert_same_weights(one: Path, other: Path) -> None:
    """Assert that two checkpoints have the same tensors, bit for bit."""
    ours, theirs = oracle.stored_tensors(one), oracle.stored_tensors(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor.view(torch.uint8), theirs[name].view(torch.uint8)), name


# --- the same weights as stock's --------------------------------------------------------------


@pytest.mark.parametrize("file", zoo.MODEL_RECIPES, ids=lambda file: file.stem)
def test_every_recipes_output_is_stocks_bit_for_bit(
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    merged_by_stock: Callable[[Path], Path],
) -> None:
    recipe = read_recipe(file)
    folder = merged_by_stock(file)
    monkeypatch.chdir(folder)

    result = safe_merge(survey(recipe, MergeOptions()), tmp_path / "merged")

    stock = folder / "stock"
    planned = oracle.stored_tensors(tmp_path / "merged")
    cp = oracle.stored_tensors(folder / recipe.raw["models"][CP]["model"])
    if ".experts.0." in "".join(cp):  # which stock mergekit joins, and only transformers 5 reads
        assert planned.keys() == cp.keys()
        ours, theirs = (oracle.checkpoint(folder) for folder in (tmp_path / "merged", stock))
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    else:
        assert_same_weights(tmp_path / "merged", stock)
    assert result.verification.tensors == len(planned)
    assert result.verification.bytes == sum(tensor.nbytes for tensor in planned.values())
    assert (tmp_path / "merged" / "mergekit_config.yml").read_text("utf-8") == recipe.text


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_recipes_may_say_is_merged_as_stock_does_and_verified(
    change: Callable[..., None],
    recipe: Recipe,
    family: Path,
    relatives: Path,
    tmp_path: Path,
    merge: Callable[..., Merge],
) -> None:
    change(recipe, family, relatives)
    cache = str(tmp_path / "cache")

    safe_merge(surveyed(recipe, lora_merge_cache=cache), tmp_path / "merged")

    adapters = ("--lora-merge-cache", f"{cache}-of-stock", "--lora-merge-dtype", "float32")
    stock = merge(recipe, *adapters, out="stock").out
    assert_same_weights(tmp_path / "merged", stock)


OPTIONS = [
    {"safe_serialization": False},
    {"safe_serialization": False, **SHARDS},
    {"async_write": True, "write_threads": 2, **SHARDS},
    {"copy_tokenizer": False},
    {"lazy_unpickle": True, "clone_tensors": True, "random_seed": 3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: next(iter(options)))
def test_mergekits_options_are_passed_on(
    options: dict[str, Any], recipe: Recipe, tmp_path: Path, merge: Callable[..., Merge]
) -> None:
    safe_merge(surveyed(recipe, **options), tmp_path / "merged")

    assert_same_weights(tmp_path / "merged", merge(recipe, out="stock").out)
    weights = [*tmp_path.glob("merged/*.bin"), *tmp_path.glob("merged/*.safetensors")]
    assert len(weights) > 1 if "out_shard_size" in options else len(weights) == 1
    assert (weights[0].suffix == ".bin") == (options.get("safe_serialization") is False)
    AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template


def test_without_a_card_the_recipe_is_still_kept_for_finish(recipe: Recipe, tmp_path: Path) -> None:
    looked = surveyed(recipe, write_model_card=False)

    safe_merge(looked, tmp_path / "out")

    assert not (tmp_path / "out" / "README.md").exists()
    assert read_recipe(tmp_path / "out" / "mergekit_config.yml").text == looked.recipe.text


# --- progress ---------------------------------------------------------------------------------


def test_progress_counts_the_outputs_bytes_and_nothing_is_printed(
    recipe: Recipe, family: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    use(recipe, family, cp="cp_extended")
    recipe["tokenizer"] = {"source": recipe["base_model"]}  # mergekit has a bar for this
    looked = surveyed(recipe)
    told: list[Progress] = []
    capfd.readouterr()

    result = safe_merge(looked, tmp_path / "out", on_progress=told.append)

    assert "".join(capfd.readouterr()) == ""
    phases = list(dict.fromkeys(progress.phase for progress in told))
    assert phases == ["fetch", "merge", "finish", "verify"]
    for phase in phases:
        steps = [progress for progress in told if progress.phase == phase]
        assert [s.done for s in steps] == sorted(s.done for s in steps)
        assert steps[-1].done == steps[-1].total
    merging = [progress.done for progress in told if progress.phase == "merge"]
    assert len(merging) == 1 + result.verification.tensors
    assert merging[-1] == result.verification.bytes


def test_merges_outside_the_main_thread(recipe: Recipe, tmp_path: Path) -> None:
    looked = surveyed(recipe)
    results: list[MergeResult] = []

    thread = threading.Thread(target=lambda: results.append(safe_merge(looked, tmp_path / "out")))
    thread.start()
    thread.join()

    assert results[0].verification.tensors == len(oracle.stored_tensors(tmp_path / "out"))


def test_a_model_that_has_changed_since_is_read_anew(
    recipe: Recipe, family: Path, tmp_path: Path
) -> None:
    for role in ("base", "chat", "cp"):
        shutil.copytree(family / role, tmp_path / role)
    recipe = plain_recipe(tmp_path)
    safe_merge(surveyed(recipe), tmp_path / "out")
    before = oracle.stored_tensors(tmp_path / "out")["model.norm.weight"]

    for file in (tmp_path / "cp").glob("*.safetensors"):
        tensors = load_file(file)
        file.unlink()
        save_file({name: 2 * tensor for name, tensor in tensors.items()}, file, {"format": "pt"})
    safe_merge(surveyed(recipe), tmp_path / "out", overwrite=True)

    after = oracle.stored_tensors(tmp_path / "out")["model.norm.weight"]
    assert not torch.equal(before, after)


# --- what OUT may be --------------------------------------------------------------------------


@pytest.fixture
def small(recipe: Recipe) -> Survey:
    return surveyed(recipe)


def refusal(looked: Survey, out: Path, *, overwrite: bool = True) -> str:
    """Return why a merge to OUT is refused, after making sure that nothing was touched."""
    around = out.parent if out.parent.is_dir() else Path("/nonexistent")
    before = contents(around)
    with pytest.raises(ChatVecError) as refused:
        safe_merge(looked, out, overwrite=overwrite)
    assert contents(around) == before
    return refused.value.message


def test_existing_model_is_replaced_only_on_request_and_as_a_whole(
    recipe: Recipe, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    safe_merge(surveyed(recipe, **SHARDS), out)
    (out / "notes.txt").write_text("mine")
    recipe["models"][CHAT]["parameters"]["ratio"] = 0.5

    message = refusal(surveyed(recipe), out, overwrite=False)
    result = safe_merge(surveyed(recipe), out, overwrite=True)

    assert str(out) in message
    assert "--overwrite" in message
    assert not (out / "notes.txt").exists()
    assert not list(out.glob("model-*.safetensors")), "shards of the old model are left"
    assert list(tmp_path.iterdir()) == [out]
    assert not result.removed_leftover
    assert not result.restored_old


def test_existing_folder_that_is_no_model_is_never_replaced(small: Survey, tmp_path: Path) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").write_text("years of work")
    assert "no model" in refusal(small, out)


def test_existing_file_is_never_replaced(small: Survey, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    assert "is a file" in refusal(small, tmp_path / "out")


def test_empty_folder_is_taken(small: Survey, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    safe_merge(small, tmp_path / "out")
    assert (tmp_path / "out" / "config.json").is_file()


def test_link_is_followed_and_stays(small: Survey, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "out").symlink_to(disk / "model")

    safe_merge(small, tmp_path / "out")

    assert (tmp_path / "out").is_symlink()
    assert (disk / "model" / "config.json").is_file()
    assert list(disk.iterdir()) == [disk / "model"]
    card = (disk / "model" / "README.md").read_text("utf-8")
    assert "# out" in card, "the card has not the name that was asked for"


def test_link_that_leads_nowhere_is_refused(small: Survey, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "out")
    with pytest.raises(ChatVecError, match="leads nowhere"):
        safe_merge(small, tmp_path / "out")


def test_root_of_a_file_system_is_refused(small: Survey) -> None:
    with pytest.raises(ChatVecError, match="root of a file system"):
        safe_merge(small, Path("/"), overwrite=True)


def own_models(family: Path, folder: Path) -> Recipe:
    for role in ("base", "chat", "cp"):
        shutil.copytree(family / role, folder / "models" / role)
    return plain_recipe(folder / "models")


PLACES: dict[str, Callable[[Path], Path]] = {
    "the folder of a model": lambda folder: folder / "models" / "cp",
    "a folder in that of a model": lambda folder: folder / "models" / "chat" / "merged",
    "a folder that holds models": lambda folder: folder / "models",
    "a model by another spelling": lambda folder: folder / "models" / ".." / "models" / "base",
    "a link to a model": lambda folder: folder / "link",
    "a folder in a link to a model": lambda folder: folder / "link" / "merged",
}


@pytest.mark.parametrize("place", PLACES)
def test_input_models_are_never_written_to(place: str, family: Path, tmp_path: Path) -> None:
    recipe = own_models(family, tmp_path)
    (tmp_path / "models" / "config.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "models" / "cp")

    message = refusal(surveyed(recipe), PLACES[place](tmp_path))

    assert "which the merge reads" in message


def test_files_that_a_model_only_links_to_are_not_replaced(family: Path, tmp_path: Path) -> None:
    recipe = own_models(family, tmp_path)
    shutil.copytree(tmp_path / "models" / "cp", tmp_path / "out")
    weights = next((tmp_path / "models" / "cp").glob("*.safetensors"))
    weights.unlink()
    weights.symlink_to(tmp_path / "out" / weights.name)
    assert weights.name in refusal(surveyed(recipe), tmp_path / "out")


def test_current_folder_and_recipe_are_not_replaced(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    safe_merge(surveyed(recipe), out)
    (out / "sub").mkdir()
    (out / "sub" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    inside = survey(read_recipe(out / "sub" / "recipe.yaml"), MergeOptions())
    monkeypatch.chdir(out / "sub")
    assert "current folder" in refusal(surveyed(recipe), out)
    monkeypatch.chdir(tmp_path)
    assert "recipe.yaml" in refusal(inside, out)


def test_output_can_be_made_again_from_the_recipe_in_it(recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "out"
    safe_merge(surveyed(recipe), out)
    before = contents(out)

    again = survey(read_recipe(out / "mergekit_config.yml"), MergeOptions())
    safe_merge(again, out, overwrite=True)

    assert contents(out) == before


# --- what goes wrong --------------------------------------------------------------------------


def failure(looked: Survey, tmp_path: Path) -> ChatVecError:
    """Return the error of a merge to a folder in new ones, after which these must be gone."""
    with pytest.raises(ChatVecError) as failed:
        safe_merge(looked, tmp_path / "new" / "folders" / "out")
    assert not (tmp_path / "new").exists()
    return failed.value


def test_method_errors_come_through_unchanged_and_leave_nothing(
    recipe: Recipe, family: Path, tmp_path: Path
) -> None:
    recipe = own_models(family, tmp_path)
    file = sorted((tmp_path / "models" / "cp").glob("*.safetensors"))[-1]
    tensors = load_file(file)
    name = next(iter(tensors))
    tensors[name].view(-1)[3] = torch.nan
    save_file(tensors, file, {"format": "pt"})

    error = failure(surveyed(recipe), tmp_path)

    assert error.message.startswith(f"{name}: the tensor of model {tmp_path / 'models' / 'cp'}")
    assert "NaN" in error.problem


def test_errors_of_others_become_one_line(
    small: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cause = KeyError("first line\nsecond line")

    def fail(*_: Any, **__: Any) -> None:
        raise cause

    monkeypatch.setattr(merge_module, "stream_weights", fail)

    error = failure(small, tmp_path)

    assert "first line" in error.message
    assert "\n" not in error.message
    assert error.__cause__ is cause


def test_out_of_memory_is_told_with_what_helps(
    small: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate_too_much(*_: Any, **__: Any) -> None:
        torch.empty(1 << 55)

    monkeypatch.setattr(merge_module, "stream_weights", allocate_too_much)
    error = failure(small, tmp_path)
    assert "out of memory" in error.problem
    assert "--out-shard-size" in error.fix


def test_problems_of_the_survey_come_before_anything_is_written(
    recipe: Recipe, tmp_path: Path
) -> None:
    recipe["models"][CHAT]["parameters"]["role"] = "cht"
    looked = surveyed(recipe)
    assert looked.problems
    assert failure(looked, tmp_path) is looked.problems[0]


def test_damaged_files_of_a_model_are_told_before_anything_is_written(
    family: Path, tmp_path: Path
) -> None:
    recipe = own_models(family, tmp_path)
    file = next((tmp_path / "models" / "base").glob("*.safetensors"))
    with file.open("rb+") as stream:
        stream.truncate(file.stat().st_size - 10)
    error = failure(surveyed(recipe), tmp_path)
    assert file.name in error.message
    assert recipe["models"][BASE]["model"] in error.message


def test_folder_that_may_not_be_written_to_is_named(small: Survey, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ChatVecError, match=str(tmp_path / "file")):
        safe_merge(small, tmp_path / "file" / "out")


def test_adapter_without_a_cache_is_told_what_to_write(
    recipe: Recipe, family: Path, relatives: Path, tmp_path: Path
) -> None:
    adapter_as_chat(recipe, family, relatives)
    error = failure(surveyed(recipe), tmp_path)
    assert "--lora-merge-cache" in error.fix


def test_recipe_is_not_changed_by_its_merge(recipe: Recipe, tmp_path: Path) -> None:
    looked = surveyed(recipe)
    before = copy.deepcopy(looked.recipe.config)
    safe_merge(looked, tmp_path / "out")
    assert looked.recipe.config == before
