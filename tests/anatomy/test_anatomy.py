"""The anatomy against a float64 numpy computation that reads the checkpoints itself."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import torch
import yaml
import zoo
from click.testing import CliRunner
from conftest import CHAT, CP, FAMILY, ROOT, Recipe, plain_recipe
from PIL import Image
from safetensors.torch import load_file, save_file
from surveying import surveyed

from chatvec_method.anatomy import (
    Anatomy,
    Sums,
    examine,
    largest,
    passes,
    stream,
    suggested_schedule,
    summary,
    sums,
)
from chatvec_method.anatomy.pictures import pictures
from chatvec_method.anatomy.spectrum import leading_energy
from chatvec_method.cli import main
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.plan import KINDS

Arrays = dict[str, oracle.Array]
FIGURES = (
    "base_norm vector_norm vector_relative other_norm other_relative cosine conflict "
    "weighted_conflict moved_share largest_share swallowed_share directions_share"
).split()
RANK = 3
EMBEDDING = "model.embed_tokens.weight"


def anatomy_of(recipe: Recipe, rank: int | None = None) -> Anatomy:
    return examine(surveyed(recipe), rank=rank)


# --- the right answer -------------------------------------------------------------------------


def expected_figures(
    base: Arrays, chat: Arrays, other: Arrays, ratio: float | None, dtype: torch.dtype
) -> dict[str, float]:
    """Return the figures of some tensors together; `ratio` is None between two chat vectors."""
    energy: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    for name in base:
        b, tau, lam = base[name], chat[name] - base[name], other[name] - base[name]
        squares = np.sort(np.square(tau).ravel())[::-1]
        energy["base"] += np.square(b).sum()
        energy["vector"] += squares.sum()
        energy["other"] += np.square(lam).sum()
        energy["product"] += (tau * lam).sum()
        energy["overlap"] += np.abs(tau * lam).sum()
        energy["opposed"] += np.abs(tau * lam)[np.sign(tau) * np.sign(lam) < 0].sum()
        energy["largest"] += squares[: max(1, round(0.01 * tau.size))].sum()
        if tau.ndim > 1:
            values = np.linalg.svd(tau, compute_uv=False)
            energy["directions"] += np.square(values[..., :RANK]).sum()
            energy["matrices"] += squares.sum()
        count["elements"] += tau.size
        count["moved"] += (tau != 0).sum()
        count["opposed"] += (np.sign(tau) * np.sign(lam) < 0).sum()
        if ratio:
            kept = torch.from_numpy(other[name]).to(dtype)
            same = oracle.steps_off(kept, other[name] + ratio * tau) == 0
            count["swallowed"] += (same & (tau != 0)).sum()
    norms = {key: math.sqrt(energy[key]) for key in ("base", "vector", "other")}
    cross = norms["vector"] * norms["other"]
    figures = {
        "base_norm": norms["base"],
        "vector_norm": norms["vector"],
        "vector_relative": norms["vector"] / norms["base"],
        "other_norm": norms["other"],
        "other_relative": norms["other"] / norms["base"],
        "cosine": energy["product"] / cross if cross else math.nan,
        "conflict": count["opposed"] / count["elements"],
        "weighted_conflict": energy["opposed"] / energy["overlap"] if cross else math.nan,
        "moved_share": count["moved"] / count["elements"],
    }
    if ratio is not None:
        figures["largest_share"] = energy["largest"] / energy["vector"]
        figures["swallowed_share"] = count["swallowed"] / count["moved"] if ratio else math.nan
        if energy["matrices"]:
            figures["directions_share"] = energy["directions"] / energy["matrices"]
    return figures


def assert_figures(sums: Sums, expected: dict[str, float], place: str) -> None:
    for name, figure in expected.items():
        measured = getattr(sums, name)
        assert measured == pytest.approx(figure, rel=1e-5, abs=1e-5, nan_ok=True), (place, name)


def assert_anatomy(anatomy: Anatomy, models: dict[str, Arrays], dtype: torch.dtype) -> None:
    """Assert that all figures of every tensor, layer and kind are the right ones."""
    roles = anatomy.roles
    base = models[str(roles.base)]
    planned = {tensor.planned.name: tensor.planned for tensor in anatomy.tensors}
    assert planned.keys() == models[str(roles.cp)].keys()
    for chat, other in anatomy.pairs:
        ratios = {t.ratios[chat] for t in planned.values()} if other == roles.cp else {None}
        (ratio,) = ratios

        def expected(
            names: list[str], chat: Any = chat, other: Any = other, ratio: float | None = ratio
        ) -> dict[str, float]:
            parts = [{n: models[str(m)][n] for n in names} for m in (roles.base, chat, other)]
            return expected_figures(*parts, ratio, dtype)

        pair = (chat, other)
        for tensor in anatomy.tensors:
            assert tensor.sums[pair].elements == base[tensor.planned.name].size
            assert_figures(tensor.sums[pair], expected([tensor.planned.name]), tensor.planned.name)
        for layer, by_layer in anatomy.by_layer(pair).items():
            names = [name for name in planned if f".layers.{layer}." in name]
            assert_figures(by_layer, expected(names), f"layer {layer}")
        for kind, by_kind in anatomy.by_kind(pair).items():
            names = [name for name, tensor in planned.items() if tensor.kind == kind]
            assert_figures(by_kind, expected(names), kind)
        assert_figures(anatomy.whole(pair), expected(list(planned)), "all")


def checkpoints(recipe: Recipe) -> dict[str, Arrays]:
    """Return the models of a recipe in float64, their embeddings matched if it says so."""
    names = [entry["model"] for entry in recipe["models"]]
    models = {name: oracle.checkpoint(Path(name)) for name in names}
    if "tokenizer" in recipe:
        oracle.align(Path("/"), models, recipe["tokenizer"]["source"], recipe["base_model"])
    return models


# --- families ---------------------------------------------------------------------------------


def with_models(recipe: Recipe, family: Path, **models: str) -> Recipe:
    for entry in recipe["models"]:
        role = entry["parameters"]["role"]
        entry["model"] = str(family / models.get(role, role))
    recipe["base_model"] = str(family / models.get("cp", "cp"))
    return recipe


def tied(folder: Path) -> None:
    """Make a checkpoint one whose head is its embeddings."""
    tensors = oracle.stored_tensors(folder)
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))


def changed(file: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the weights in a file of a checkpoint."""
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def private_family(folder: Path) -> Recipe:
    """Write models of a test's own, each in one file."""
    kinds = {name: FAMILY[name] for name in ("base", "chat", "cp")}
    zoo.build_family(folder, kinds, base=["base"], chat=["chat"], cp=["cp"])
    for name in kinds:
        tensors = oracle.stored_tensors(folder / name)
        for file in (folder / name).glob("model*.safetensors*"):
            file.unlink()
        save_file(tensors, folder / name / "model.safetensors", metadata={"format": "pt"})
    return plain_recipe(folder)


# --- figures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("models", "ratio", "out_dtype"),
    [
        ({}, 1.0, None),
        ({}, 0.3, None),
        ({}, 0.0, None),
        ({"chat": "chat16"}, 0.5, "float16"),
        ({"chat": "chat16", "cp": "cp32"}, 0.7, "bfloat16"),
    ],
)
def test_figures_are_those_of_float64_arithmetic(
    family: Path, recipe: Recipe, models: dict[str, str], ratio: float, out_dtype: str | None
) -> None:
    with_models(recipe, family, **models)
    recipe["models"][CHAT]["parameters"]["ratio"] = ratio
    if out_dtype:
        recipe["out_dtype"] = out_dtype
    anatomy = anatomy_of(recipe, RANK)
    dtype = getattr(torch, out_dtype or "bfloat16")
    assert anatomy.rounded == dtype
    assert_anatomy(anatomy, checkpoints(recipe), dtype)


def test_rows_of_an_extended_vocabulary_are_matched_by_token(family: Path, recipe: Recipe) -> None:
    with_models(recipe, family, cp="cp_extended")
    recipe["tokenizer"] = {"source": recipe["base_model"]}
    recipe["out_dtype"] = "bfloat16"
    assert_anatomy(anatomy_of(recipe, RANK), checkpoints(recipe), torch.bfloat16)


def test_reordered_tokens_are_matched_where_the_merge_matches_them(tmp_path: Path) -> None:
    kinds = {
        "base": FAMILY["base"],
        "chat": FAMILY["chat"],
        "cp": zoo.Kind("llama", 3, 32000, torch.bfloat16, reordered=True),
    }
    zoo.build_family(tmp_path, kinds, base=["base"], chat=["chat"], cp=["cp"])
    recipe = plain_recipe(tmp_path)
    by_position = anatomy_of(recipe)
    assert by_position.by_kind(by_position.pairs[0])["embeddings"].other_relative > 1
    recipe["tokenizer"] = {"source": recipe["base_model"]}
    by_token = anatomy_of(recipe, RANK)
    assert by_token.by_kind(by_token.pairs[0])["embeddings"].other_relative < 0.5
    assert_anatomy(by_token, checkpoints(recipe), torch.bfloat16)


def test_tied_embeddings_are_looked_at_once(tmp_path: Path) -> None:
    recipe = private_family(tmp_path)
    for name in ("base", "chat", "cp"):
        tied(tmp_path / name)
    anatomy = anatomy_of(recipe, RANK)
    assert "head" not in anatomy.by_kind(anatomy.pairs[0])
    assert_anatomy(anatomy, checkpoints(recipe), torch.bfloat16)


def test_experts_are_looked_at_one_by_one(tmp_path: Path) -> None:
    kind = zoo.Kind("mixtral", 2, 32000, torch.bfloat16, kv_heads=2)
    kinds = dict.fromkeys(("base", "chat", "cp"), kind)
    zoo.build_family(tmp_path, kinds, base=["base"], chat=["chat"], cp=["cp"])
    recipe = plain_recipe(tmp_path)
    anatomy = anatomy_of(recipe, RANK)
    assert any(tensor.planned.name.endswith("experts.1.w2.weight") for tensor in anatomy.tensors)
    as_stored = {
        str(tmp_path / name): {
            tensor: weights.double().numpy()
            for tensor, weights in oracle.stored_tensors(tmp_path / name).items()
        }
        for name in kinds
    }
    assert_anatomy(anatomy, as_stored, torch.bfloat16)


def test_of_experts_in_one_tensor_each_is_a_matrix(tmp_path: Path) -> None:
    recipe = private_family(tmp_path)
    name = "model.layers.1.mlp.experts.down_proj"
    generator = torch.Generator().manual_seed(0)
    for model in ("base", "chat", "cp"):
        experts = torch.randn((4, 24, 10), generator=generator).bfloat16()
        changed(
            tmp_path / model / "model.safetensors",
            lambda tensors, experts=experts: tensors.update({name: experts}),
        )
    anatomy = anatomy_of(recipe, RANK)
    assert any(tensor.planned.name == name for tensor in anatomy.tensors)
    assert_anatomy(anatomy, checkpoints(recipe), torch.bfloat16)


def test_several_chat_vectors_are_compared_with_each_other(family: Path, recipe: Recipe) -> None:
    second = {"role": "chat", "ratio": 0.5}
    recipe["models"].insert(CP, {"model": str(family / "chat2"), "parameters": second})
    anatomy = anatomy_of(recipe, RANK)
    one, two = anatomy.roles.chats
    assert anatomy.pairs == [(one, anatomy.roles.cp), (two, anatomy.roles.cp), (one, two)]
    assert_anatomy(anatomy, checkpoints(recipe), torch.bfloat16)


def test_signs_of_tiny_differences_count(tmp_path: Path) -> None:
    recipe = private_family(tmp_path)
    rows = torch.full((4, zoo.HIDDEN), 1e-24)
    for name, tiny in {"base": rows, "chat": 2 * rows, "cp": rows / 2}.items():
        changed(
            tmp_path / name / "model.safetensors",
            lambda tensors, tiny=tiny: tensors[EMBEDDING][:4].copy_(tiny),
        )
    assert_anatomy(anatomy_of(recipe, RANK), checkpoints(recipe), torch.bfloat16)


def test_pieces_and_new_mappings_change_no_figure(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "ROW", 7)
    monkeypatch.setattr(stream, "PIECE", 100)
    monkeypatch.setattr(stream, "MAPPED_BYTES", 1000)
    monkeypatch.setattr(passes, "CPU_CHUNK", 20)
    assert_anatomy(anatomy_of(recipe, RANK), checkpoints(recipe), torch.bfloat16)


@pytest.mark.parametrize("out_dtype", ["bfloat16", "float16"])
def test_figures_without_numba_are_the_same(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, without_numba: None, out_dtype: str
) -> None:
    monkeypatch.setattr(largest, "UNSAMPLED", 1000)
    recipe["models"][CHAT]["parameters"]["ratio"] = 0.7
    recipe["out_dtype"] = out_dtype
    assert_anatomy(anatomy_of(recipe, RANK), checkpoints(recipe), getattr(torch, out_dtype))


@pytest.mark.parametrize("out_dtype", ["bfloat16", "float16"])
def test_figures_with_numba_are_those_of_the_loop(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, out_dtype: str
) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(sums, "row_sums", None)
    monkeypatch.setattr(largest, "UNSAMPLED", 1000)
    recipe["models"][CHAT]["parameters"]["ratio"] = 0.7
    recipe["out_dtype"] = out_dtype
    assert_anatomy(anatomy_of(recipe, RANK), checkpoints(recipe), getattr(torch, out_dtype))


# --- the largest elements, the first directions -----------------------------------------------


def normal(count: int) -> torch.Tensor:
    return 0.002 * torch.randn(count, generator=torch.Generator().manual_seed(1))


def heavy(count: int) -> torch.Tensor:
    return normal(count) ** 3 * 1e5


def sparse(count: int) -> torch.Tensor:
    return normal(count) * (torch.arange(count) % 50 == 0)


def two_values(count: int) -> torch.Tensor:
    return 0.001 * (1.0 + (torch.arange(count) % 99 == 0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("vector", [normal, heavy, sparse, two_values])
@pytest.mark.parametrize("sample", [1 << 12, 1 << 16])
def test_energy_of_the_largest_is_exact_without_sorting(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    vector: Callable[[int], torch.Tensor],
    sample: int,
) -> None:
    monkeypatch.setattr(largest, "UNSAMPLED", 1000)
    monkeypatch.setattr(largest, "SAMPLE", sample)
    name = "model.layers.0.mlp.up_proj.weight"
    recipe = private_family(tmp_path)
    shape = (1024, 512)
    base = 0.02 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    base = base.to(dtype)
    chat = (base.float() + vector(base.numel()).view(shape)).to(dtype)
    for model, weights in {"base": base, "chat": chat, "cp": base}.items():
        changed(
            tmp_path / model / "model.safetensors",
            lambda tensors, weights=weights: tensors.update({name: weights}),
        )
    anatomy = anatomy_of(recipe)
    (of_tensor,) = (t.sums[anatomy.pairs[0]] for t in anatomy.tensors if t.planned.name == name)
    squares = np.sort(np.square(chat.double().numpy() - base.double().numpy()).ravel())[::-1]
    exact = squares[: round(0.01 * squares.size)].sum() / squares.sum()
    assert of_tensor.largest_share == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("level", [1e-6, 1.0])
def test_a_level_that_misleads_changes_no_figure(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, level: float
) -> None:
    monkeypatch.setattr(largest, "UNSAMPLED", 1000)
    monkeypatch.setattr(largest, "level", lambda _sample: level)
    monkeypatch.setattr(stream, "PIECE", 4096)
    assert_anatomy(anatomy_of(recipe, RANK), checkpoints(recipe), torch.bfloat16)


def test_first_directions_of_a_wide_matrix_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    strong = torch.randn((500, 6), generator=generator) @ torch.randn((6, 700), generator=generator)
    matrix = strong + 0.3 * torch.randn((500, 700), generator=generator)
    exact = float(torch.linalg.svdvals(matrix.double())[:6].square().sum())
    assert leading_energy(lambda: iter(matrix.split(64)), 6) == pytest.approx(exact, rel=1e-5)


# --- tokens -----------------------------------------------------------------------------------


def test_tokens_that_chat_moved_and_cp_left_are_named(tmp_path: Path) -> None:
    recipe = private_family(tmp_path)
    recipe["tokenizer"] = {"source": recipe["base_model"]}
    row = 17

    def teach(tensors: dict[str, torch.Tensor]) -> None:
        tensors[EMBEDDING][row] += 1.0

    base = load_file(tmp_path / "base/model.safetensors")[EMBEDDING]
    changed(tmp_path / "chat/model.safetensors", teach)
    changed(tmp_path / "cp/model.safetensors", lambda t: t[EMBEDDING][row].copy_(base[row]))
    anatomy = anatomy_of(recipe)
    moves = next(moves for moves in anatomy.tokens if moves.tensor == EMBEDDING)
    models = checkpoints(recipe)
    ours, theirs, language = (models[entry["model"]][EMBEDDING] for entry in recipe["models"])
    typical = math.sqrt(np.square(ours).sum(axis=1).mean())
    first = moves.most[0]
    assert (first.token, first.row, first.untrained) == (zoo.tokens(FAMILY["cp"])[row], row, True)
    assert moves.both == 1
    order = np.argsort(-np.linalg.norm(theirs - ours, axis=1), kind="stable")
    for move, i in zip(moves.most, order, strict=False):
        assert move.row == i
        assert move.by_chat == pytest.approx(
            np.linalg.norm(theirs[i] - ours[i]) / typical, rel=1e-5
        )
        assert move.by_cp == pytest.approx(
            np.linalg.norm(language[i] - ours[i]) / typical, rel=1e-5
        )
    said = " ".join(summary(anatomy))
    assert repr(first.text) in said
    assert "untrained in cp" in said


# --- words, the suggested schedule ------------------------------------------------------------


def colliding(folder: Path) -> Recipe:
    """Write models whose vectors are opposite in layer 1, and the same elsewhere."""
    recipe = private_family(folder)
    base = load_file(folder / "base/model.safetensors")
    chat = load_file(folder / "chat/model.safetensors")

    def collide(tensors: dict[str, torch.Tensor]) -> None:
        for name in tensors:
            sign = -1 if ".layers.1." in name else 1
            tensors[name] = (base[name].float() + sign * (chat[name].float() - base[name])).to(
                torch.float32
            )

    changed(folder / "cp/model.safetensors", collide)
    return recipe


def test_suggested_ratios_are_lower_where_the_vectors_collide(tmp_path: Path) -> None:
    recipe = colliding(tmp_path)
    recipe["models"][CHAT]["parameters"]["ratio"] = 0.8
    anatomy = anatomy_of(recipe)
    conflicts = [s.weighted_conflict for s in anatomy.by_layer(anatomy.pairs[0]).values()]
    assert conflicts == pytest.approx([0, 1, 0], abs=1e-5)
    text = suggested_schedule(anatomy, anatomy.roles.chats[0])
    assert "heuristic" in text
    recipe["models"][CHAT]["parameters"] = {"role": "chat", **yaml.safe_load(text)}
    plan = surveyed(recipe).plan
    assert plan is not None
    for tensor in plan.tensors:
        (ratio,) = tensor.ratios.values()
        assert ratio == (0.0 if tensor.layer == 1 else 0.8), tensor.name
    assert "They collide most in layer 1" in " ".join(summary(anatomy))


def test_a_chat_vector_of_nothing_is_said_to_be_zero(recipe: Recipe) -> None:
    recipe["models"][CHAT]["model"] += "/../base/."
    anatomy = anatomy_of(recipe)
    assert any("the chat vector is zero" in sentence for sentence in summary(anatomy))
    assert math.isnan(anatomy.whole(anatomy.pairs[0]).cosine)
    assert suggested_schedule(anatomy, anatomy.roles.chats[0])
    assert pictures(anatomy)


# --- mistakes ---------------------------------------------------------------------------------


def test_a_damaged_model_is_named(tmp_path: Path) -> None:
    recipe = private_family(tmp_path)
    changed(tmp_path / "cp/model.safetensors", lambda t: t["lm_head.weight"][3].fill_(math.nan))
    with pytest.raises(ChatVecError, match=r"cp: lm_head\.weight has NaN"):
        anatomy_of(recipe)


def test_vocabularies_of_different_sizes_are_refused(family: Path, recipe: Recipe) -> None:
    with_models(recipe, family, cp="cp_extended")
    with pytest.raises(ChatVecError, match="vocabularies differ in size"):
        anatomy_of(recipe)


# --- the command ------------------------------------------------------------------------------


def run(recipe: Recipe, folder: Path, *options: str) -> str:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    result = CliRunner().invoke(main, ["anatomy", str(file), *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_prints_figures_words_and_a_heuristic(recipe: Recipe, tmp_path: Path) -> None:
    printed = run(recipe, tmp_path)
    for part in (*KINDS[:2], "layer 2", "lm_head.weight", "They collide", "heuristic"):
        assert part in printed
    ratio = yaml.safe_load(printed[printed.index("# A heuristic") :])["ratio"]
    recipe["models"][CHAT]["parameters"]["ratio"] = ratio
    assert not surveyed(recipe).problems


def test_the_command_says_once_how_to_be_fast(
    recipe: Recipe, tmp_path: Path, without_numba: None
) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    arguments = ["anatomy", str(tmp_path / "recipe.yaml")]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    (line,) = result.stderr.splitlines()
    assert "pip install 'chatvec-method[anatomy]'" in line
    assert "lm_head.weight" in result.stdout
    result = CliRunner().invoke(main, [*arguments, "--quiet"], catch_exceptions=False)
    assert not result.stderr


def test_a_numba_that_does_not_work_is_named(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_numba: None
) -> None:
    broken = "raise ImportError('Numba needs NumPy 2.1 or less. Got NumPy 2.4.')"
    (tmp_path / "numba.py").write_text(broken, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "numba")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    arguments = ["anatomy", str(tmp_path / "recipe.yaml")]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    (line,) = result.stderr.splitlines()
    assert "numba cannot be imported (Numba needs NumPy 2.1" in line


def test_nothing_is_said_where_numba_works(recipe: Recipe, tmp_path: Path) -> None:
    pytest.importorskip("numba")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    arguments = ["anatomy", str(tmp_path / "recipe.yaml")]
    assert not CliRunner().invoke(main, arguments, catch_exceptions=False).stderr


def test_json_has_all_figures_and_no_nan(recipe: Recipe, tmp_path: Path) -> None:
    recipe["models"][CHAT]["parameters"]["ratio"] = 0.0

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    data = json.loads(run(recipe, tmp_path, "--json", "--rank", "2"), parse_constant=refuse)
    (vector,) = data["vectors"]
    assert list(vector["layers"]) == ["0", "1", "2"]
    assert vector["whole"]["swallowed_share"] is None  # nothing is asked of it
    assert set(FIGURES) <= vector["tensors"]["lm_head.weight"].keys()
    assert data["tokens"][0]["most"]


def test_csv_has_a_line_for_every_tensor(recipe: Recipe, tmp_path: Path) -> None:
    run(recipe, tmp_path, "--csv", str(tmp_path / "figures.csv"))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "figures.csv").read_text("utf-8"))))
    anatomy = anatomy_of(recipe)
    assert [row["tensor"] for row in rows] == [t.planned.name for t in anatomy.tensors]
    for row, tensor in zip(rows, anatomy.tensors, strict=True):
        sums = tensor.sums[anatomy.pairs[0]]
        assert float(row["cosine"]) == sums.cosine
        assert row["layer"] == ("" if tensor.planned.layer is None else str(tensor.planned.layer))


def test_pictures_are_written_for_light_and_dark(recipe: Recipe, tmp_path: Path) -> None:
    run(recipe, tmp_path, "--png", str(tmp_path / "pictures"))
    names = {"anatomy.png", "anatomy-dark.png", "anatomy-tokens.png", "anatomy-tokens-dark.png"}
    assert {file.name for file in (tmp_path / "pictures").iterdir()} == names
    for name in names:
        corner = Image.open(tmp_path / "pictures" / name).convert("L").getpixel((0, 0))
        assert (corner < 64) == ("dark" in name)


def test_a_tokenizer_that_does_not_load_is_named(tmp_path: Path) -> None:
    world = ROOT / "examples" / "world" / "models"
    recipe = plain_recipe(world) | {"tokenizer": {"source": str(world / "cp")}}
    copied = shutil.copytree(world / "chat", tmp_path / "chat")
    (copied / "tokenizer.json").write_text("{}")
    recipe["models"][CHAT]["model"] = str(copied)
    with pytest.raises(ChatVecError) as told:
        examine(surveyed(recipe))
    assert f"the tokenizer of model {copied} does not load" in told.value.problem


def test_a_folder_that_cannot_be_written_is_named(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    file = tmp_path / "file"
    file.write_text("")
    for option, place in (("--csv", file / "x.csv"), ("--png", file / "pictures")):
        arguments = ["anatomy", str(tmp_path / "recipe.yaml"), option, str(place)]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 1
        assert str(file) in result.output
        assert "cannot be written" in result.output
