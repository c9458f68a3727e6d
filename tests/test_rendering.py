"""Chat templates within bounds."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from chatvec_method import rendering
from chatvec_method.rendering import TemplateError, render

MESSAGES = [{"role": "user", "content": "hello"}]
PLAIN = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
NEVER_ENDS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
DOUBLES = (
    "{% set n = namespace(s='xxxxxxxx') %}"
    "{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}"
)
CALLS_ITSELF = "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}"


def test_a_conversation_is_rendered_as_transformers_does_it() -> None:
    assert render(PLAIN, MESSAGES, {"bos_token": "<s>"}) == "<s>[user] hello"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (NEVER_ENDS, "does not end within"),
        (f"{CALLS_ITSELF}{{{{ f(50) }}}}", "does not end within"),
        (DOUBLES, "memory|does not end"),
        ("{{ 'x' * 99999999999 }}", "memory"),
        ("{{ 'x'|center(99999999999) }}", "memory"),
        ("{{ 'x' * 9999999 }}", "9999999 characters"),
        ("{{ raise_exception('no system message\nplease') }}", "^no system message$"),
        ("{% for %}", "Expected an expression"),
        ('{{ "\\ud800" }}', "half of a character"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe|undefined|not callable|access"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "recursion"),
        ("x" * 2_000_000, "2000000 characters"),
    ],
)
def test_what_is_too_much_or_wrong_is_told(template: str, says: str) -> None:
    begun = time.monotonic()
    with pytest.raises(TemplateError, match=says):
        render(template, MESSAGES, {})
    assert render(PLAIN, MESSAGES, {"bos_token": ""}) == "[user] hello"
    assert time.monotonic() - begun < 60


def test_a_template_that_took_too_much_is_not_tried_again() -> None:
    for _ in range(20):
        with pytest.raises(TemplateError):
            render(NEVER_ENDS, MESSAGES, {})


def test_nothing_of_the_current_folder_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jinja2.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    rendering._renderer.cache_clear()
    assert render(PLAIN, MESSAGES, {"bos_token": ""}) == "[user] hello"
    assert not (tmp_path / "ran").exists()


def test_a_process_that_has_ended_is_replaced() -> None:
    render(PLAIN, MESSAGES, {})
    for child in psutil.Process().children():
        if "serve()" in " ".join(child.cmdline()):
            child.kill()
            child.wait()
    assert render(PLAIN, MESSAGES, {"bos_token": ""}) == "[user] hello"


def test_threads_get_each_its_own_answer() -> None:
    def ask(number: int) -> str:
        return render("{{ messages[0].content }}", [{"role": "user", "content": str(number)}], {})

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(50))) == [str(number) for number in range(50)]
