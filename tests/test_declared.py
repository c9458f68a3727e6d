"""What the package imports is what pyproject.toml declares."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "chatvec_method"
OURS = {"chatvec_method", "chatvec_method_startup"}
NOTEBOOK = "IPython"
"""Imported where there is a notebook, which has it."""


def imported() -> dict[str, Path]:
    """Return the packages that are imported when code runs, each with a file that does."""
    packages = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        for name in names(ast.parse(file.read_text(encoding="utf-8"))):
            packages[name.split(".")[0]] = file.relative_to(ROOT)
    return {name: file for name, file in packages.items() if name not in sys.stdlib_module_names}


def names(tree: ast.AST) -> Iterator[str]:
    """Yield the modules that some code imports, those for type checkers apart."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        yield from names(node)


def declared() -> set[str]:
    """Return what pyproject.toml names as dependencies, those of extras among them."""
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    tests = extras.pop("test")
    assert tests
    return {
        normalised(re.split(r"[><=~;\[ ]", each)[0])
        for each in (*project["dependencies"], *(one for extra in extras.values() for one in extra))
    }


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_all_that_is_imported_is_declared_and_all_that_is_declared_is_imported() -> None:
    distributions = packages_distributions()
    dependencies, needed = declared(), set()
    for name, file in imported().items():
        if name in OURS | {NOTEBOOK}:
            continue
        assert name in distributions, f"{file} imports {name}, which is not installed"
        holders = set(map(normalised, distributions[name]))  # several, of ruamel
        assert holders & dependencies, f"{file} imports {name}, which is not declared"
        needed |= holders
    assert dependencies <= needed, f"imported nowhere: {dependencies - needed}"


def test_a_package_index_shows_the_readme_without_links_that_lead_nowhere() -> None:
    command = [sys.executable, "-m", "hatch_fancy_pypi_readme", str(ROOT / "pyproject.toml")]
    shown = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    links = re.findall(r"\]\(([^)]*)\)", shown)
    assert {"https://arxiv.org/abs/2310.04799"} <= set(links)
    assert not [link for link in links if not link.startswith(("https://", "#"))]
    headings = re.compile(r"^#.*", re.MULTILINE)
    assert headings.findall(shown) == headings.findall(readme)
    assert len(shown) > 0.85 * len(readme)
