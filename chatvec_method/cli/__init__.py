"""The command line `chatvec`: the only room that prints and exits.

Each command has a file of its own, which is imported when the command is called: torch,
transformers and mergekit take seconds to load, and `--help` needs none of them.
"""

from __future__ import annotations

import gc
import importlib
from types import ModuleType

import click

import chatvec_method

COMMANDS = {
    "demo": "See it done in seconds: three tiny models, the stock merge, and one that chats.",
    "check": "Tell what is wrong with a recipe and its models, before the merge.",
    "merge": "Check, merge, verify and finish: a model that is right and chats, or nothing.",
    "finish": "Make a merge's output ready to chat, also that of stock mergekit-yaml.",
    "schedule": "Write a ratio for every layer, or show those of a recipe.",
    "anatomy": "Tell where chat and language vectors live in a model, and where they collide.",
    "evaluate": "Measure what a merge can do in your language, at every ratio you like.",
    "chat": "Talk to a model in the terminal, beside another if you like.",
}
"""The commands, in the order of their use, with what `chatvec --help` says of them."""


class Commands(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, now that it is needed."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(_imported(cmd_name), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Say what the commands are for without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _imported(command: str) -> ModuleType:
    """Import a command's module, and with it the libraries that it needs.

    They make a million objects that stay. A fifth of the time would go to the garbage collector,
    which looks through all of them again and again and finds nothing.
    """
    gc.disable()
    try:
        return importlib.import_module(f"chatvec_method.cli.{command}")
    finally:
        gc.freeze()
        gc.enable()


@click.group(
    name="chatvec",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="chatvec COMMAND --help tells more, with an example.",
)
@click.version_option(chatvec_method.__version__)
def main() -> None:
    """Chat vectors: θ_cp + ratio · (θ_chat − θ_base), from the recipe to a model that chats."""
