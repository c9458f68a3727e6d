"""Words of strangers in Markdown."""

from __future__ import annotations

import pytest

from chatvec_method.finishing.markdown import code, prose, table


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("apache-2.0", "apache-2.0"),
        ("my_model_v2 (7B)", "my_model_v2 (7B)"),
        ("# heading\n\n# more", "\\# heading # more"),
        ("<img src=x onerror=alert(1)>", "\\<img src=x onerror=alert(1)\\>"),
        ("[x](javascript:1)", "\\[x\\]\\(javascript:1)"),
        ("a | b", "a \\| b"),
        ("`x", "\\`x"),
        ("*x* _y_", "\\*x\\* \\_y\\_"),
        ("&lt;b&gt;", "\\&lt;b\\&gt;"),
        ("\x1b[8mx", "\\\\x1b\\[8mx"),
    ],
)
def test_no_sign_means_anything(text: str, written: str) -> None:
    assert prose(text) == written


@pytest.mark.parametrize(
    ("text", "written"),
    [("<|end|>", "`<|end|>`"), ("a`b", "``a`b``"), ("`", "`` ` ``"), ("a\n\nb", "`a b`")],
)
def test_code_ends_where_it_should(text: str, written: str) -> None:
    assert code(text) == written


def test_a_cell_stays_one() -> None:
    assert table(["a"], [["x|y"], ["x\\|y"]]).splitlines()[2:] == ["| x\\|y |", "| x\\|y |"]
