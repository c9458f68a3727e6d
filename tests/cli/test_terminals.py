"""What people see on their terminals is what is kept in `screens/`, and it can be read there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pictured import COMMANDS, TERMINALS, Studio, kept, kinds_of, studio, without_what_varies

EVERY = [(command, kind) for command in COMMANDS for kind in kinds_of(command)]


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with studio(tmp_path_factory.mktemp("studio")) as opened:
        yield opened


@pytest.mark.parametrize(("command", "kind"), EVERY, ids="-".join)
def test_a_terminal_shows_what_it_showed(command: str, kind: str, taken: Studio) -> None:
    session = taken.session(command, kind)
    assert session.exit_code == 0
    shown = without_what_varies(session.screen).rstrip("\n")
    expected = kept(command)[kind].rstrip("\n")
    assert shown == expected, f"look at it, then run `python tests/cli/pictured.py {command}`"
    terminal = TERMINALS[kind]
    if terminal.term == "dumb" or terminal.settings:
        assert "\x1b[3" not in session.sent  # a colour


def test_downloads_have_one_bar_for_all_models(taken: Studio) -> None:
    session = taken.session("merge", "80 columns")
    assert session.sent.count("Fetching") > 3  # it was drawn again and again
    assert session.screen.count("Fetching") == 1
    assert "?" not in session.screen


def test_every_kind_is_kept_and_no_other() -> None:
    for command in COMMANDS:
        assert list(kept(command)) == kinds_of(command)


def test_what_is_to_be_copied_has_no_line_breaks_of_ours(taken: Studio) -> None:
    narrow = taken.session("demo", "60 columns").sent.replace("\r\n", "\n")
    assert "mergekit-yaml chatvec-demo/recipe.yaml chatvec-demo/merged --no-write-model" in narrow
    assert "chatvec chat chatvec-demo/merged --compare chatvec-demo/models/cp" in narrow


def test_nothing_is_cut() -> None:
    screens = kept("demo")
    cut = {kind: screen.split().count("…") for kind, screen in screens.items()}
    assert len(set(cut.values())) == 1, cut
