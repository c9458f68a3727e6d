"""`chatvec anatomy`: where chat vector and language vector live, and where they collide."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chatvec_method.cli.completing import RECIPE
from chatvec_method.cli.console import console, json_text, quiet_libraries
from chatvec_method.cli.loading import loading
from chatvec_method.cli.mergekit_options import WithMergekitOptions, mergekit_options
from chatvec_method.cli.writing import write, write_all
from chatvec_method.hub.named import named_text
from chatvec_method.recipe.text import parse_yaml

if TYPE_CHECKING:
    from chatvec_method.anatomy import Anatomy


@click.command(cls=WithMergekitOptions)
@click.argument("recipe", type=RECIPE)
@click.option(
    "--png",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write pictures into this folder, for light and dark pages.",
)
@click.option(
    "--csv",
    "table",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the figures of every tensor, a line each.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option(
    "--rank",
    type=click.IntRange(min=1),
    metavar="K",
    help="Tell how much of the chat vector the first K singular directions of each matrix hold. "
    "Takes several times as long.",
)
@mergekit_options("anatomy", all_taken=False)
def anatomy(
    recipe: str,
    png: Path | None,
    table: Path | None,
    as_json: bool,
    rank: int | None,
    options: dict[str, Any],
) -> None:
    """Tell where RECIPE's chat vector and language vector live, and where they collide.

    Reads all weights of all its models once, a piece at a time. The chat vector is chat − base,
    the language vector cp − base. Of a chat vector as a file, norms and shares are told, and
    collisions where its base is in RECIPE as well, with `role: base`. mergekit's options mean what
    they mean to mergekit-yaml.

    Example: chatvec anatomy recipes/world.yaml --png docs/
    """
    text, name = named_text(recipe)
    parse_yaml(text, name)  # what is no YAML is told before anything heavy is loaded
    with loading("mergekit", quiet=options["quiet"]):
        from chatvec_method.anatomy import examine, why_slow
        from chatvec_method.cli.anatomy_report import as_data, print_anatomy
        from chatvec_method.cli.looking_up import looked_up
        from chatvec_method.options import merge_options
        from chatvec_method.pictures.style import require_matplotlib
        from chatvec_method.progress import bars
        from chatvec_method.recipe.file import parse_recipe

        if png is not None:
            require_matplotlib()  # told before all weights are read
        quiet_libraries()
    settings = merge_options(**options)
    settings.apply_global_options()
    surveyed = looked_up(parse_recipe(text, name), settings)
    if not settings.quiet and (reason := why_slow(settings.device)):
        click.echo(reason, err=True)
    with bars(quiet=settings.quiet, transient=True) as show:
        found = examine(surveyed, rank=rank, on_progress=show)
    if not as_json:  # first, as all weights were read for it, and a file may fail
        print_anatomy(console(), found)
    if table is not None:
        _write_csv(table, found)
    if png is not None:
        _write_pictures(png, found)
    if as_json:
        click.echo(json_text(as_data(found)))


def _write_csv(file: Path, found: Anatomy) -> None:
    from chatvec_method.cli.anatomy_report import csv_rows

    rows: list[dict[str, Any]] = list(csv_rows(found))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    write(file, stream.getvalue())


def _write_pictures(folder: Path, found: Anatomy) -> None:
    from chatvec_method.anatomy.pictures import pictures

    write_all(folder, dict(pictures(found)))
