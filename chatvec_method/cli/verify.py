"""`chatvec verify`: whether an output is what was written, and what its recipe makes."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
from mergekit.options import MergeOptions, PrettyPrintHelp, add_merge_options

from chatvec_method.cli.console import quiet_libraries
from chatvec_method.errors import DIFFERS, ChatVecError
from chatvec_method.facts.cost import in_bytes
from chatvec_method.facts.survey import survey
from chatvec_method.merging.verify import Verification
from chatvec_method.merging.verify import verify as verify_output
from chatvec_method.progress import bars
from chatvec_method.recipe.file import read_recipe

WRONG, UNTOLD = 1, 2


@click.command(cls=PrettyPrintHelp)
@click.argument("out")
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    help="The recipe that OUT was made from, if not the one in its mergekit_config.yml.",
)
@click.option("--deep", is_flag=True, help="Compute every element again, from the models.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@add_merge_options
def verify(
    out: str, recipe: Path | None, deep: bool, as_json: bool, merge_options: MergeOptions
) -> None:
    """Tell whether OUT is what was written, and what its recipe makes.

    OUT is a folder or a model of the hub, from `chatvec merge` or from stock mergekit. By the
    hashes that `chatvec merge` writes into it (chatvec_hashes.json), every byte of its weights and
    files is what was written. By its recipe, its tensors, dtypes, shapes, config, tokenizer,
    template and stop tokens are what the recipe makes; weights of the models are read only with
    --deep, which computes every element again and names the first that differs. Hashes can be
    changed along with OUT: of an OUT that you do not trust, only --deep with a recipe that you do
    trust tells.

    Exits with 0 where all is right, with 1 where OUT differs, with 2 where that cannot be told.

    Example: chatvec verify out/ --deep
    """
    quiet_libraries()
    merge_options.apply_global_options()
    try:
        surveyed = survey(read_recipe(recipe), merge_options) if recipe is not None else None
        with bars(quiet=merge_options.quiet) as show:
            verification = verify_output(out, surveyed, merge_options, deep=deep, on_progress=show)
    except ChatVecError as error:
        if as_json:
            told = {"right": False if error.code == DIFFERS else None, "code": error.code}
            click.echo(_json({**told, "problem": error.problem, "fix": error.fix}))
        else:
            error.show()
        sys.exit(WRONG if error.code == DIFFERS else UNTOLD)
    if as_json:
        click.echo(_json({"right": True, **asdict(verification)}))
    elif not merge_options.quiet:
        _print(out, verification)


def _json(data: dict[str, object]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False)


def _print(out: str, verification: Verification) -> None:
    click.echo(f"{out}: {verification.tensors} tensors, {in_bytes(verification.bytes)}.")
    if verification.hashed:
        click.echo("By its hashes, every byte of weights and files is what was written.")
    else:
        click.echo("It has no hashes, so that only its recipe tells what it should be.")
    if verification.unheld:
        click.echo(f"It was not held against its recipe: {verification.unheld}")
        return
    click.echo("By its recipe, tensors, config, tokenizer, template and stop tokens are right.")
    if verification.elements:
        click.echo(f"All {verification.elements:,} elements, computed again, are the same.")
    elif not verification.hashed:
        click.echo("All elements are finite; --deep computes them again.")
    if verification.unfinished:
        names = ", ".join(verification.unfinished)
        click.echo(f"It is not made ready to chat: `chatvec finish {out}` changes {names}.")
