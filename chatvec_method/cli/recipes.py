"""`chatvec recipes`: the catalogue that comes with the package, and what people share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from chatvec_method.cli.console import as_printed, console, json_text, quiet_libraries, table
from chatvec_method.recipe.catalogue import Entry, catalogue, recipe_file


@click.group(invoke_without_command=True)
@click.option("--hub", "query", metavar="QUERY", help="Those of models on the hub with our tag.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def recipes(context: click.Context, query: str | None, as_json: bool) -> None:
    """List the recipes that come with this package, or those that people share on the hub.

    A recipe's name stands wherever a recipe's file does: chatvec check eeve_chat, and chatvec merge
    owner/name out/ for one on the hub.

    Example: chatvec recipes --hub korean
    """
    if context.invoked_subcommand is not None:
        return
    if query is None:
        entries = catalogue()
    else:
        from chatvec_method.hub.listing import shared_recipes

        quiet_libraries()
        entries = shared_recipes(query)
    if as_json:
        click.echo(json_text([vars(e) for e in entries]))
    elif entries:
        console().print(_table(entries))
    else:
        click.echo("Nothing found.")


@recipes.command()
@click.argument("name")
def show(name: str) -> None:
    """Print the recipe NAME of the catalogue, or owner/name of the hub.

    Example: chatvec recipes show eeve_chat
    """
    click.echo(as_printed(_text(name)), nl=False)


@recipes.command()
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
def copy(name: str, file: Path | None) -> None:
    """Copy the recipe NAME of the catalogue, or owner/name of the hub, into FILE.

    FILE is NAME.yaml in the current folder by default, and must not exist.

    Example: chatvec recipes copy eeve_chat
    """
    from chatvec_method.cli.new import write_new

    text = _text(name)
    file = file or Path(f"{name.partition('@')[0].rstrip('/').rpartition('/')[2]}.yaml")
    write_new(file, text)
    click.echo(f"{file} is written. See what it does with: chatvec check {file}")


def _text(name: str) -> str:
    if "/" not in name:
        return recipe_file(name).read_text(encoding="utf-8")
    from chatvec_method.hub.named import named_text
    from chatvec_method.recipe.text import parse_yaml

    quiet_libraries()
    text, named = named_text(name)
    parse_yaml(text, named)  # what is printed is YAML, which has no control characters
    return text


def _table(entries: Sequence[Entry]) -> object:
    header = ("name", "title", "language", "base", "chat", "cp", "ratio", "measured")
    rows = [
        (
            entry.name,
            entry.title,
            entry.language,
            entry.base,
            ", ".join(entry.chats),
            entry.cp,
            entry.ratio,
            entry.measured or "no",
        )
        for entry in entries
    ]
    return table("", header, rows)
