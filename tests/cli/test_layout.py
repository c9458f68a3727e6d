"""What fits a terminal: no word is in two lines, and nothing that is to be copied is broken."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from chatvec_method.cli.layout import figures, prose, records

PIECES = ["the", "오늘", "owner/name-7b", "`a: {b: c}`", "。"]
WORDS = st.lists(st.sampled_from(PIECES), max_size=30)


def shown(width: int) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)


def text_of(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


@given(WORDS, st.integers(20, 90), st.integers(0, 4))
def test_sentences_break_between_words_and_not_in_code(
    words: list[str], width: int, indent: int
) -> None:
    screen = shown(width)
    prose(screen, " ".join(words), indent=indent)
    lines = text_of(screen).splitlines()
    assert " ".join(line.removeprefix(" " * indent) for line in lines) == " ".join(words)
    assert all(cell_len(line) <= width for line in lines)
    assert all(line.count("`") % 2 == 0 for line in lines)


def test_code_that_is_too_long_is_left_to_the_terminal() -> None:
    screen = shown(20)
    code = "`chatvec check recipes/eeve_chat.yaml --fix`"
    prose(screen, f"Run {code} now.")
    assert text_of(screen) == f"Run\n{code}\nnow.\n"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_tables_of_numbers_become_several(width: int) -> None:
    screen = shown(width)
    header = ["", *(f"column {i}" for i in range(9))]
    rows = [[f"layer {row}", *(f"{row + i / 10:.2f} %" for i in range(9))] for row in range(3)]
    figures(screen, "", header, rows)
    lines = text_of(screen).splitlines()
    assert all(cell_len(line) <= width for line in lines)
    numbers = re.findall(r"\d\.\d\d %", text_of(screen))
    assert sorted(numbers) == sorted(cell for row in rows for cell in row[1:])


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_names_are_whole_in_a_table_or_a_block(width: int) -> None:
    screen = shown(width)
    models = ["upstage/SOLAR-10.7B-Instruct-v1.0", "한국어/모델-10.8B-v1.0"]
    header = ["role", "model", "architecture", "layers", "size"]
    rows = [["chat", model, "LlamaForCausalLM", "48", "21.5 GB"] for model in models]
    records(screen, "recipe.yaml", header, rows, right=(3, 4), heads=2)
    said = text_of(screen)
    for word in [*models, "LlamaForCausalLM"]:
        assert said.count(word) == (1 if word in models else 2)
    assert all(cell_len(line) <= width for line in said.splitlines())
