"""What the package and each of its extras brings: packages, megabytes, seconds.

Builds the wheel, and installs it with uv into new environments, one for each extra and one without.
Seconds are of `uv pip install` with uv's cache as it was: whoever has nothing in it also waits for
the megabytes to arrive. In the environment without extras, the demonstration then shows that it
works.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import NamedTuple

import click

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("pictures", "anatomy", "evaluate", "quantised")
FOR_GPUS = re.compile(r"nvidia-|cuda-|triton$")
MEGABYTE = 10**6


class Installed(NamedTuple):
    """What an environment has."""

    bytes: dict[str, int]
    """Of each package's files."""
    seconds: float


def uv(*arguments: str | Path) -> None:
    """Run uv, which `.[test]` brings."""
    command = shutil.which(
        "uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if command is None:
        raise click.ClickException("uv is not installed; `pip install uv` brings it")
    subprocess.run([command, *map(str, arguments), "--quiet"], check=True)


def installed(environment: Path, python: str, requirements: Iterable[str]) -> Installed:
    """Make an environment and return what it then has."""
    uv("venv", "--clear", "--python", python, environment)
    begin = time.perf_counter()
    uv("pip", "install", "--python", environment / "bin" / "python", *requirements)
    seconds = time.perf_counter() - begin
    (site,) = environment.glob("lib/python*/site-packages")
    sizes = {d.metadata["Name"].lower(): size_of(d) for d in distributions(path=[str(site)])}
    return Installed(sizes, seconds)


def size_of(package: Distribution) -> int:
    """Return the bytes of a package's files."""
    paths = [Path(str(file.locate())) for file in package.files or ()]
    return sum(path.stat().st_size for path in paths if path.is_file())


def row(name: str, sizes: dict[str, int], seconds: float | None = None) -> str:
    """Return a line of the table."""
    largest = sorted(sizes, key=lambda package: -sizes[package])[:4]
    named = ", ".join(f"{package} {sizes[package] / MEGABYTE:.0f}" for package in largest)
    took = "" if seconds is None else f"{seconds:.0f}"
    megabytes = f"{sum(sizes.values()) / MEGABYTE:.0f}"
    return f"| {name} | {len(sizes)} | {megabytes} | {took} | {named} |"


def try_it(environment: Path, folder: Path) -> None:
    """Let the demonstration run as it was installed, away from the repository."""
    command = [environment / "bin" / "chatvec", "demo", folder / "demo"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if ran.returncode != 0:
        raise click.ClickException(f"chatvec demo failed:\n{ran.stdout}{ran.stderr}")
    print(f"\n`chatvec demo` ran: {next(li for li in ran.stdout.splitlines() if 'seconds' in li)}")


@click.command()
@click.option("--python", default=sys.executable, help="Of the environments.")
@click.option("--torch", metavar="SPEC", help="A build of torch, as torch==2.13.0+cpu.")
@click.option("--extra", "extras", multiple=True, default=EXTRAS, help="Those to install.")
@click.option("--core-only", is_flag=True, help="No extras.")
def main(python: str, torch: str | None, extras: tuple[str, ...], core_only: bool) -> None:
    """Print a table of what the wheel and each extra bring."""
    given = [torch] if torch else []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        uv("build", "--wheel", "--out-dir", folder, ROOT)
        (wheel,) = folder.glob("*.whl")
        core = installed(folder / "core", python, [str(wheel), *given])
        gpu = {p: size for p, size in core.bytes.items() if FOR_GPUS.match(p)}
        rest = {p: s for p, s in core.bytes.items() if p not in gpu and p != "torch"}
        version = subprocess.check_output([python, "--version"], text=True).strip()
        print(f"{version}, torch: {torch or 'the one that the index has'}\n")
        print("| | packages | MB | seconds | the largest |\n| --- | --- | --- | --- | --- |")
        print(row("the package, with all it needs", core.bytes, core.seconds))
        print(row("of which torch", {"torch": core.bytes["torch"]}))
        if gpu:
            print(row("of which for NVIDIA's GPUs", gpu))
        print(row("of which the rest", rest))
        for extra in () if core_only else extras:
            environment = folder / extra
            whole = installed(environment, python, [f"{wheel}[{extra}]", *given])
            added = {p: s for p, s in whole.bytes.items() if p not in core.bytes}
            print(row(f"`[{extra}]` adds", added, whole.seconds))
            shutil.rmtree(environment)
        try_it(folder / "core", folder)


if __name__ == "__main__":
    main()
