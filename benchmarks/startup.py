"""What the start-up hook costs every start of Python in an environment that has the package.

The figure is Python's own account of it (`-X importtime`), set against a whole start.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time

import click

MODULE = "chatvec_method_startup"


def accounted() -> float:
    """Return the milliseconds that one start spent in the hook's import, by Python's account."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "pass"], capture_output=True, text=True
    )
    found = re.search(rf"\|\s+(\d+) \|\s+{MODULE}$", result.stderr, re.MULTILINE)
    if found is None:
        raise click.ClickException(f"{MODULE} is not installed in this environment")
    return int(found[1]) / 1000


@click.command()
@click.option("--starts", default=50, show_default=True)
def main(starts: int) -> None:
    """Print the hook's share of a Python start."""
    milliseconds = [accounted() for _ in range(starts)]
    whole = []
    for _ in range(starts):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        whole.append((time.perf_counter() - begin) * 1000)
    hook, start = statistics.median(milliseconds), statistics.median(whole)
    print(f"hook: {hook:.2f} ms median, {max(milliseconds):.2f} ms at most, of {starts} starts")
    print(f"a whole start: {start:.1f} ms median; the hook is {hook / start:.1%} of it")


if __name__ == "__main__":
    main()
