"""`chatvec check`: what a merge will do, what is wrong with it, and what to write instead."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import click
from mergekit.options import MergeOptions, PrettyPrintHelp, add_merge_options

from chatvec_method.api import check as check_surveyed
from chatvec_method.checks.algebra import read_as_chat_vector
from chatvec_method.checks.report import Report, Severity
from chatvec_method.cli.check_report import as_data, print_findings, print_report
from chatvec_method.cli.console import console, quiet_libraries
from chatvec_method.errors import ChatVecError
from chatvec_method.facts.survey import survey
from chatvec_method.recipe.edits import edited
from chatvec_method.recipe.file import Recipe, parse_recipe, read_text

WITH_WARNINGS, WITH_ERRORS = 1, 2
ROUNDS = 10
"""A fix may bring to light what it hid; so many times the recipe is checked again."""


@click.command(cls=PrettyPrintHelp)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--deep", is_flag=True, help="Read all weights too: NaN, unrelated or equal models.")
@click.option("--strict", is_flag=True, help="Exit with 1 where there are warnings.")
@click.option("--fix", is_flag=True, help="Print the recipe with what can be mended mended.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@add_merge_options
def check(
    recipe: Path, deep: bool, strict: bool, fix: bool, as_json: bool, merge_options: MergeOptions
) -> None:
    """Tell what the merge of RECIPE will do and what is wrong with it.

    Reads configs, tokenizers and the headers of weight files, here or on the hub; weights only
    with --deep. mergekit's options are taken as `chatvec merge` takes them.

    What is meant all the same, the recipe can say: `chatvec: {accept: [CODE, ...]}`. A recipe of
    task_arithmetic or linear that is a chat vector by algebra is offered as one, and --fix writes
    it.

    Exits with 0 where there is nothing worse than advice, with 1 for warnings under --strict, with
    2 for errors.

    Example: chatvec check recipes/eeve_chat.yaml
    """
    if fix and as_json:
        raise click.UsageError("--fix prints a recipe and --json a report: write one of them.")
    quiet_libraries()
    try:
        trust = merge_options.trust_remote_code
        read, offer = read_as_chat_vector(read_text(recipe), str(recipe), trust)
        if fix:
            report = _print_mended(read, merge_options, deep)
        else:
            report = _check(read, merge_options, deep)
            if offer is not None:
                report = replace(report, findings=(offer, *report.findings))
            _print(report, as_json)
    except ChatVecError as error:
        error.show()
        sys.exit(WITH_ERRORS)
    if report.of(Severity.ERROR):
        sys.exit(WITH_ERRORS)
    if strict and report.of(Severity.WARNING):
        sys.exit(WITH_WARNINGS)


def _check(recipe: Recipe, options: MergeOptions, deep: bool) -> Report:
    return check_surveyed(survey(recipe, options), deep=deep)


def _print(report: Report, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(as_data(report), indent=2, ensure_ascii=False))
    else:
        print_report(console(), report)


def _print_mended(recipe: Recipe, options: MergeOptions, deep: bool) -> Report:
    """Print the mended recipe, and on the side what is left to say of it."""
    report = _check(recipe, options, deep)
    for _ in range(ROUNDS):
        if not report.edits:
            break
        try:
            text = edited(recipe.text, report.edits)
        except ChatVecError as refusal:
            click.echo(f"Not mended: {refusal}", err=True)
            break
        recipe = parse_recipe(text, recipe.name)
        report = _check(recipe, options, deep)
    click.echo(recipe.text, nl=False)
    print_findings(console(stderr=True), report.findings, report.accepted)
    return report
