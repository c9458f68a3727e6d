"""`python -m tests.today`: the table of the models of today, and what the product makes of each."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from . import product
from .by_hand import merge_by_hand
from .miniatures import build
from .oracle import Oracle
from .page import page, totals
from .sweep import Outcome, Row, State, sweep, third
from .table import TABLE, Architecture

WIDTHS = (22, 10, 34, 34)


@click.command()
@click.argument("folder", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--only", multiple=True, metavar="NAME", help="Only these; may be repeated.")
@click.option("--third", "part", type=click.IntRange(1, 3), help="Every third, from the Kth on.")
@click.option("--by-hand", is_flag=True, help="Try the oracle: on outputs that are made by hand.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
@click.option("--quiet", is_flag=True, help="Leave out what is wrong with each.")
@click.option(
    "--write", type=click.Path(dir_okay=False, path_type=Path), help="Write the page for people."
)
def main(
    folder: Path | None,
    only: tuple[str, ...],
    part: int | None,
    by_hand: bool,
    as_json: bool,
    quiet: bool,
    write: Path | None,
) -> None:
    """Try every architecture in miniature: check, merge, and stock mergekit with finish.

    The models are made in FOLDER, one architecture after the other, and removed again.

    Exits with 1 where something is wrong in silence, fails late or ends in a traceback.
    """
    if unknown := sorted(set(only) - TABLE.keys()):
        raise click.UsageError(f"there is no {', '.join(unknown)}; there are {', '.join(TABLE)}.")
    entries = [TABLE[name] for name in only] or list(TABLE.values())
    if part:
        entries = third(entries, part)
    if by_hand:
        sys.exit(_try_the_oracle(entries, folder))
    rows = []
    with TemporaryDirectory(dir=folder) as scratch:
        if not as_json:
            _print_cells("architecture", "check", "merge", "stock + finish")
        for row in sweep(entries, Path(scratch)):
            rows.append(row)
            if not as_json:
                _print(row, quiet)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False))
    else:
        click.echo(f"\n{totals(rows)}")
    if write:
        write.write_text(page(rows), encoding="utf-8")
    sys.exit(any(row.faults for row in rows))


def _try_the_oracle(entries: Iterable[Architecture], folder: Path | None) -> bool:
    """Print what the oracle finds wrong in outputs that are right; nothing, if it is any good."""
    found = False
    for entry in entries:
        with TemporaryDirectory(dir=folder) as scratch, product.quiet():
            trio = build(entry, Path(scratch))
            merge_by_hand(Oracle(trio), trio.folder / "out")
            for problem in Oracle(trio).judge(trio.folder / "out").problems:
                click.echo(f"{entry.name}: {problem}")
                found = True
    return found


def _print(row: Row, quiet: bool) -> None:
    _print_cells(row.name, row.check.state.value, _in_short(row.merge), _in_short(row.stock))
    columns = {"check": row.check, "merge": row.merge, "stock": row.stock}
    if not quiet:
        for column, outcome in columns.items():
            for reason in filter(None, outcome.reasons):
                click.echo(f"    {column}: {reason.splitlines()[0][:300]}")


def _print_cells(*cells: str) -> None:
    padded = (cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True))
    click.echo("  ".join(padded).rstrip())


def _in_short(outcome: Outcome) -> str:
    """Return an outcome in one cell: elements off, keys missing, and where it stops."""
    if not outcome.elements:
        return outcome.state.value
    told = [outcome.state.value]
    if outcome.state is not State.EXACT:
        told.append(f"{outcome.off} off, {outcome.missing} missing")
    return f"{', '.join(told)}; stops {' '.join(outcome.stops_at)}"


if __name__ == "__main__":
    main()
