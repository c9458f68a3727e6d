"""The command line `chatvec`: the only room that prints and exits.

Each command has a file of its own, which declares it. torch, transformers and mergekit take seconds
to load: a command imports them when it runs, and no `--help`, completion or usage error does.
"""

from __future__ import annotations

import difflib
import importlib
from functools import partial
from typing import TYPE_CHECKING, Any

import click

import chatvec_method
from chatvec_method.cli.exits import told
from chatvec_method.cli.last_resort import in_one_line
from chatvec_method.cli.outliving import outlived
from chatvec_method.cli.streams import own_streams

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "demo": "See it done in seconds: three tiny models, the stock merge, and one that chats.",
    "new": "Write a recipe from the names of its models, each line with its reason.",
    "recipes": "List the recipes of the catalogue, or those that people share on the hub.",
    "check": "Tell what is wrong with a recipe and its models, before the merge.",
    "merge": "Check, merge, verify and finish: a model that is right and chats, or nothing.",
    "finish": "Make a merge's output ready to chat, also that of stock mergekit-yaml.",
    "verify": "Tell whether a merge's output is what was written, and what its recipe makes.",
    "pin": "Write into a recipe which commits of its models it means.",
    "share": "Put a finished model, or a recipe, on the hub.",
    "vector": "Extract a chat vector as a file, to be shared and added to any cp of its base.",
    "schedule": "Write a ratio for every layer, or show those of a recipe.",
    "anatomy": "Tell where chat and language vectors live in a model, and where they collide.",
    "evaluate": "Measure what a merge can do in your language, at every ratio you like.",
    "search": "Find the ratio of every part and depth by trials, on as many machines as you have.",
    "chat": "Talk to a model in the terminal, beside others if you like.",
    "live": "Serve a merge whose ratio is turned while you talk to it: OpenAI's API, and a page.",
    "completion": "Print what makes a shell complete commands, options, recipes and folders.",
}
"""The commands, in the order of their use, with what `chatvec --help` says of them."""


class Commands(click.Group):
    """A group that imports a command's module when the command is called."""

    def main(self, *args: Any, **settings: Any) -> Any:
        """Run a command, with output and input as `streams` has them.

        One that is this process's own, and not a Python program's, is outlived by another.
        """
        run = partial(super().main, *args, **settings)
        by_program = bool(args) or settings.get("args") is not None
        with own_streams():
            return run() if by_program else outlived(run)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, now that it is needed."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"chatvec_method.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is called; click knows no names that are like a wrong one."""
        near = difflib.get_close_matches(args[0], COMMANDS, n=1)
        if near and args[0] not in COMMANDS and not ctx.resilient_parsing:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands and options that begin so, without importing the commands."""
        from click.shell_completion import CompletionItem

        commands = [
            CompletionItem(name, help=about)
            for name, about in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and keep what was written for `invoke`."""
        ctx.obj = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors are told as the table of exit codes and `--json` have them."""
        with told(ctx.obj), in_one_line():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Say what the commands are for without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    name="chatvec",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="chatvec COMMAND --help tells more, with an example.",
)
@click.version_option(chatvec_method.__version__)
def main() -> None:
    """Chat vectors: θ_cp + ratio · (θ_chat − θ_base), from the recipe to a model that chats."""
