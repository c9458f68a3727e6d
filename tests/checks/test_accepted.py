"""`chatvec: {accept: [...]}`: what a recipe says that it knows, and what nobody can accept."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from checking import as_text, checked, codes, mended, the
from click.testing import CliRunner
from conftest import CHAT, CP, ROOT, Merge, Recipe

from chatvec_method.checks.accepted import MOST_GUESSED, accept_findings
from chatvec_method.checks.kinds import FACTS, JUDGEMENTS, NATURES
from chatvec_method.checks.report import Severity
from chatvec_method.checks.room import DISK_TOO_SMALL
from chatvec_method.cli import main
from chatvec_method.facts.on_hub import UNREACHABLE
from chatvec_method.recipe.file import parse_recipe
from chatvec_method.schedules.cases import Schedule
from chatvec_method.schedules.into_recipe import with_schedule
from chatvec_method.schedules.planners import planner_of_models
from chatvec_method.schedules.spec import parse_shape

ERROR, WARNING = Severity.ERROR, Severity.WARNING


@pytest.fixture
def swapped(recipe: Recipe, tmp_path: Path) -> Recipe:
    """Return a recipe whose roles look exchanged by the name of cp."""
    named = tmp_path / "language-7b-it"
    named.symlink_to(recipe["base_model"])
    recipe["models"][CHAT]["model"] += "2"
    recipe["base_model"] = recipe["models"][CP]["model"] = str(named)
    recipe["chat_template"] = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
    return recipe


def accepting(recipe: Recipe, *accepted: Any) -> Recipe:
    return {"chatvec": {"title": "a test", "accept": [*accepted]}, **recipe}


def test_a_list_without_an_end_is_not_compared_with_every_code(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = Mock(return_value=[])
    monkeypatch.setattr("difflib.get_close_matches", compare)
    written = parse_recipe(as_text(accepting(recipe, *map(str, range(3000)))), "recipe.yaml")
    assert len(list(accept_findings(written))) == 3000
    assert sum(bool(call.args[1]) for call in compare.call_args_list) == MOST_GUESSED


# --- what is accepted ---------------------------------------------------------------------------


def test_an_accepted_finding_is_counted_and_not_told(swapped: Recipe) -> None:
    finding = the("roles-look-swapped", checked(swapped))
    assert "or `chatvec: {accept: [roles-look-swapped]}` if it is meant." in finding.fix

    report = checked(accepting(swapped, "roles-look-swapped"))

    assert "roles-look-swapped" not in codes(report)
    assert [(f.code, f.place) for f in report.accepted] == [(finding.code, finding.place)]
    assert set(codes(report)) == set(codes(checked(swapped))) - {"roles-look-swapped"}


def test_what_is_accepted_already_stays_in_what_a_finding_says_to_write(swapped: Recipe) -> None:
    finding = the("roles-look-swapped", checked(accepting(swapped, "padding-lost")))
    assert "`chatvec: {accept: [padding-lost, roles-look-swapped]}`" in finding.fix


def test_one_code_may_stand_without_a_list(swapped: Recipe) -> None:
    report = checked({**swapped, "chatvec": {"accept": "roles-look-swapped"}})
    assert [finding.code for finding in report.accepted] == ["roles-look-swapped"]


def test_an_accepted_error_is_merged(recipe: Recipe, tmp_path: Path, swapped_rows: Path) -> None:
    recipe["models"][CHAT]["model"] = str(swapped_rows)
    assert codes(checked(recipe), ERROR) == ["vocabulary-order"]
    (tmp_path / "r.yaml").write_text(as_text(accepting(recipe, "vocabulary-order")))
    arguments = ["merge", str(tmp_path / "r.yaml"), str(tmp_path / "out"), "--json"]

    result = CliRunner().invoke(main, arguments)

    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert [finding["code"] for finding in data["accepted"]] == ["vocabulary-order"]
    written = yaml.safe_load((tmp_path / "out" / "mergekit_config.yml").read_text())
    assert written["chatvec"]["accept"] == ["vocabulary-order"]


@pytest.fixture
def swapped_rows(family: Path, tmp_path: Path) -> Path:
    """Return a chat model whose tokenizer has two tokens exchanged."""
    folder = shutil.copytree(family / "chat", tmp_path / "exchanged")
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["▁token7"], vocabulary["▁token8"] = vocabulary["▁token8"], vocabulary["▁token7"]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def test_the_command_counts_what_is_accepted(swapped: Recipe, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(as_text(accepting(swapped, "roles-look-swapped")))
    printed = CliRunner().invoke(main, ["check", str(tmp_path / "r.yaml")]).stdout
    assert "1 accepted by the recipe (roles-look-swapped)." in printed.splitlines()[-1]
    printed = CliRunner().invoke(main, ["check", str(tmp_path / "r.yaml"), "--json"]).stdout
    data = json.loads(printed)
    assert [finding["code"] for finding in data["accepted"]] == ["roles-look-swapped"]


# --- what is not --------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["vocabulary-sizes", "no-base-model", "recipe-refused"])
def test_what_makes_the_merge_impossible_cannot_be_accepted(code: str, recipe: Recipe) -> None:
    report = checked(accepting({**recipe, "base_model": None}, code))
    finding = the("accept-impossible", report)
    assert finding.severity is WARNING
    assert finding.place == "chatvec.accept[0]"
    assert code in finding.message
    assert "no-base-model" in codes(report, ERROR)
    assert mended(accepting(recipe, code))["chatvec"]["accept"] == []


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("roles-look-swaped", "roles-look-swapped"),
        ("Tokens_without_base", "tokens-without-base"),
        ("nothing of the kind", None),
        (7, None),
        ({"code": "x"}, None),
        (None, None),
    ],
)
def test_a_code_that_does_not_exist_is_told_with_the_one_that_was_meant(
    written: Any, meant: str | None, recipe: Recipe
) -> None:
    finding = the("accept-unknown", checked(accepting(recipe, "padding-lost", written)))
    assert finding.severity is WARNING
    assert finding.place == "chatvec.accept[1]"
    fixed = mended(accepting(recipe, "padding-lost", written))["chatvec"]
    assert fixed == {"title": "a test", "accept": ["padding-lost", *([meant] if meant else [])]}
    if meant:
        assert f"Did you mean `{meant}`?" in finding.fix


def test_what_the_method_refuses_as_well_is_an_error_although_accepted(
    family: Path, recipe: Recipe
) -> None:
    """That cp loses tokens is a judgement, but not where it has more rows than the output."""
    extended = str(family / "cp_extended")
    recipe["models"][CP]["model"] = recipe["base_model"] = extended
    recipe["tokenizer"] = {"source": str(family / "base")}
    report = checked(accepting(recipe, "cp-tokens-lost"))
    assert "cp-tokens-lost" in codes(report, ERROR)
    assert report.accepted == ()
    assert not any("accept" in finding.fix for finding in report.of(ERROR))


# --- the codes ----------------------------------------------------------------------------------


def test_every_code_is_a_judgement_or_a_fact() -> None:
    assert set(JUDGEMENTS) & set(FACTS) == set()
    assert len(NATURES) == len(JUDGEMENTS) + len(FACTS)
    assert written_codes() == set(NATURES)


def written_codes() -> set[str]:
    """Return every code that stands in the package: of a finding, or of an error that is one."""
    rooms = [ROOT / "chatvec_method" / room for room in ("checks", "facts", "method", "recipe")]
    files = [file for room in rooms for file in room.glob("*.py")]
    files += [ROOT / "chatvec_method" / file for file in ("intake.py", "stated.py")]
    written = {code for file in files for code in _codes(file)}
    return written | {"recipe-refused"}  # an error's, if it has none of its own


CONSTANTS = {"UNREACHABLE": UNREACHABLE, "DISK_TOO_SMALL": DISK_TOO_SMALL}
"""Codes that more than one place needs."""


def _codes(file: Path) -> Iterator[str]:
    of_checks = file.parent.name == "checks"
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        values = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        if of_checks and node.func.id in ("error", "warning", "advice", "report"):
            values.append(node.args[0])
        for value in values:
            if isinstance(value, ast.Constant):
                yield value.value
            elif isinstance(value, ast.Name) and value.id in CONSTANTS:
                yield CONSTANTS[value.id]


# --- what is done to a recipe keeps them --------------------------------------------------------


def test_fix_and_schedules_keep_what_is_accepted(swapped: Recipe) -> None:
    text = as_text(
        {**accepting(swapped, "roles-look-swapped"), "dtype": "bfloat16", "out_type": "float16"}
    )
    fixed = mended(text)
    assert fixed["chatvec"] == {"title": "a test", "accept": ["roles-look-swapped"]}

    recipe = parse_recipe(as_text(fixed), "recipe")
    plan = planner_of_models(recipe)
    scheduled = with_schedule(recipe, Schedule(parse_shape("constant:0.5")), plan)
    assert yaml.safe_load(scheduled)["chatvec"] == fixed["chatvec"]


def test_the_recipe_in_an_output_keeps_them(recipe: Recipe, merge: Any, tmp_path: Path) -> None:
    made: Merge = merge(recipe)
    (tmp_path / "r.yaml").write_text(as_text(accepting(recipe, "padding-lost")))
    arguments = ["finish", str(made.out), "--recipe", str(tmp_path / "r.yaml")]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    for again in (arguments, arguments[:2]):
        assert CliRunner().invoke(main, again).exit_code == 0
        written = yaml.safe_load((made.out / "mergekit_config.yml").read_text())
        assert written["chatvec"]["accept"] == ["padding-lost"]
