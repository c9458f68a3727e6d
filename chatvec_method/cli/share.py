"""`chatvec share`: a finished, verified model or a recipe, put on the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from chatvec_method.cli.completing import RECIPE
from chatvec_method.cli.console import json_text, quiet_libraries
from chatvec_method.cli.loading import loading

if TYPE_CHECKING:
    from chatvec_method.sharing import Shared


@click.command()
@click.argument("what", type=RECIPE, metavar="OUT|RECIPE")
@click.argument("name", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Only you see it, where it is new.")
@click.option("--dry-run", is_flag=True, help="Look at everything, and send nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@click.option("--trust-remote-code", is_flag=True, help="Run the Python code that models bring.")
def share(
    what: str, name: str, private: bool, dry_run: bool, as_json: bool, trust_remote_code: bool
) -> None:
    """Put OUT, the output of a merge, on the Hugging Face hub as OWNER/NAME; or a RECIPE alone.

    OUT is verified first, every tensor of it, against its recipe and models. It goes with a model
    card that has the recipe, the models' commits, versions and the hashes of the weights, in one
    commit. What broke off goes on where it stopped when this is run again. Log in with `hf auth
    login` before.

    Example: chatvec share out/ me/EEVE-Korean-chat --private
    """
    with loading("mergekit", quiet=as_json):
        from chatvec_method.api import share as share_named
        from chatvec_method.facts.cost import in_bytes

        quiet_libraries()
    shared = share_named(
        what, name, private=private, dry_run=dry_run, trust_remote_code=trust_remote_code
    )
    for text in shared.warnings:
        click.echo(f"warning: {text}", err=True)
    if as_json:
        click.echo(json_text(_as_data(shared)))
        return
    size = in_bytes(sum(shared.files.values()))
    if shared.uploaded is None:
        for file, length in shared.files.items():
            click.echo(f"{in_bytes(length):>9}  {file}")
        click.echo(f"Would send {len(shared.files)} files, {size}, to {shared.name}.")
        return
    click.echo(f"{shared.uploaded.address}: {len(shared.files)} files, {size}.")
    click.echo(f"Anybody makes it again with: chatvec merge {name} out/")


def _as_data(shared: Shared) -> dict[str, object]:
    return {**vars(shared), "uploaded": shared.uploaded and vars(shared.uploaded)}
