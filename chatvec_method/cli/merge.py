"""`chatvec merge`: check, merge, verify, finish; a model that is right and chats, or nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from mergekit.options import MergeOptions, PrettyPrintHelp, add_merge_options

from chatvec_method.checks.report import Report, Severity, check_survey
from chatvec_method.cli.check_report import as_data, print_findings, print_report
from chatvec_method.cli.console import console, quiet_libraries
from chatvec_method.cli.layout import prose
from chatvec_method.cli.looking_up import looked_up
from chatvec_method.facts.cost import in_bytes
from chatvec_method.merging.merge import MergeResult
from chatvec_method.merging.merge import merge as merge_survey
from chatvec_method.progress import bars
from chatvec_method.recipe.file import read_recipe
from chatvec_method.weights.staging import check_out

WITH_ERRORS = 2


@click.command(cls=PrettyPrintHelp)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace OUT, once the new model is complete.")
@click.option("--dry-run", is_flag=True, help="Stop after the check.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found and done as JSON.")
@add_merge_options
def merge(
    recipe: Path,
    out: Path,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    merge_options: MergeOptions,
) -> None:
    """Merge RECIPE into the folder OUT, and make it ready to chat.

    The recipe is checked first, and nothing is written if it has errors. mergekit's own merge runs
    into a hidden folder beside OUT; its output is verified, gets chat template, stop tokens and
    model card, and takes the name OUT in one step. If anything fails, OUT is as it was before.

    mergekit's options below mean what they mean to mergekit-yaml.

    Example: chatvec merge recipes/eeve_chat.yaml out/
    """
    quiet_libraries()
    merge_options.apply_global_options()
    check_out(out, overwrite=overwrite)
    report = check_survey(looked_up(read_recipe(recipe), merge_options), out)
    if dry_run and not as_json:
        print_report(console(), report)
    elif not as_json:
        worth_saying = [f for f in report.findings if f.severity is not Severity.ADVICE]
        if worth_saying:
            text = report.survey.recipe.text
            print_findings(console(stderr=True), worth_saying, report.accepted, text)
    if report.of(Severity.ERROR):
        if as_json:
            _print_json(report, None)
        click.echo("Nothing was written.", err=True)
        sys.exit(WITH_ERRORS)
    if dry_run:
        if as_json:
            _print_json(report, None)
        return
    with bars(quiet=merge_options.quiet) as show:
        result = merge_survey(report.survey, out, overwrite=overwrite, on_progress=show)
    if as_json:
        _print_json(report, result)
    elif not merge_options.quiet:
        _print_result(result)


def _print_result(result: MergeResult) -> None:
    found, screen = result.verification, console()
    if result.restored_old:
        prose(screen, "The old model, which a merge that was killed had moved aside, was put back.")
    if result.removed_leftover:
        prose(screen, "Removed what a merge that was killed had left behind.")
    prose(
        screen,
        f"{result.out}: {in_bytes(result.bytes)}, {found.tensors} tensors, complete and finite; "
        f"{found.elements} elements recomputed, {found.off_by_one} off by one rounding step.",
    )
    prose(screen, f"Talk to it with: `chatvec chat {result.out}`")


def _print_json(report: Report, result: MergeResult | None) -> None:
    data = as_data(report)
    data["result"] = result and {
        "out": str(result.out),
        "bytes": result.bytes,
        "verification": vars(result.verification),
        "finished_files": [change.name for change in result.changes],
        "removed_leftover": result.removed_leftover,
        "restored_old": result.restored_old,
    }
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))
