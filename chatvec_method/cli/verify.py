"""`chatvec verify`: whether an output is what was written, and what its recipe makes."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from chatvec_method.cli.completing import RECIPE
from chatvec_method.cli.console import json_text, quiet_libraries
from chatvec_method.cli.exits import DIFFERENT, as_data
from chatvec_method.cli.loading import loading
from chatvec_method.cli.mergekit_options import WithMergekitOptions, mergekit_options
from chatvec_method.errors import DIFFERS, ChatVecError
from chatvec_method.plain_text import plain

if TYPE_CHECKING:
    from chatvec_method.merging.verify import Verification

LISTED = 8
"""Names of files; of more, it is told how many."""


@click.command(cls=WithMergekitOptions)
@click.argument("out", type=RECIPE)
@click.option(
    "--recipe",
    type=RECIPE,
    help="The recipe that OUT was made from, if not the one in its mergekit_config.yml.",
)
@click.option("--deep", is_flag=True, help="Compute every element again, from the models.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@mergekit_options("verify", all_taken=False)
def verify(
    out: str, recipe: str | None, deep: bool, as_json: bool, options: dict[str, Any]
) -> None:
    """Tell whether OUT is what was written, and what its recipe makes.

    OUT is a folder or a model of the hub, from `chatvec merge` or from stock mergekit. By the
    hashes that `chatvec merge` writes into it (chatvec_hashes.json), every byte of its weights and
    files but its card is what was written. By its recipe, its tensors, dtypes, shapes, config,
    tokenizer, template and stop tokens are what the recipe makes; weights of the models are read
    only with --deep, which computes every element again and names the first that differs. Hashes
    can be changed along with OUT: of an OUT that you do not trust, only --deep with a recipe that
    you do trust tells.

    Exits with 0 where all is right, with 4 where OUT differs, with 1 where that cannot be told.

    Example: chatvec verify out/ --deep
    """
    with loading("mergekit", quiet=options["quiet"] or as_json):
        from chatvec_method.facts.survey import survey
        from chatvec_method.hub.named import read_named
        from chatvec_method.hub.snapshot import folder_of
        from chatvec_method.merging.verify import verify as verify_output
        from chatvec_method.options import merge_options
        from chatvec_method.progress import bars

        quiet_libraries()
    settings = merge_options(**options)
    settings.apply_global_options()
    surveyed = survey(read_named(recipe), settings) if recipe is not None else None
    folder = folder_of(out, settings.transformers_cache)
    try:
        with bars(quiet=settings.quiet) as show:
            verification = verify_output(folder, surveyed, settings, deep=deep, on_progress=show)
    except ChatVecError as error:
        if error.code != DIFFERS:
            raise
        if as_json:
            click.echo(json_text({"right": False, "error": as_data(error)}))
        error.show()
        sys.exit(DIFFERENT)
    if as_json:
        click.echo(json_text({"right": True, **asdict(verification)}))
    elif not settings.quiet:
        _print(out, verification)


def _print(out: str, verification: Verification) -> None:
    from chatvec_method.facts.cost import in_bytes

    click.echo(f"{out}: {verification.tensors} tensors, {in_bytes(verification.bytes)}.")
    if verification.hashed:
        click.echo("By its hashes, every byte of weights and files is what was written.")
        if verification.unhashed:
            click.echo(f"No hash tells of {_listed(verification.unhashed)}.")
    else:
        click.echo("It has no hashes, so that only its recipe tells what it should be.")
    if verification.unheld:
        click.echo(f"It was not held against its recipe: {plain(verification.unheld)}")
        return
    click.echo("By its recipe, tensors, config, tokenizer, template and stop tokens are right.")
    if verification.elements:
        click.echo(f"All {verification.elements:,} elements, computed again, are the same.")
    elif not verification.hashed:
        click.echo("All elements are finite; --deep computes them again.")
    if verification.unfinished:
        names = _listed(verification.unfinished)
        click.echo(f"It is not made ready to chat: `chatvec finish {out}` changes {names}.")


def _listed(names: tuple[str, ...]) -> str:
    rest = len(names) - LISTED
    return plain(", ".join(names[:LISTED])) + (f" and {rest} more" if rest > 0 else "")
