"""Vectors by people who mean harm, or damaged on the way: check says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checking import checked
from click.testing import CliRunner
from conftest import ROOT
from json_files import Change, with_changed_json
from mergekit.common import ModelReference
from mergekit.options import MergeOptions
from safetensors.torch import load_file, save_file
from torch import Tensor

from chatvec_method.checks.report import Severity
from chatvec_method.cli import main
from chatvec_method.plain_text import ACTS
from chatvec_method.vectors.expand import expand
from chatvec_method.vectors.extract import extract

WORLD = ROOT / "examples" / "world" / "models"
EMBEDDINGS = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a vector of four bits an element."""
    out = tmp_path_factory.mktemp("vector") / "good"
    models = (ModelReference.model_validate(str(WORLD / name)) for name in ("base", "chat"))
    extract(*models, out, 4, MergeOptions())
    return out


@pytest.fixture
def vector(good: Path, tmp_path: Path) -> Path:
    """Return a copy of it to spoil."""
    return Path(shutil.copytree(good, tmp_path / "vector"))


def errors(vector: Path) -> list[str]:
    """Return what check says against a merge from a vector."""
    cp = str(WORLD / "cp")
    report = checked(
        {
            "merge_method": "chat_vector",
            "base_model": cp,
            "models": [
                {"model": str(vector), "parameters": {"role": "vector", "ratio": 1.0}},
                {"model": cp, "parameters": {"role": "cp"}},
            ],
            "tokenizer": {"source": cp},
        }
    )
    return [str(finding) for finding in report.of(Severity.ERROR)]


def tensors(file: str, change: Callable[[dict[str, Tensor]], None]) -> Change:
    def changed(folder: Path) -> None:
        held = load_file(folder / file)
        change(held)
        save_file({k: t.contiguous() for k, t in held.items()}, folder / file, {"format": "pt"})

    return changed


def kept(change: Callable[[Tensor, Tensor], dict[str, Tensor]]) -> Change:
    """Change the rows that are kept in full, and which rows they are."""
    name = f"{EMBEDDINGS}.rows"
    return tensors("kept_rows.safetensors", lambda t: t.update(change(t[name], t[EMBEDDINGS])))


def with_end(ending: str, change: Callable[[Tensor], Tensor]) -> Change:
    def changed(held: dict[str, Tensor]) -> None:
        name = next(name for name in held if name.endswith(ending))
        held[name] = change(held[name])

    return tensors("model.safetensors", changed)


def config(change: Callable[[dict[str, Any]], None]) -> Change:
    return with_changed_json("config.json", change)


def packed(**values: Any) -> Change:
    """Change what the config says of how integers are packed."""

    def change(said: dict[str, Any]) -> None:
        said["quantization_config"]["config_groups"]["group_0"]["weights"].update(values)

    return config(change)


def group(**values: Any) -> Change:
    def change(said: dict[str, Any]) -> None:
        said["quantization_config"]["config_groups"]["group_0"].update(values)

    return config(change)


def targets(value: Any) -> Change:
    return group(targets=value)


ROWS, BITS, FORM = "something else than rows of", "into how many bits", "not packed in the way"
WRONG: dict[str, tuple[Change, str]] = {
    "rows before the first": (kept(lambda i, _: {f"{EMBEDDINGS}.rows": i * 0 - 1}), ROWS),
    "rows behind the last": (kept(lambda i, _: {f"{EMBEDDINGS}.rows": i + 10**9}), ROWS),
    "rows between others": (kept(lambda i, _: {f"{EMBEDDINGS}.rows": i.float()}), ROWS),
    "rows again and again": (
        kept(lambda i, t: {f"{EMBEDDINGS}.rows": i.repeat(500), EMBEDDINGS: t.repeat(500, 1)}),
        ROWS,
    ),
    "one row": (kept(lambda i, _: {f"{EMBEDDINGS}.rows": i[0]}), ROWS),
    "narrow rows": (kept(lambda _, t: {EMBEDDINGS: t[:, :8]}), ROWS),
    "rows of integers": (kept(lambda _, t: {EMBEDDINGS: t.int()}), ROWS),
    "rows of nothing": (
        tensors("kept_rows.safetensors", lambda t: t.__delitem__(EMBEDDINGS)),
        ROWS,
    ),
    "no file of rows": (lambda f: (f / "kept_rows.safetensors").write_bytes(b"x") and None, ROWS),
    "tokens without rows": (
        config(lambda said: said["chat_vector"].update(added_tokens=["a", 5, None])),
        "added_rows.safetensors has no rows",
    ),
    "no bits": (packed(num_bits=0), BITS),
    "many bits": (packed(num_bits=64), BITS),
    "three bits": (packed(num_bits=3), BITS),
    "bits that are a word": (packed(num_bits="4"), BITS),
    "no group": (packed(group_size=0), BITS),
    "a group that is a word": (packed(group_size="64"), BITS),
    "another group": (packed(group_size=7), FORM),
    "a strategy of nobody": (packed(strategy="nosuch"), BITS),
    "a strategy that is a list": (packed(strategy=["group"]), BITS),
    "half symmetric": (packed(symmetric="x"), BITS),
    "zero points that are not there": (packed(symmetric=False), FORM),
    "weights that are a word": (group(weights="x"), BITS),
    "sparsity that is a word": (
        config(lambda said: said["quantization_config"].update(sparsity_config="x")),
        "stored sparsely (x)",
    ),
    "targets without an end": (targets(["x"] * 50_000), "names 50001 groups and targets"),
    "a target without an end": (targets([r"re:(?:\w|\w\w|.)+[0-8]{2}$"]), "takes too long"),
    "targets that are a number": (targets(5), BITS),
    "a target that is no pattern": (targets(["re:(("]), BITS),
    "few scales": (with_end("_scale", lambda t: t[:, :1]), FORM),
    "no scales": (with_end("_scale", lambda t: t[:, :0]), FORM),
    "scales of few rows": (with_end("_scale", lambda t: t[:-1]), FORM),
    "few words": (with_end("_packed", lambda t: t[:, :-1]), FORM),
    "long words": (with_end("_packed", lambda t: t.long()), FORM),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_damaged_vector_is_told_by_check(case: str, vector: Path) -> None:
    change, says = WRONG[case]
    change(vector)
    assert any(says in error for error in errors(vector)), errors(vector)


def test_a_good_one_is_not(vector: Path) -> None:
    assert errors(vector) == []


@pytest.mark.parametrize(
    "said",
    [[1], {}, {"bits": "x"}, {"kinds": [5]}, {"base": {"name": 5}}, {"added_tokens": 5}],
    ids=str,
)
def test_a_description_of_something_else_is_told_in_one_line(said: Any, vector: Path) -> None:
    file = vector / "chat_vector.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**whole, **said} if said and isinstance(said, dict) else said))
    result = CliRunner().invoke(main, ["vector", "show", str(vector)])
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert line.startswith("Error: ")
    assert "cannot be read" in line


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_description_does_nothing_to_a_terminal(options: list[str], vector: Path) -> None:
    file = vector / "chat_vector.json"
    said = json.loads(file.read_text(encoding="utf-8"))
    said["base"]["name"], said["added_tokens"] = "x\x1b[8m\x9b8m\u202e", ["\x1b]0;y\x07"]
    file.write_text(json.dumps(said), encoding="utf-8")
    result = CliRunner().invoke(main, ["vector", "show", str(vector), *options])
    assert result.exit_code == 0, result.output
    assert not ACTS.search(result.output)


def test_a_fingerprint_without_an_end_is_not_read(vector: Path) -> None:
    with (vector / "fingerprint.safetensors").open("wb") as stream:
        stream.truncate(3 << 30)
    assert errors(vector) == []


def test_a_file_beside_takes_no_place_of_what_is_written(vector: Path, tmp_path: Path) -> None:
    options = MergeOptions(out_shard_size=100_000)
    expand(ModelReference.model_validate(str(vector)), tmp_path / "right", options)
    file = min((tmp_path / "right").glob("model-*.safetensors"))
    right = load_file(file)
    (vector / "model.safetensors").rename(vector / "other.safetensors")
    places = dict.fromkeys(load_file(vector / "other.safetensors"), "other.safetensors")
    index = {"metadata": {}, "weight_map": places}
    (vector / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    save_file({name: tensor * 0 for name, tensor in right.items()}, vector / file.name)
    expand(ModelReference.model_validate(str(vector)), tmp_path / "out", options)
    out = load_file(tmp_path / "out" / file.name)
    assert all(torch.equal(out[name], right[name]) for name in right)


def test_a_file_without_an_end_is_not_copied(vector: Path, tmp_path: Path) -> None:
    with (vector / "notes.dat").open("wb") as stream:
        stream.truncate(3 << 30)
    result = CliRunner().invoke(main, ["vector", "expand", str(vector), str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "notes.dat is larger than" in result.output
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_is_told_before_anything_is_written(vector: Path, tmp_path: Path) -> None:
    file = vector / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    result = CliRunner().invoke(main, ["vector", "expand", str(vector), str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "model.safetensors" in result.output
    assert "Download it again" in result.output
    assert not (tmp_path / "out").exists()
