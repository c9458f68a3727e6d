"""`chatvec live`: a merge in memory, served at any ratio."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from chatvec_method.cli.completing import RECIPE
from chatvec_method.cli.console import quiet_libraries
from chatvec_method.cli.exits import INTERRUPTED
from chatvec_method.cli.loading import loading
from chatvec_method.cli.model_options import on_device, with_adapter_cache, with_remote_code
from chatvec_method.errors import ChatVecError
from chatvec_method.hub.named import named_text
from chatvec_method.recipe.text import parse_yaml
from chatvec_method.serving.address import address_of, bound

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from chatvec_method.live_merge.model import LiveMerge
    from chatvec_method.serving.engine import Engine

NEEDED = ("fastapi", "uvicorn", "gradio")
TERMINATED = 128 + 15
"""The exit code of a process that SIGTERM ends."""
SECONDS_TO_END = 0.5
"""So long a step of the model may take after Ctrl-C; then the process ends all the same."""


@click.command()
@click.argument("recipe", type=RECIPE, required=False)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    metavar="N",
    help="Where to be reached; 0 for any port that is free.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Where to be reached. Any other than this machine's own, as 0.0.0.0, takes a --token.",
)
@click.option(
    "--token",
    envvar="CHATVEC_TOKEN",
    show_envvar=True,
    metavar="TEXT",
    help="What everybody must bring: programs as their API key, browsers once, in a form. Others "
    "on this machine can read a command line, and not the variable.",
)
@on_device
@with_remote_code
@with_adapter_cache
@click.option(
    "--space",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Serve nothing, and write a folder that a Hugging Face Space runs as it is: the same for "
    "everybody.",
)
def live(
    recipe: str | None,
    port: int,
    host: str,
    token: str | None,
    device: str,
    trust_remote_code: bool,
    lora_merge_cache: str | None,
    space: Path | None,
) -> None:
    """Serve the merge of RECIPE, at whatever ratio each request says.

    The merge is in memory: nothing is written to disk. Without RECIPE it is the miniature world of
    `chatvec demo`. Programs talk to it as to OpenAI's API, at /v1, with the models `merge`,
    `merge@0.7`, `cp` and `chat`, or `ratio` and `schedule` as fields of a request.

    A browser has a page there, on which the ratio is turned while one talks to the model.

    Example: chatvec live recipe.yaml
    """
    for module in NEEDED:
        if find_spec(module) is None:
            raise ChatVecError(
                f"{module} is not installed, which serves the merge.",
                "Run `pip install 'chatvec-method[live]'`.",
            )
    if space is not None:
        _write_space(space, recipe, trust_remote_code)
        return
    place = bound(host, port, token)
    text = None if recipe is None else named_text(recipe)
    if text is not None:
        parse_yaml(*text)  # what is no YAML is told before anything heavy is loaded
    signal.signal(signal.SIGTERM, _terminated)
    with loading("transformers"):
        from chatvec_method import api
        from chatvec_method.demo import world_recipe
        from chatvec_method.options import options_of_models
        from chatvec_method.recipe.file import parse_recipe
        from chatvec_method.serving.engine import Engine
        from chatvec_method.serving.running import server_of

        quiet_libraries()
    merge = api.live(
        world_recipe() if text is None else parse_recipe(*text),
        device=device,
        **options_of_models(trust_remote_code, lora_merge_cache),
    )
    engine = Engine(merge, device=device)

    def tell() -> None:
        click.echo(f"{address_of(place)} in a browser is the page.")
        click.echo(
            f"{address_of(place)}/v1 has {', '.join(engine.settings.names)} and merge@RATIO."
        )
        click.echo("Ctrl-C ends it.")

    code = INTERRUPTED
    try:
        app = _served(engine, merge, token, world=text is None)
        server_of(app, engine, tell).run(sockets=[place])
    except KeyboardInterrupt:
        click.echo("Stopped.", err=True)
    except SystemExit as left:
        code = int(left.code or 0)
    engine.close(SECONDS_TO_END)
    _end(code)


def _served(engine: Engine, merge: LiveMerge, token: str | None, *, world: bool) -> ASGIApp:
    """Return all that is served, behind the guard.

    Args:
        engine: Answers.
        merge: With which.
        token: What everybody must bring.
        world: Whether it is the demonstration's.
    """
    from chatvec_method.serving.app import api
    from chatvec_method.serving.guard import Guard
    from chatvec_method.serving.page.mounting import mount_page

    # With a token others than this machine's own people may come, and they write nothing here.
    app = mount_page(api(engine), engine, merge, world=world, may_write=token is None)
    return Guard(app, token)


def _write_space(folder: Path, recipe: str | None, trust_remote_code: bool) -> None:
    """Write a Space's folder, and say how it is put on the hub."""
    with loading("transformers"):
        from chatvec_method import api
        from chatvec_method.recipe.file import parse_recipe
        from chatvec_method.serving.space import write_space

        quiet_libraries()
    survey = None
    if recipe is not None:
        named = parse_recipe(*named_text(recipe))
        survey = api.survey(named, trust_remote_code=trust_remote_code).ready()
    written = write_space(folder, survey)
    for text in written.warnings:
        click.echo(f"warning: {text}", err=True)
    click.echo(f"Written to {folder}: {', '.join(written.files)}.")
    click.echo(f"To the hub: hf upload OWNER/NAME {folder} --repo-type space")


def _end(code: int) -> NoReturn:
    """End the process as Python would, but at once.

    It would wait for a step of the model, which may take long and cannot be stopped, and take apart
    what torch has in memory.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ChatVecError):
            stream.flush()
    os._exit(code)


def _terminated(*_: object) -> NoReturn:
    raise SystemExit(TERMINATED)
