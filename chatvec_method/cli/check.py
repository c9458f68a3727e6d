"""`chatvec check`: what a merge will do, what is wrong with it, and what to write instead."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chatvec_method.cli.completing import RECIPE
from chatvec_method.cli.console import console, json_text, quiet_libraries
from chatvec_method.cli.exits import ERROR, WARNINGS
from chatvec_method.cli.loading import loading
from chatvec_method.cli.mergekit_options import WithMergekitOptions, mergekit_options
from chatvec_method.cli.written_recipe import deliver, recipe_options
from chatvec_method.errors import ChatVecError
from chatvec_method.hub.named import named_text
from chatvec_method.recipe.text import parse_yaml

if TYPE_CHECKING:
    from mergekit.options import MergeOptions

    from chatvec_method.checks.report import Report
    from chatvec_method.recipe.file import Recipe

ROUNDS = 10
"""A fix may bring to light what it hid; so many times the recipe is checked again."""


@click.command(cls=WithMergekitOptions)
@click.argument("recipe", type=RECIPE)
@click.option("--deep", is_flag=True, help="Read all weights too: NaN, unrelated or equal models.")
@click.option("--strict", is_flag=True, help="Exit with 3 where there are warnings.")
@click.option("--fix", is_flag=True, help="Make the recipe with what can be mended mended.")
@recipe_options
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@mergekit_options("check", all_taken=True)
def check(
    recipe: str,
    deep: bool,
    strict: bool,
    fix: bool,
    output: Path | None,
    as_diff: bool,
    as_json: bool,
    options: dict[str, Any],
) -> None:
    """Tell what the merge of RECIPE will do and what is wrong with it.

    Reads configs, tokenizers and the headers of weight files, here or on the hub; weights only
    with --deep. All options of mergekit-yaml are taken, as `chatvec merge` takes them.

    What is meant all the same, the recipe can say: `chatvec: {accept: [CODE, ...]}`. A recipe of
    task_arithmetic or linear that is a chat vector by algebra is offered as one, and --fix writes
    it.

    Example: chatvec check recipes/eeve_chat.yaml
    """
    if fix and as_json:
        raise click.UsageError("--fix prints a recipe and --json a report: write one of them.")
    if not fix and (output is not None or as_diff):
        raise click.UsageError("-o and --diff are for the recipe that --fix makes: add --fix.")
    text, name = named_text(recipe)
    parse_yaml(text, name)  # what is no YAML is told before anything heavy is loaded
    with loading("mergekit", quiet=options["quiet"]):
        import chatvec_method.api  # noqa: F401 (all that `_check` will need)
        from chatvec_method.checks.algebra import read_as_chat_vector
        from chatvec_method.checks.report import Severity
        from chatvec_method.options import merge_options

        quiet_libraries()
    settings = merge_options(**options)
    read, offer = read_as_chat_vector(text, name, settings.trust_remote_code)
    if fix:
        report = _deliver_mended(read, settings, deep, output, as_diff=as_diff)
    else:
        report = _check(read, settings, deep)
        if offer is not None:
            report = replace(report, findings=(offer, *report.findings))
        _print(report, as_json)
    if report.of(Severity.ERROR):
        sys.exit(ERROR)
    if strict and report.of(Severity.WARNING):
        sys.exit(WARNINGS)


def _check(recipe: Recipe, options: MergeOptions, deep: bool) -> Report:
    from chatvec_method.api import check as check_surveyed
    from chatvec_method.cli.looking_up import looked_up

    return check_surveyed(looked_up(recipe, options), deep=deep)


def _print(report: Report, as_json: bool) -> None:
    from chatvec_method.cli.check_report import as_data, print_report

    if as_json:
        click.echo(json_text(as_data(report)))
    else:
        print_report(console(), report)


def _deliver_mended(
    recipe: Recipe, options: MergeOptions, deep: bool, output: Path | None, *, as_diff: bool
) -> Report:
    """Print or write the mended recipe, and tell on the side what is left to say of it."""
    from chatvec_method.cli.check_report import print_findings
    from chatvec_method.recipe.edits import edited
    from chatvec_method.recipe.file import parse_recipe

    before = recipe
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
    deliver(before, recipe.text, output, as_diff=as_diff)
    print_findings(console(stderr=True), report.findings, report.accepted, recipe.text)
    return report
