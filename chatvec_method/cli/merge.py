"""`chatvec merge`: check, merge, verify, finish; a model that is right and chats, or nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chatvec_method.cli.completing import FOLDER, RECIPE
from chatvec_method.cli.console import console, json_text, quiet_libraries
from chatvec_method.cli.exits import ERROR
from chatvec_method.cli.loading import loading
from chatvec_method.cli.mergekit_options import WithMergekitOptions, mergekit_options
from chatvec_method.hub.named import named_text
from chatvec_method.recipe.text import parse_yaml

if TYPE_CHECKING:
    from chatvec_method.checks.report import Report
    from chatvec_method.merging.merge import MergeResult


@click.command(cls=WithMergekitOptions)
@click.argument("recipe", type=RECIPE)
@click.argument("out", type=FOLDER)
@click.option("--overwrite", is_flag=True, help="Replace OUT, once the new model is complete.")
@click.option("--dry-run", is_flag=True, help="Stop after the check.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found and done as JSON.")
@click.option(
    "--ratio",
    type=float,
    metavar="NUMBER",
    help="The ratio everywhere, whatever RECIPE says; OUT's recipe has it.",
)
@mergekit_options("merge", all_taken=True)
def merge(
    recipe: str,
    out: Path,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    ratio: float | None,
    options: dict[str, Any],
) -> None:
    """Merge RECIPE into the folder OUT, and make it ready to chat.

    The recipe is checked first, and nothing is written if it has errors. mergekit's own merge runs
    into a hidden folder beside OUT; its output is verified, gets chat template, stop tokens and
    model card, and takes the name OUT in one step. If anything fails, OUT is as it was before.

    mergekit's options mean what they mean to mergekit-yaml. Those that are not below are taken too;
    here they have nothing to do.

    Example: chatvec merge recipes/eeve_chat.yaml out/
    """
    from chatvec_method.weights.staging import check_out

    check_out(out, overwrite=overwrite)
    text, name = named_text(recipe)
    raw = parse_yaml(text, name)  # what is no YAML is told before anything heavy is loaded
    with loading("mergekit", quiet=options["quiet"] or as_json):
        from chatvec_method.checks.report import Severity, check_survey
        from chatvec_method.cli.check_report import print_findings, print_report
        from chatvec_method.cli.looking_up import looked_up
        from chatvec_method.merging.merge import merge as merge_survey
        from chatvec_method.options import merge_options
        from chatvec_method.progress import bars
        from chatvec_method.recipe.file import parse_recipe
        from chatvec_method.recipe.one_ratio import with_one_ratio

        quiet_libraries()
    settings = merge_options(**options)
    settings.apply_global_options()
    if ratio is not None:
        text = with_one_ratio(text, raw, ratio)
    report = check_survey(looked_up(parse_recipe(text, name), settings), out)
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
        sys.exit(ERROR)
    if dry_run:
        if as_json:
            _print_json(report, None)
        return
    with bars(quiet=settings.quiet) as show:
        result = merge_survey(report.survey, out, overwrite=overwrite, on_progress=show)
    if as_json:
        _print_json(report, result)
    elif not settings.quiet:
        _print_result(result)


def _print_result(result: MergeResult) -> None:
    from chatvec_method.cli.layout import prose
    from chatvec_method.facts.cost import in_bytes

    found, screen = result.verification, console()
    if result.restored_old:
        prose(screen, "The old model, which a merge that was killed had moved aside, was put back.")
    if result.removed_leftover:
        prose(screen, "Removed what a merge that was killed had left behind.")
    prose(
        screen,
        f"{result.out}: {in_bytes(result.bytes)}, {found.tensors} tensors, complete and finite, "
        "every byte read back as it was written.",
    )
    prose(screen, f"Talk to it with: `chatvec chat {result.out}`")


def _print_json(report: Report, result: MergeResult | None) -> None:
    from chatvec_method.cli.check_report import as_data

    data = as_data(report)
    data["result"] = result and {
        "out": str(result.out),
        "bytes": result.bytes,
        "verification": vars(result.verification),
        "finished_files": [change.name for change in result.changes],
        "removed_leftover": result.removed_leftover,
        "restored_old": result.restored_old,
    }
    click.echo(json_text(data))
