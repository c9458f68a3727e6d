"""`chatvec finish`: what a merge's output lacks to chat and to stop, written or only shown."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chatvec_method.cli.completing import FOLDER, RECIPE
from chatvec_method.cli.console import console, json_text, quiet_libraries
from chatvec_method.cli.loading import loading
from chatvec_method.errors import ChatVecError
from chatvec_method.hub.named import named_text
from chatvec_method.plain_text import plain
from chatvec_method.recipe.text import parse_yaml

if TYPE_CHECKING:
    from chatvec_method.finishing.files import Content, FileChange

LONGEST_SHOWN = 100_000
"""Characters of a file that is shown line by line."""


@click.command()
@click.argument("out", type=FOLDER)
@click.option(
    "--recipe",
    type=RECIPE,
    help="The recipe that OUT was made from, if OUT has no mergekit_config.yml.",
)
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--no-card", is_flag=True, help="Leave README.md as it is.")
@click.option("--json", "as_json", is_flag=True, help="Print the changes as JSON.")
@click.option("--trust-remote-code", is_flag=True, help="Run the Python code that models bring.")
def finish(
    out: Path,
    recipe: str | None,
    dry_run: bool,
    no_card: bool,
    as_json: bool,
    trust_remote_code: bool,
) -> None:
    """Make OUT, the output of a merge, ready to chat: also that of stock mergekit-yaml.

    Gives it the chat template, a tokenizer that knows the template's special tokens, the stop
    tokens of all models, the chat model's sampling settings, a config that agrees with the weights
    and a model card, and shows what changed. A second run changes nothing. Reads no weights.

    Example: mergekit-yaml recipe.yaml out/ && chatvec finish out/
    """
    if not out.is_dir():
        raise ChatVecError(f"there is no folder {out}.", "Write the folder of a merge's output.")
    given = named_text(recipe) if recipe is not None else None
    if given is not None:
        parse_yaml(*given)  # before anything heavy is loaded
    with loading("mergekit"):
        from chatvec_method.checks.readiness import readiness_findings
        from chatvec_method.cli.check_report import print_findings
        from chatvec_method.cli.looking_up import looked_up
        from chatvec_method.finishing.finish import finish as finish_output
        from chatvec_method.finishing.output import recipe_of
        from chatvec_method.options import merge_options
        from chatvec_method.recipe.file import parse_recipe

        quiet_libraries()
    options = merge_options(trust_remote_code=trust_remote_code)
    found = looked_up(parse_recipe(*given) if given else recipe_of(out), options)
    changes = finish_output(out, found, card=not no_card, dry_run=dry_run)
    if as_json:
        click.echo(json_text([_as_data(change) for change in changes]))
        return
    for change in changes:
        _print_diff(change)
    findings = [f for f in readiness_findings(found) if f.code != "stop-token-ignored"]
    if findings:
        print_findings(console(stderr=True), findings)
    if changes:
        click.echo(f"{'Would change' if dry_run else 'Changed'} {_names(changes)}.")
    else:
        click.echo("Nothing to change.")


def _names(changes: Sequence[FileChange]) -> str:
    return ", ".join(plain(change.name) for change in changes)


def _print_diff(change: FileChange) -> None:
    before, after = change.before, change.after
    if not (_is_short(before) and _is_short(after)):
        name = plain(change.name)
        click.secho(f"{name}: {_in_short(after)} (before: {_in_short(before)})", bold=True)
        return
    for line in _diff(change.name, str(before or ""), str(after or "")):
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
        click.secho(plain(line), fg=colour)


def _is_short(content: Content) -> bool:
    """Tell whether people would read it: a tokenizer of 128k tokens has half a million lines."""
    return content is None or (isinstance(content, str) and len(content) <= LONGEST_SHOWN)


def _in_short(content: Content) -> str:
    if content is None:
        return "no such file"
    from chatvec_method.facts.cost import in_bytes

    size = len(content if isinstance(content, bytes) else content.encode("utf-8"))
    return f"{'binary, ' if isinstance(content, bytes) else ''}{in_bytes(size)}"


def _diff(name: str, before: str, after: str) -> Iterator[str]:
    yield from difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"{name} (before)", f"{name} (after)", lineterm=""
    )


def _as_data(change: FileChange) -> dict[str, str | None]:
    before, after = (
        content if isinstance(content, str | None) and _is_short(content) else _in_short(content)
        for content in (change.before, change.after)
    )
    return {"name": change.name, "before": before, "after": after}
