"""The files of an output that is not on disk: those that a finished merge has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import formats
import pytest
from conftest import Recipe
from surveying import ready
from varieties import tied_models, tokens_with_sources_of_their_own, union_with_tokens_that_cp_lacks

from chatvec_method.finishing.ahead import write_files_to_load
from chatvec_method.finishing.hashes_file import HASHES_FILE
from chatvec_method.merging.merge import merge

OTHERS = {"README.md", "ratio.png", "mergekit_config.yml", "model.safetensors.index.json"}
OTHERS |= {HASHES_FILE}


def assert_same_files(recipe: Recipe, folder: Path) -> None:
    survey = ready(recipe)
    ahead = folder / "ahead"
    ahead.mkdir()
    write_files_to_load(ahead, survey)
    out = merge(survey, folder / "out").out
    finished = {file.name: file for file in out.iterdir() if file.suffix != ".safetensors"}
    written = {file.name for file in ahead.iterdir()}
    assert written == finished.keys() - OTHERS
    for name in written:
        assert (ahead / name).read_bytes() == finished[name].read_bytes(), name


@pytest.mark.parametrize("format", ["chatml", "llama-2", "llama-3"])
def test_of_every_format_the_files_are_those_of_the_finished_merge(
    format: str, tmp_path: Path
) -> None:
    family = formats.build(tmp_path / "models", format, extended=True)
    assert_same_files(formats.recipe(family), tmp_path)


@pytest.mark.parametrize(
    "change",
    [tied_models, tokens_with_sources_of_their_own, union_with_tokens_that_cp_lacks],
    ids=lambda change: change.__name__,
)
def test_of_odd_recipes_too(
    change: Callable[..., None], recipe: Recipe, family: Path, relatives: Path, tmp_path: Path
) -> None:
    change(recipe, family, relatives)
    assert_same_files(recipe, tmp_path)
