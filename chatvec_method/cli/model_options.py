"""Options of the commands that load models: where one runs, its own code, its adapters."""

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
with_adapter_cache = click.option(
    "--lora-merge-cache",
    metavar="FOLDER",
    help="Where models with an adapter (MODEL+ADAPTER) are kept, once it is added.",
)
