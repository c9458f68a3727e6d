"""What a start costs: of the hook, in every Python that has the package, and of our commands.

The hook's figure is Python's own account of it (`-X importtime`), set against a whole start. Each
command runs in turns with the others. Seconds are given twice: as they pass, which other work on
the machine makes longer, and of the processor, user and system together.
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import click

ROOT = Path(__file__).resolve().parent.parent
MODULE = "chatvec_method_startup"
RECIPE = "recipes/world.yaml"
CHATVEC = ("-m", "chatvec_method")
COMPLETE = "_CHATVEC_COMPLETE"
MOST_SECONDS = 0.3
AT_ONCE = """\
--help
demo --help
check --help
merge --help
finish --help
schedule --help
schedule linear --help
schedule show --help
anatomy --help
chat --help
completion bash
chekc
check --sctrict recipes/world.yaml
merge recipes/world.yaml
check nowhere.yaml
merge recipes/world.yaml recipes
finish nowhere
anatomy nowhere.yaml
schedule show nowhere.yaml
schedule linear --from 1 --to 0.3 --layers 32
chat nowhere"""
"""Help, mistakes, and what needs no model."""
COMPLETED = ("chatvec ", "chatvec check rec", "chatvec merge recipes/world.yaml out --lo")
IMPORTS = {
    "importing torch": "import torch",
    "importing torch and transformers": "import torch, transformers",
    "importing mergekit.common, which all of mergekit does": "import mergekit.common",
    "importing all that the check needs": "import chatvec_method.api, mergekit.plan",
}


class Taken(NamedTuple):
    """What a process took, in seconds."""

    passed: float
    processor: float


def accounted() -> float:
    """Return the milliseconds that one start spent in the hook's import, by Python's account."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "pass"], capture_output=True, text=True
    )
    found = re.search(rf"\|\s+(\d+) \|\s+{MODULE}$", result.stderr, re.MULTILINE)
    if found is None:
        raise click.ClickException(f"{MODULE} is not installed in this environment")
    return int(found[1]) / 1000


def taken(
    arguments: Iterable[str], tree: Path = ROOT, environment: Mapping[str, str] | None = None
) -> Taken:
    """Return what a Python takes from start to end, with the package of a tree."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tree), **(environment or {})},
    )
    passed, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Taken(passed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def median(runs: Iterable[Taken]) -> Taken:
    """Return the medians of some runs."""
    return Taken(*map(statistics.median, zip(*runs, strict=True)))


def print_hook(starts: int) -> None:
    """Print the hook's share of a Python start."""
    milliseconds = [accounted() for _ in range(starts)]
    hook = statistics.median(milliseconds)
    start = 1000 * median([taken(["-c", "pass"]) for _ in range(starts)]).passed
    print(f"hook: {hook:.2f} ms median, {max(milliseconds):.2f} ms at most, of {starts} starts")
    print(f"a whole start: {start:.1f} ms median; the hook is {hook / start:.1%} of it")


def print_at_once(runs: int) -> None:
    """Print what help, completion and mistakes take."""
    times: dict[str, list[Taken]] = defaultdict(list)
    for _ in range(runs):
        for line in AT_ONCE.splitlines():
            times[f"chatvec {line}"].append(taken([*CHATVEC, *line.split()]))
        for line in COMPLETED:
            words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
            code = "from chatvec_method.cli import main; main(prog_name='chatvec')"
            environment = {**words, COMPLETE: "bash_complete"}
            times[f"{line}<TAB>"].append(taken(["-c", code], environment=environment))
    medians = {line: median(each) for line, each in times.items()}
    print(f"\nhelp, completion and mistakes, medians of {runs} runs:")
    print("  passed  processor")
    for line, each in medians.items():
        print(f"  {each.passed:4.2f} s     {each.processor:4.2f} s  {line}")
    for kind in Taken._fields:
        slow = [line for line, each in medians.items() if getattr(each, kind) > MOST_SECONDS]
        print(f"over {MOST_SECONDS} s ({kind}): {len(slow)} of {len(medians)}")


def print_check(runs: int, before: str | None) -> None:
    """Print what a check takes, beside the commit before and what it cannot do without."""
    check = [*CHATVEC, "check", RECIPE]
    times: dict[str, list[Taken]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder) / "before"
        if before is not None:
            add = ["git", "worktree", "add", "--quiet", "--detach", str(old), before]
            subprocess.run(add, cwd=ROOT, check=True)
        try:
            for _ in range(runs + 1):  # the first one also writes bytecode
                times["chatvec check"].append(taken(check))
                if before is not None:
                    times[f"chatvec check, at {before}"].append(taken(check, old))
                for name, code in IMPORTS.items():
                    times[name].append(taken(["-c", f"import gc; gc.disable(); {code}"]))
        finally:
            if before is not None:
                remove = ["git", "worktree", "remove", "--force", str(old)]
                subprocess.run(remove, cwd=ROOT, check=True)
    print(f"\nchatvec check {RECIPE}, medians of {runs} runs in turns:")
    print("  passed   processor")
    for name, each in times.items():
        middle = median(each[1:])
        print(f"  {middle.passed:5.2f} s    {middle.processor:5.2f} s  {name}")


@click.command()
@click.option("--starts", default=50, show_default=True, help="Of Python, for the hook.")
@click.option("--runs", default=5, show_default=True, help="Runs of each command.")
@click.option("--before", metavar="COMMIT", help="A commit whose check runs beside ours.")
def main(starts: int, runs: int, before: str | None) -> None:
    """Print the hook's share of a Python start, and what our commands take."""
    print_hook(starts)
    print_at_once(runs)
    print_check(runs, before)


if __name__ == "__main__":
    main()
