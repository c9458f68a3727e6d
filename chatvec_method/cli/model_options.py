"""Options of the commands that load models: where one runs, and whether with its own code."""

from __future__ import annotations

import click

on_device = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="cpu, cuda, cuda:1, mps, ...; auto takes the accelerators if there are any.",
)
with_remote_code = click.option(
    "--trust-remote-code", is_flag=True, help="Run the Python code that a model brings."
)
