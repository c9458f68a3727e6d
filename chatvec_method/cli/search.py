"""`chatvec search`: the ratio of every part and depth, found by trials."""

from __future__ import annotations

from pathlib import Path

import click

from chatvec_method.cli.completing import FOLDER, RECIPE
from chatvec_method.cli.console import console, json_text, quiet_libraries
from chatvec_method.cli.model_options import with_adapter_cache, with_remote_code
from chatvec_method.errors import ChatVecError
from chatvec_method.hub.named import named_text
from chatvec_method.recipe.text import parse_yaml

MISSING = "Install it with `pip install 'chatvec-method[search]'`."


@click.command()
@click.argument("recipe", type=RECIPE)
@click.option(
    "--trials",
    default=48,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="How many are to be finished, those of other workers and of earlier runs among them.",
)
@click.option(
    "--language",
    "languages",
    multiple=True,
    metavar="NAME",
    help="Put the suite's prompts: ko, ja, zh-Hant, zh-Hans or en. May be given several times.  "
    "[default: the recipe's own]",
)
@click.option(
    "--tasks",
    multiple=True,
    metavar="LIST",
    help="Tasks of lm-evaluation-harness besides, as for `chatvec evaluate`.",
)
@click.option(
    "--text",
    "texts",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Measure the perplexity a byte of this text, too.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=2),
    metavar="N",
    help="For a quick look: N prompts an axis, documents a task and pieces a text.",
)
@click.option(
    "--objective",
    "objectives",
    multiple=True,
    metavar="WHAT",
    help="What is sought, twice or more often: a figure (`follows`), with a sign where more is not "
    "better (`-length`), the mean of several under a name (`quality=follows+refuses`); and limits "
    "(`language>=0.98`).  [default: quality and closeness to the language]",
)
@click.option(
    "--space",
    metavar="NAME",
    default="parts+depth",
    show_default=True,
    help="What is searched: global, parts, depth, parts+depth or layers.",
)
@click.option(
    "--bounds",
    default="0:1.25",
    show_default=True,
    metavar="LOW:HIGH",
    help="Of every ratio.",
)
@click.option(
    "--fix",
    "fixed",
    multiple=True,
    metavar="PART=RATIO",
    help="Do not search this part (attention, mlp, norms, embeddings, head), as `embeddings=0`.",
)
@click.option(
    "--storage",
    metavar="WHERE",
    help="Where trials are kept: a journal's path; a database, postgresql+psycopg://..., "
    "mysql+pymysql://...; or grpc://host:port of optuna's proxy.  [default: a journal in DIR]",
)
@click.option(
    "--study", metavar="NAME", help="What the search is called there.  [default: the recipe's name]"
)
@click.option("--seed", default=0, show_default=True, help="Decides the halves and all draws.")
@click.option(
    "--out",
    type=FOLDER,
    metavar="DIR",
    help="Where the recipes go, with a table and pictures.  [default: NAME-search]",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="cpu, cuda, cuda:1, mps, ...: each worker takes one of its own.",
)
@with_remote_code
@with_adapter_cache
def search(
    recipe: str,
    trials: int,
    languages: tuple[str, ...],
    tasks: tuple[str, ...],
    texts: tuple[Path, ...],
    limit: int | None,
    objectives: tuple[str, ...],
    space: str,
    bounds: str,
    fixed: tuple[str, ...],
    storage: str | None,
    study: str | None,
    seed: int,
    out: Path | None,
    as_json: bool,
    device: str,
    trust_remote_code: bool,
    lora_merge_cache: str | None,
) -> None:
    """Find the ratios of RECIPE that no other trial beats, and whether one ratio does as well.

    A trial sets the ratios of a merge in memory and asks it one half of the prompts; nothing is
    written but its figures. The other half says what the recipes that come out are worth. The same
    command again goes on where it stopped; started several times at once, here or on other
    machines, it shares the work.

    Example: chatvec search recipes/world.yaml --trials 60
    """
    text, name = named_text(recipe)
    parse_yaml(text, name)  # before anything heavy is loaded
    low, high = _bounds(bounds)
    parts = dict(map(_part, fixed))
    quiet_libraries()
    try:
        from chatvec_method.api import search as search_recipe
        from chatvec_method.cli.search_progress import told
        from chatvec_method.cli.search_report import print_outcome

        with told() as on_news:
            outcome = search_recipe(
                recipe,
                out,
                trials=trials,
                language=languages,
                tasks=[name.strip() for each in tasks for name in each.split(",")],
                text=texts,
                limit=limit,
                objective=objectives,
                space=space,
                bounds=(low, high),
                fix=parts,
                storage=storage,
                study=study,
                seed=seed,
                device=device,
                trust_remote_code=trust_remote_code,
                lora_merge_cache=lora_merge_cache,
                on_news=on_news,
            )
    except ImportError as error:
        raise ChatVecError(f"a library for searching is missing ({error}).", MISSING) from error
    if as_json:
        click.echo(json_text(outcome.as_data()))
    else:
        print_outcome(console(), outcome)


def _bounds(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise ChatVecError(f"`{text}` are no bounds.", "Write `--bounds 0:1.25`.") from None


def _part(text: str) -> tuple[str, float]:
    name, _, ratio = text.partition("=")
    try:
        return name.strip(), float(ratio)
    except ValueError:
        raise ChatVecError(
            f"`{text}` is no part with its ratio.", "Write `--fix embeddings=0`."
        ) from None
