"""Who imports whom, held against the table in CONTRIBUTING.md."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import takewhile

import pytest
from conftest import ROOT

PACKAGE = "chatvec_method"
FACE = "__init__"
HEADER = "| in `chatvec_method/` |"
QUOTED = re.compile(r"`(\w+)`")


@dataclass(frozen=True)
class Import:
    """One module of the package that another imports."""

    source: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}, line {self.line}, imports {self.target}"

    @property
    def arrow(self) -> tuple[str, str]:
        """From room to room."""
        return room(self.source), room(self.target)


def room(module: str) -> str:
    """Return the room of a module: what stands behind the package's name."""
    return f"{module}.{FACE}".split(".")[1]


def modules() -> dict[str, ast.Module]:
    """Return the syntax of every module of the package."""
    trees = {}
    for file in sorted((ROOT / PACKAGE).rglob("*.py")):
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(f".{FACE}")
        trees[name] = ast.parse(file.read_text(encoding="utf-8"), file)
    return trees


def imports(trees: Mapping[str, ast.Module]) -> Iterator[Import]:
    """Yield all imports within the package: in functions and for type checkers alone, too.

    `import chatvec_method`, for its version, is none: Python imports it before any other module.
    """
    for source, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets = [name.name for name in node.names if "." in name.name]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{source}, line {node.lineno}: write the whole name"
                inner = [f"{node.module}.{name.name}" for name in node.names]
                targets = [full if full in trees else node.module or "" for full in inner]
            else:
                continue
            for target in targets:
                if target.split(".")[0] == PACKAGE:
                    yield Import(source, target, node.lineno)


@dataclass(frozen=True)
class Plan:
    """What CONTRIBUTING.md says of the rooms."""

    ground: frozenset[str]
    """Rooms that everyone may import, and that import only each other."""
    arrows: Mapping[str, frozenset[str]]
    """Which other rooms each room may import."""

    @property
    def rooms(self) -> frozenset[str]:
        """All rooms."""
        return self.ground | self.arrows.keys()

    def allows(self, source: str, target: str) -> bool:
        """Tell whether a room may import another."""
        return source == target or target in self.ground | self.arrows.get(source, frozenset())


@pytest.fixture(scope="module")
def plan() -> Plan:
    lines = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(HEADER))
    rows = [line.strip("|").split("|") for line in takewhile(bool, lines[start + 2 :])]
    cells = [(QUOTED.findall(first), last.strip()) for first, _, last in rows]
    (ground,) = (frozenset(names) for names, may in cells if may == "the ground")
    named = {name: may for names, may in cells for name in names if name not in ground}
    arrows = {name: frozenset(QUOTED.findall(may)) for name, may in named.items()}
    for name, may in named.items():
        if may.startswith("all"):  # or "all but"
            arrows[name] = named.keys() - arrows[name] - {name, FACE}
    return Plan(ground, arrows)


@pytest.fixture(scope="module")
def imported() -> list[Import]:
    return list(imports(modules()))


def test_the_table_has_the_rooms_that_there_are(plan: Plan) -> None:
    assert {room(module) for module in modules()} - {"__main__"} == plan.rooms
    assert frozenset().union(*plan.arrows.values()) <= plan.rooms


def test_nobody_imports_what_the_table_does_not_allow(plan: Plan, imported: list[Import]) -> None:
    wrong = [
        str(each)
        for each in imported
        if not plan.allows(*each.arrow) and each.arrow != ("__main__", "cli")
    ]
    assert not wrong, "\n".join(wrong)


def test_there_are_no_circles_between_rooms(plan: Plan) -> None:
    assert_no_circle(plan.arrows)


def test_there_are_no_circles_between_modules(imported: list[Import]) -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for each in imported:
        graph[each.source].add(each.target)
    assert_no_circle(graph)


def assert_no_circle(graph: Mapping[str, Iterable[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle: {' ← '.join(error.args[1])}") from None
