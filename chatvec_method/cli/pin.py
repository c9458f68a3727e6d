"""`chatvec pin`: a recipe that means the same next year."""

from __future__ import annotations

from pathlib import Path

import click

from chatvec_method.cli.completing import RECIPE
from chatvec_method.cli.console import as_printed, quiet_libraries
from chatvec_method.cli.loading import loading
from chatvec_method.hub.named import named_text
from chatvec_method.recipe.text import parse_yaml


@click.command()
@click.argument("recipe", type=RECIPE)
def pin(recipe: str) -> None:
    """Write into RECIPE which commits of its models it means: those that the hub has today.

    Comments are kept. A file is changed in place; a recipe of the hub or of the catalogue is
    printed.

    Example: chatvec pin recipes/eeve_chat.yaml
    """
    text, name = named_text(recipe)
    raw = parse_yaml(text, name)  # what is no YAML is told before anything heavy is loaded
    with loading("mergekit"):
        from chatvec_method.hub.commits import commits_today
        from chatvec_method.recipe.pins import pinned

        quiet_libraries()
    commits, folders = commits_today(raw)
    changed = pinned(text, commits)
    for folder in folders:
        click.echo(f"{folder} is a folder here, and has no commit.", err=True)
    file = Path(recipe)
    if not file.is_file():
        click.echo(as_printed(changed), nl=False)
        return
    if changed == text:
        click.echo("Nothing to change.")
        return
    from chatvec_method.finishing.files import write_content

    write_content(file, changed)
    for written, commit in commits.items():
        click.echo(f"{written.partition('@')[0]}@{commit}")
