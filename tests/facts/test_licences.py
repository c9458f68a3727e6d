"""Licences by their names: which is the strictest of several."""

from __future__ import annotations

import pytest

from chatvec_method.facts.licences import Strictness, strictest, strictness


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("apache-2.0", Strictness.PERMISSIVE),
        ("bsd-3-clause", Strictness.PERMISSIVE),
        ("cc-by-sa-4.0", Strictness.SHARE_ALIKE),
        ("agpl-3.0", Strictness.SHARE_ALIKE),
        ("llama3", Strictness.OWN_TERMS),
        ("gemma", Strictness.OWN_TERMS),
        ("exaone", Strictness.OWN_TERMS),
        (None, Strictness.NOT_STATED),
        ("cc-by-nc-4.0", Strictness.NON_COMMERCIAL),
        ("cc-by-nc-sa-4.0", Strictness.NON_COMMERCIAL),
        ("cc-by-nc-nd-4.0", Strictness.NO_DERIVATIVES),
        ("cc-by-nd-4.0", Strictness.NO_DERIVATIVES),
    ],
)
def test_a_licences_name_tells_how_strict_it_is(name: str | None, expected: Strictness) -> None:
    assert strictness(name) is expected


def test_the_strictest_of_several_is_the_first_of_those_that_are_as_strict() -> None:
    assert strictest(["apache-2.0", "llama3", "gemma"]) == "llama3"
    assert strictest(["cc-by-nc-4.0", None, "mit"]) == "cc-by-nc-4.0"
    assert strictest([]) is None
