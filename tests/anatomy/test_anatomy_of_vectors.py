"""The anatomy of recipes with chat vectors as files, beside that of base and chat."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import formats
import pytest
from click.testing import CliRunner
from conftest import BASE, CHAT, Recipe
from mergekit.common import ModelReference
from mergekit.options import MergeOptions
from safetensors.torch import load_file, save_file
from surveying import surveyed

from chatvec_method.anatomy import Anatomy, Sums, examine, summary
from chatvec_method.cli import main
from chatvec_method.vectors.extract import extract

ALONE = "vector_norm moved_share largest_share swallowed_share directions_share".split()
OF_BOTH = "other_norm other_relative cosine conflict weighted_conflict".split()


def anatomy_of(recipe: Recipe) -> Anatomy:
    return examine(surveyed(recipe), rank=3)


def extracted(base: str, chat: str, out: Path) -> str:
    models = (ModelReference.model_validate(name) for name in (base, chat))
    extract(*models, out, 32, MergeOptions())
    return str(out)


def by_vector(recipe: Recipe, folder: Path, *, base: bool) -> Recipe:
    """Return a recipe with a vector in the place of its chat model, with or without base."""
    recipe = copy.deepcopy(recipe)
    pair = (recipe["models"][place]["model"] for place in (BASE, CHAT))
    vector = recipe["models"][CHAT]
    vector["model"] = extracted(*pair, folder / "vector")
    vector["parameters"]["role"] = "vector"
    if not base:
        del recipe["models"][BASE]
    return recipe


def assert_alike(own: Sums, other: Sums, names: list[str], place: str) -> None:
    for name in names:
        expected = pytest.approx(getattr(other, name), rel=1e-5, abs=1e-7, nan_ok=True)
        assert getattr(own, name) == expected, (place, name)


def test_beside_its_base_a_vector_has_the_figures_of_base_and_chat(
    recipe: Recipe, tmp_path: Path
) -> None:
    recipe["models"][CHAT]["parameters"]["ratio"] = 0.3
    pair = anatomy_of(recipe)
    own = anatomy_of(by_vector(recipe, tmp_path, base=True))
    assert not own.alone
    for tensor, other in zip(own.tensors, pair.tensors, strict=True):
        (sums,), (others,) = tensor.sums.values(), other.sums.values()
        names = [*ALONE, *OF_BOTH, "base_norm", "vector_relative"]
        assert_alike(sums, others, names, tensor.planned.name)
    (moves, *_), (others_moves, *_) = own.tokens, pair.tokens
    assert [m.row for m in moves.most] == [m.row for m in others_moves.most]
    assert moves.untrained_by_cp == others_moves.untrained_by_cp


@pytest.mark.usefixtures("without_numba")
def test_alone_a_vector_has_its_norms_and_shares_and_one_line_of_what_is_missing(
    recipe: Recipe, tmp_path: Path
) -> None:
    pair = anatomy_of(recipe)
    without = by_vector(recipe, tmp_path, base=False)
    own = anatomy_of(without)
    for tensor, other in zip(own.tensors, pair.tensors, strict=True):
        (sums,), (others,) = tensor.sums.values(), other.sums.values()
        assert_alike(sums, others, ALONE, tensor.planned.name)
    said = [sentence for sentence in summary(own) if "is not shown" in sentence]
    assert len(said) == 1
    base = recipe["models"][BASE]["model"]
    assert f"{{model: {base}, parameters: {{role: base}}}}" in said[0]
    assert any("of the norm of" in sentence for sentence in summary(own))

    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(without), encoding="utf-8")
    told = json.loads(CliRunner().invoke(main, ["anatomy", str(file), "--json"]).stdout)
    (vector,) = told["vectors"]
    assert {vector["whole"][name] for name in (*OF_BOTH, "base_norm")} == {None}
    whole = pair.whole(pair.pairs[0])
    assert vector["whole"]["vector_norm"] == pytest.approx(whole.vector_norm, rel=1e-5)
    assert vector["relative_to"] == recipe["base_model"]
    assert "role: base" in vector["not_compared"]
    assert told["heuristic_schedules"] == {}
    assert {move["by_cp"] for moves in told["tokens"] for move in moves["most"]} == {None}
    run = CliRunner().invoke(main, ["anatomy", str(file), "--png", str(tmp_path)])
    assert run.exit_code == 0, run.output
    assert "share of ‖τ‖²" in run.stdout
    assert "λ" not in run.stdout
    assert (tmp_path / "anatomy.png").stat().st_size > 1000


@pytest.mark.usefixtures("without_numba")
def test_a_vector_of_another_base_is_not_compared_with_what_cp_has_changed(
    recipe: Recipe, tmp_path: Path
) -> None:
    own = by_vector(recipe, tmp_path, base=True)
    kept = tmp_path / "vector" / "fingerprint.safetensors"
    rows = load_file(kept)
    rows[min(rows)][0] += 1
    save_file(rows, kept, {"format": "pt"})
    (reason,) = anatomy_of(own).alone.values()
    assert "with another base" in reason


@pytest.mark.usefixtures("without_numba")
def test_vectors_are_compared_with_each_other_and_with_chats(
    family: Path, recipe: Recipe, tmp_path: Path
) -> None:
    second = {"model": str(family / "chat2"), "parameters": {"role": "chat", "ratio": 0.5}}
    pair = anatomy_of({**recipe, "models": [*recipe["models"], second]})
    wanted = pair.whole(pair.pairs[2])
    mixed = by_vector(recipe, tmp_path, base=True)
    mixed["models"].append(second)
    both = by_vector(recipe, tmp_path / "both", base=False)
    vector = extracted(recipe["models"][BASE]["model"], second["model"], tmp_path / "second")
    both["models"].append({"model": vector, "parameters": {"role": "vector", "ratio": 0.5}})
    for own in (anatomy_of(mixed), anatomy_of(both)):
        sums = own.whole(own.pairs[2])
        assert_alike(sums, wanted, ["vector_norm", *OF_BOTH[:1], *OF_BOTH[2:]], own.pairs[2])


@pytest.mark.usefixtures("without_numba")
@pytest.mark.parametrize("extended", [False, True], ids=["same", "extended"])
def test_rows_of_tokens_that_chat_added_count_as_a_merge_counts_them(
    extended: bool, tmp_path: Path
) -> None:
    recipe = formats.recipe(formats.build(tmp_path / "models", "chatml", extended=extended))
    names = {entry["parameters"]["role"]: entry["model"] for entry in recipe["models"]}
    vector = extracted(names["base"], names["chat"], tmp_path / "vector")
    # Tokens come from the vector, too.
    own = json.loads(json.dumps(recipe).replace(json.dumps(names["chat"]), json.dumps(vector)))
    for entry in own["models"]:
        if entry["model"] == vector:
            entry["parameters"]["role"] = "vector"
    for one, other in zip(anatomy_of(own).tensors, anatomy_of(recipe).tensors, strict=True):
        (sums,), (others,) = one.sums.values(), other.sums.values()
        assert_alike(sums, others, ["vector_norm", "other_norm", "cosine"], one.planned.name)
