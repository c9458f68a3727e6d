"""The READMEs: their commands run, and those in other languages keep step with the English one."""

from __future__ import annotations

import html
import itertools
import re
import shlex
import shutil
from pathlib import Path

import pytest
from cli.pictured import kept
from click.testing import CliRunner
from conftest import ROOT
from mergekit.scripts import run_yaml

from chatvec_method import cli

LANGUAGES = ("ko", "ja", "zh-TW", "zh-CN")
ENGLISH = ROOT / "README.md"
PAGES = [ENGLISH, ROOT / "docs" / "guide.md", ROOT / "docs" / "after.md"]
SCREENS = 3
LINES_OF_A_SCREEN = 50
ELSEWHERE = {
    "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/chatvec demo": "test_demo.py",
    "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/pytest": "CI",
    ". .venv/bin/activate": "needs the first of them",
    "chatvec chat out/ --compare CP": "talk/test_chat.py",
}
"""Commands that something else runs."""
MARKS = ("# hub", "# not ours")
"""Of commands that need the hub, an account, or a program that is not ours."""


def blocks(page: Path) -> list[str]:
    """Return the code of a page, block by block."""
    text = page.read_text(encoding="utf-8")
    indented = re.compile(r"(?:^ {4}\S.*\n)+", re.MULTILINE)
    fenced = re.compile(r"^```\w*\n.*?^```$", re.MULTILINE | re.DOTALL)
    found = [(m.start(), m[0]) for m in fenced.finditer(text)]
    hidden = fenced.sub(lambda m: "\n" * len(m[0]), text)
    found += [(m.start(), m[0]) for m in indented.finditer(hidden)]
    return [block for _, block in sorted(found)]


def commands(page: Path) -> list[str]:
    """Return the commands of a page: the indented lines but for formulas."""
    indented = [block for block in blocks(page) if not block.startswith("```")]
    lines = [line.strip() for block in indented for line in block.splitlines()]
    return [line for line in lines if not line.startswith("θ_out")]


def ours(line: str) -> bool:
    """Tell whether a command is to be run here."""
    return not line.endswith(MARKS) and line not in ELSEWHERE


RUN = list(dict.fromkeys(line for page in PAGES for line in commands(page) if ours(line)))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the commands need of a clone."""
    folder = tmp_path_factory.mktemp("clone")
    for part in ("examples/world/models", "recipes", "docs"):
        shutil.copytree(ROOT / part, folder / part)
    return folder


@pytest.mark.parametrize("line", RUN)
def test_a_command_of_a_page_does_its_work(
    line: str, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clone)
    for command in line.split(" && "):
        program, *arguments = shlex.split(command, comments=True)
        main = {"chatvec": cli.main, "mergekit-yaml": run_yaml.main}[program]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        for option, value in itertools.pairwise(arguments):
            if option in ("-o", "--png"):
                assert Path(value).exists()


def test_a_command_that_is_not_run_says_why() -> None:
    for page in PAGES:
        for line in commands(page):
            names_a_hub = re.search(r"eeve|yanolja/|^hf ", line)
            assert not (names_a_hub and ours(line)), f"{line} needs a mark: {MARKS}"


def outline(page: Path) -> list[str]:
    """Return the levels of a page's headings, with the code below each."""
    text = page.read_text(encoding="utf-8")
    without_code = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#+(?= )", without_code, re.MULTILINE)


def links(page: Path) -> list[str]:
    """Return where the links and pictures of a page lead, but for those to other languages."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [target for target in targets if not re.fullmatch(r"README(\.[\w-]+)?\.md", target)]


def tables(page: Path) -> list[int]:
    """Return how many cells each line of a page's tables has."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return [line.count("|") for line in lines if line.startswith("|")]


def figures(page: Path) -> set[str]:
    """Return the numbers of a page that were measured: in its tables, and three in its text."""
    text = page.read_text(encoding="utf-8").replace(" ", "")
    rows = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    return set(re.findall(r"\d+\.\d(?:%|GB)?", rows)) | set(re.findall("192|96%|65GB", text))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_readme_in_another_language_keeps_step(language: str) -> None:
    page = ROOT / f"README.{language}.md"
    assert outline(page) == outline(ENGLISH)
    assert blocks(page) == blocks(ENGLISH)
    assert sorted(links(page)) == sorted(links(ENGLISH))
    assert tables(page) == tables(ENGLISH)
    assert figures(page) >= figures(ENGLISH)


def test_every_language_leads_to_all_others() -> None:
    pages = {"README.md", *(f"README.{language}.md" for language in LANGUAGES)}
    for name in pages:
        third = (ROOT / name).read_text(encoding="utf-8").splitlines()[2]
        assert set(re.findall(r"\((README[^)]*)\)", third)) == pages - {name}


@pytest.mark.parametrize("page", [*PAGES, *(ROOT / f"README.{lang}.md" for lang in LANGUAGES)])
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        if target.startswith("http"):
            continue
        file, _, heading = target.partition("#")
        there = page.parent / file if file else page
        assert there.exists(), f"{page.name}: {target}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            names = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in names, f"{page.name}: {target}"


@pytest.mark.parametrize("name", ["README.md", *(f"README.{lang}.md" for lang in LANGUAGES)])
def test_a_readme_is_under_three_screens(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert len(lines) < SCREENS * LINES_OF_A_SCREEN


def test_the_recording_is_what_the_demo_prints() -> None:
    picture = (ROOT / "docs" / "demo.svg").read_text(encoding="utf-8")
    words = "".join(html.unescape(re.sub(r"<[^>]+>", "", picture)).split())
    for line in kept("demo")["120 columns"].splitlines():
        if "seconds" not in line and "…" not in line:
            for part in line.split("  "):
                assert "".join(part.split()) in words, f"run `python docs/recording.py`: {part}"
