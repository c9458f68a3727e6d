"""mergekit's options as we declare them are mergekit's, and help shows them where they help."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner
from mergekit.common import parse_kmb
from mergekit.options import MergeOptions, add_merge_options

from chatvec_method.cli import main
from chatvec_method.cli.mergekit_options import MERGEKIT_OPTIONS, Size, mergekit_options
from chatvec_method.options import merge_options

HEADING = "Options of mergekit:"


def declared(decorator: Any) -> dict[str, click.Option]:
    """Return the options that a decorator gives to a command, by name."""
    command = click.command()(decorator(lambda **_: None))
    return {param.name: param for param in command.params if isinstance(param, click.Option)}


def test_names_types_and_defaults_are_mergekits() -> None:
    ours = declared(mergekit_options("merge", all_taken=True))
    theirs = declared(add_merge_options)

    assert ours.keys() == theirs.keys() == MergeOptions.model_fields.keys()
    for name, option in ours.items():
        expected = theirs[name]
        assert sorted(option.opts) == sorted(expected.opts), name
        assert option.secondary_opts == expected.secondary_opts, name
        assert (option.is_flag, option.count) == (expected.is_flag, expected.count), name
        assert option.type.name == expected.type.name, name
        assert option.default == expected.default, name


def test_without_options_mergekit_gets_its_own_defaults() -> None:
    assert merge_options(**{o.name: o.default for o in MERGEKIT_OPTIONS}) == MergeOptions()


@pytest.mark.parametrize("written", ["5B", "500m", "20k", "1234"])
def test_a_size_is_what_mergekit_takes_it_for(written: str) -> None:
    assert Size().convert(written, None, None) == parse_kmb(written)


@pytest.mark.parametrize("written", ["", "B", "5GB", "-1", "1.5B", "five"])
def test_what_is_no_size_is_a_usage_error(written: str) -> None:
    result = CliRunner().invoke(main, ["merge", "r.yaml", "out", "--out-shard-size", written])

    assert result.exit_code == 2
    assert "is no size such as 500M or 5B" in result.stderr


def help_of(command: str) -> tuple[str, str]:
    """Return a command's help above and below the heading of mergekit's options."""
    own, heading, theirs = CliRunner().invoke(main, [command, "--help"]).stdout.partition(HEADING)
    assert heading
    return own, theirs


def test_help_has_our_options_first_and_mergekits_where_they_do_something() -> None:
    for command, here, not_here in [
        ("check", "--lora-merge-dtype", "--multi-gpu"),
        ("merge", "--no-write-model-card", "--random-seed"),
        ("anatomy", "--device", "--no-write-model-card"),
    ]:
        own, theirs = help_of(command)
        assert "--json" in own
        assert not [o for o in MERGEKIT_OPTIONS if f"--{o.name.replace('_', '-')}" in own]
        assert here in theirs
        assert not_here not in theirs


def test_check_and_merge_take_what_a_mergekit_yaml_command_has_and_anatomy_only_what_it_uses() -> (
    None
):
    for command, words in [("check", ["nowhere.yaml"]), ("merge", ["nowhere.yaml", "out"])]:
        result = CliRunner().invoke(main, [command, *words, "--clone-tensors", "--async-write"])
        assert "cannot be read" in result.stderr
    result = CliRunner().invoke(main, ["anatomy", "nowhere.yaml", "--write-model-card"])
    assert "No such option" in result.stderr
