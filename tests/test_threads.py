"""Several merges and checks in threads of one process, which do not disturb each other."""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import yaml
from conftest import Recipe
from mergekit.options import MergeOptions
from surveying import surveyed

from chatvec_method.checks.report import Severity, check
from chatvec_method.merging.merge import merge
from chatvec_method.recipe.file import parse_recipe

THREADS = 2


def test_merges_in_threads_are_all_right(recipe: Recipe, family: Path, tmp_path: Path) -> None:
    recipe["base_model"] = recipe["models"][2]["model"] = str(family / "cp_extended")
    recipe["tokenizer"] = {"source": recipe["base_model"]}
    alone = merge(surveyed(recipe, write_model_card=False), tmp_path / "alone").out
    before = sys.stderr, logging.root.manager.disable, torch.get_num_threads()

    def merge_in_a_row(thread: int) -> list[Path]:
        outs = [tmp_path / f"{thread}-{i}" for i in range(6)]
        return [merge(surveyed(recipe, write_model_card=False), out).out for out in outs]

    with ThreadPoolExecutor(THREADS) as pool:
        outs = [out for row in pool.map(merge_in_a_row, range(THREADS)) for out in row]
    expected = contents(alone)
    assert all(contents(out) == expected for out in outs)
    assert (sys.stderr, logging.root.manager.disable, torch.get_num_threads()) == before


def test_checks_in_threads_find_what_one_finds(recipe: Recipe, tmp_path: Path) -> None:

    text = yaml.safe_dump(recipe)
    before = sys.stderr, logging.root.manager.disable

    def checked(_: int) -> list[tuple[Severity, str, str]]:
        report = check(parse_recipe(text, "recipe.yaml"), MergeOptions())
        return [(f.severity, f.code, f.message) for f in report.findings]

    expected = checked(0)
    with ThreadPoolExecutor(THREADS) as pool:
        assert all(findings == expected for findings in pool.map(checked, range(40)))
    assert (sys.stderr, logging.root.manager.disable) == before


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}
