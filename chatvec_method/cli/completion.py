"""`chatvec completion`: what a shell reads at its start, so that it completes our commands."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_CHATVEC_COMPLETE"
"""By which click knows that a shell asks."""


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options, recipes and folders.

    Put it where the shell finds it, once:

    \b
      bash   chatvec completion bash >> ~/.bashrc
      zsh    chatvec completion zsh >> ~/.zshrc
      fish   chatvec completion fish > ~/.config/fish/completions/chatvec.fish

    The next shell has it. For zsh, `compinit` has to come before it in ~/.zshrc.

    Example: eval "$(chatvec completion bash)"
    """  # noqa: D301 (click's sign for lines that stay)
    from click.shell_completion import get_completion_class

    from chatvec_method.cli import main

    kind = get_completion_class(shell)
    assert kind is not None  # click has all of SHELLS
    click.echo(kind(main, {}, "chatvec", VARIABLE).source(), nl=False)
