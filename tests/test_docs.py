"""docs/ has what docs/write.py writes: the commands' help, and what the examples print."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest
from conftest import ROOT

import chatvec_method

AGAIN = "docs/{} is out of date; `python docs/write.py` writes it."


@pytest.fixture(scope="module")
def write() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write", ROOT / "docs" / "write.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_commands_has_their_help(write: ModuleType) -> None:
    page = write.CLI_PAGE.read_text(encoding="utf-8")
    # In words: where lines break, another version of click may see otherwise.
    assert page.split() == write.cli_page().split(), AGAIN.format("cli.md")


def test_the_examples_in_python_run_and_print_what_the_page_says(write: ModuleType) -> None:
    page = write.PYTHON_PAGE.read_text(encoding="utf-8")
    assert page == write.python_page(), AGAIN.format("python.md")


def test_every_public_name_is_on_the_page_and_every_function_in_an_example(
    write: ModuleType,
) -> None:
    page = write.PYTHON_PAGE.read_text(encoding="utf-8")
    code = "\n".join(example["code"] for example in write.EXAMPLE.finditer(page))
    for name in chatvec_method.__all__:
        assert re.search(rf"`{name}`|\b{name}\(", page), f"{name} is not on docs/python.md"
        if name.islower():
            assert re.search(rf"\b{name}\(", code), f"no example calls {name}"
