"""YAML within bounds."""

from __future__ import annotations

import time

import pytest
import yaml

from chatvec_method.recipe.yaml_text import MOST_CHARACTERS, MOST_VALUES, compose_yaml, load_yaml


def bomb(levels: int) -> str:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


REFUSED = {
    "a bomb of aliases": bomb(9),
    "a bomb of merges": "a: &a {x: 1}\n"
    + "".join(
        f"b{i}: &b{i} {{{', '.join(f'k{j}: *{b}' for j in range(9))}}}\n"
        for i, b in enumerate(["a", *(f"b{i}" for i in range(8))])
    ),
    "what holds itself": "a: &a [*a]",
    "a key that holds itself": "&a {x: *a}",
    "too many values": "[" + "a, " * MOST_VALUES + "]",
    "too deep": "[" * 5000,
    "too long": "x" * (MOST_CHARACTERS + 1),
    "no bool": "a: !!bool maybe",
    "no day": "a: !!timestamp x",
    "no day of the calendar": "a: 2024-13-41",
    "half of a character": 'a: "\\ud800"',
    "half of a character as a key": '"\\ud800": 1',
    "bytes": "a: !!binary x",
    "a set": "a: !!set {x}",
    "code": "a: !!python/object/apply:os.system [ls]",
    "a number of 5,000 digits": "a: " + "9" * 5000,
    "a number of minutes": "a: 1" + ":59" * 100_000,
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_is_no_plain_data_or_too_much_of_it_is_refused_at_once(text: str) -> None:
    begun = time.process_time()
    with pytest.raises(yaml.YAMLError):
        load_yaml(text)
    assert time.process_time() - begun < 2


def test_plain_data_is_read_as_always() -> None:
    text = "a: &a {x: 1.5, y: [no, null, 0x10]}\nb: {<<: *a, z: 2024-01-31}\nc: *a\nd: |\n  e\n"
    assert load_yaml(text) == yaml.safe_load(text)
    assert compose_yaml("") is None
