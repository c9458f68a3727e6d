"""What a start costs: of the hook, in every Python that has the package, and of our commands.

The hook's figure is Python's own account of it (`-X importtime`), set against a whole start. The
commands are `chatvec --help`, and `chatvec check` of the demonstration's recipe, set against a
Python that imports what the check needs.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click

MODULE = "chatvec_method_startup"
RECIPE = Path(__file__).parent.parent / "recipes" / "world.yaml"
CHATVEC = ("-m", "chatvec_method")


def accounted() -> float:
    """Return the milliseconds that one start spent in the hook's import, by Python's account."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "pass"], capture_output=True, text=True
    )
    found = re.search(rf"\|\s+(\d+) \|\s+{MODULE}$", result.stderr, re.MULTILINE)
    if found is None:
        raise click.ClickException(f"{MODULE} is not installed in this environment")
    return int(found[1]) / 1000


def seconds(*arguments: str) -> float:
    """Return what a Python takes from start to end."""
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, cwd=RECIPE.parent.parent
    )
    return time.perf_counter() - begin


def median(runs: int, *arguments: str) -> float:
    """Return the median of some runs, in seconds."""
    return statistics.median(seconds(*arguments) for _ in range(runs))


@click.command()
@click.option("--starts", default=50, show_default=True)
@click.option("--runs", default=5, show_default=True, help="Runs of each command.")
def main(starts: int, runs: int) -> None:
    """Print the hook's share of a Python start, and what our commands take."""
    milliseconds = [accounted() for _ in range(starts)]
    hook, start = statistics.median(milliseconds), 1000 * median(starts, "-c", "pass")
    print(f"hook: {hook:.2f} ms median, {max(milliseconds):.2f} ms at most, of {starts} starts")
    print(f"a whole start: {start:.1f} ms median; the hook is {hook / start:.1%} of it")
    print(f"chatvec --help: {median(runs, *CHATVEC, '--help'):.2f} s")
    imports = median(runs, "-c", "import chatvec_method.cli.check")
    check = median(runs, *CHATVEC, "check", str(RECIPE))
    print(f"chatvec check: {check:.2f} s; importing what it needs: {imports:.2f} s")


if __name__ == "__main__":
    main()
