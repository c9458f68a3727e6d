"""`chatvec new`: a recipe from the names of its models."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chatvec_method.cli.console import as_printed, console, quiet_libraries, table
from chatvec_method.cli.loading import loading
from chatvec_method.errors import ChatVecError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatvec_method.hub.listing import Child
    from chatvec_method.new.build import NewRecipe


@click.command()
@click.option("--cp", required=True, metavar="MODEL", help="The model that knows the language.")
@click.option("--base", metavar="MODEL", help="What all were trained from; found, if left out.")
@click.option("--chat", "chats", metavar="MODEL", multiple=True, help="A chat model; or several.")
@click.option(
    "--vector",
    "vectors",
    metavar="VECTOR",
    multiple=True,
    help="A chat vector as a file, beside or in place of --base and --chat; or several.",
)
@click.option(
    "--ratio",
    "ratios",
    type=float,
    multiple=True,
    help="How much of the chat vector; several for several, chat models first.  [default: 1]",
)
@click.option("--schedule", metavar="SHAPE", help="A ratio for every layer: see chatvec schedule.")
@click.option("--language", metavar="CODE", help="Of cp, as in ko; its card tells, if left out.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the recipe there, and do not print it.",
)
@click.option("--trust-remote-code", is_flag=True, help="Run the Python code that models bring.")
def new(
    cp: str,
    base: str | None,
    chats: tuple[str, ...],
    vectors: tuple[str, ...],
    ratios: tuple[float, ...],
    schedule: str | None,
    language: str | None,
    output: Path | None,
    trust_remote_code: bool,
) -> None:
    """Write a recipe from the names of its models, in which chatvec check finds nothing.

    Looks at configs, tokenizers and the headers of weight files, here or on the hub, and says of
    each line why it is there. Weights are not read.

    What is left out is found and asked for on a terminal: the base model that the others name on
    the hub, and the chat models that were made from it.

    Example: chatvec new --cp yanolja/EEVE-Korean-10.8B-v1.0 --chat
    upstage/SOLAR-10.7B-Instruct-v1.0 --ratio 0.7 -o eeve.yaml
    """
    if ratios and schedule is not None:
        raise ChatVecError("--schedule is a ratio for every layer.", "Leave --ratio out.")
    if output is not None and output.exists():
        raise ChatVecError(f"{output} exists.", "Write another name, or remove it first.")
    with loading("mergekit"):
        from mergekit.options import MergeOptions

        from chatvec_method.cli.check_report import print_findings
        from chatvec_method.new.build import SWAPPED, build_recipe
        from chatvec_method.new.names import find_base

        quiet_libraries()
    alone = bool(vectors) and not chats and base is None
    if base is None and not alone:
        base = find_base(cp, chats, trust_remote_code)
        click.echo(f"base: {base}, from which the others descend, as they tell.", err=True)
        if _asks():
            click.confirm("Is that right?", default=True, abort=True, err=True)
    names = list(chats)
    if not names and base is not None:
        names = [_chosen_chat(base, cp)]

    def build(base: str | None, names: Sequence[str], cp: str, *accept: str) -> NewRecipe:
        return build_recipe(
            base,
            names,
            cp,
            vectors=vectors,
            ratios=ratios or (1.0,),
            schedule=schedule,
            language=language,
            file=str(output) if output else "recipe.yaml",
            options=MergeOptions(trust_remote_code=trust_remote_code),
            accept=accept,
        )

    try:
        made = build(base, names, cp)
    except ChatVecError as error:
        if error.code != SWAPPED or not _asks():
            raise
        click.echo(error.message, err=True)
        click.confirm("Are the names right all the same?", default=False, abort=True, err=True)
        made = build(base, names, cp, SWAPPED)
    _print(made, output)
    print_findings(console(stderr=True), made.report.findings, made.report.accepted)


def _asks() -> bool:
    """Tell whether there is somebody to ask."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _chosen_chat(base: str, cp: str) -> str:
    from chatvec_method.new.names import chat_candidates, no_chat_named

    candidates = chat_candidates(base, cp)
    if not _asks():
        raise no_chat_named(base, candidates)
    console(stderr=True).print(_candidates_table(base, candidates))
    number = click.prompt(
        "Which one (or another name)?", default="1", err=True, value_proc=lambda text: text.strip()
    )
    if number.isdigit() and 0 < int(number) <= len(candidates):
        return candidates[int(number) - 1].name
    return str(number)


def _candidates_table(base: str, candidates: Sequence[Child]) -> object:
    rows = [
        (str(i), child.name, child.licence, "yes" if child.gated else "", str(child.downloads))
        for i, child in enumerate(candidates, 1)
    ]
    header = ("", "chat model", "licence", "gated", "downloads")
    return table(f"Fine-tuned from {base}", header, rows, right=(0, 4))


def _print(made: NewRecipe, output: Path | None) -> None:
    for text in made.accepted:
        click.echo(text, err=True)
    if output is None:
        click.echo(as_printed(made.recipe.text), nl=False)
        return
    write_new(output, made.recipe.text)
    click.echo(f"{output} is written. Merge it with: chatvec merge {output} out/", err=True)


def write_new(file: Path, text: str) -> None:
    """Write a recipe into a file that is not there yet.

    Raises:
        ChatVecError: It is there, or cannot be written.
    """
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise ChatVecError(f"{file} exists.", "Write another name, or remove it first.") from error
    except OSError as error:
        with suppress(OSError):
            file.unlink()
        raise ChatVecError(
            f"{file} cannot be written ({error.strerror}).",
            "Write the name of a file in a folder that exists.",
        ) from error
