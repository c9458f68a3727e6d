"""`chatvec schedule`: a ratio for every layer, written for a recipe or shown as it has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chatvec_method.cli.completing import RECIPE
from chatvec_method.cli.console import console, quiet_libraries
from chatvec_method.cli.loading import loading
from chatvec_method.cli.model_options import with_remote_code
from chatvec_method.cli.writing import write
from chatvec_method.cli.written_recipe import recipe_options
from chatvec_method.errors import ChatVecError
from chatvec_method.hub.named import named_text
from chatvec_method.recipe.text import parse_yaml
from chatvec_method.schedules.cases import LLAMA, Schedule, as_yaml, ratio_cases
from chatvec_method.schedules.spec import FORMS, name_and_numbers, parse_shape

if TYPE_CHECKING:
    from chatvec_method.recipe.file import Recipe
    from chatvec_method.schedules.planners import Planner

KINDS = {"attention": "attention", "mlp": "MLP", "norms": "norms"}
"""The options for kinds of tensors, and what plans call these kinds."""

layers_option = click.option(
    "--layers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Do not look at the recipe's models: suppose Llama-like ones of so many layers.",
)


class Shapes(click.Group):
    """A group whose commands are the shapes, also with their numbers (`linear:1:0.3`), and show."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the shapes, and show."""
        return [*FORMS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Return the command of a shape, or show."""
        return super().get_command(ctx, cmd_name) or _shape_command(cmd_name)


@click.group(cls=Shapes, subcommand_metavar="SHAPE ... | show RECIPE [RECIPE]")
def schedule() -> None:
    """Write a ratio for every layer, or show those of a recipe.

    A SHAPE's numbers are options, or stand behind colons in the options' order, as in
    gaussian:0.5:0.2:0.3:1, or with their names, as in gaussian:low=0.3. What is left out has a
    default. --attention, --mlp and --norms take a shape so written, or a number.

    \b
    Examples:
      chatvec schedule linear --from 1 --to 0.3 --layers 32
      chatvec schedule gaussian:low=0.3 --mlp 0.7 --into recipes/world.yaml
      chatvec schedule show recipes/world.yaml
    """  # noqa: D301 (click's sign for lines that stay)


@schedule.command()
@click.argument("recipes", type=RECIPE, nargs=-1, required=True)
@click.option(
    "--png",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a picture too: layers × kinds of tensors, and curves.",
)
@click.option("--dark", is_flag=True, help="The picture for a dark page.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@layers_option
@with_remote_code
def show(
    recipes: tuple[str, ...],
    png: Path | None,
    dark: bool,
    as_json: bool,
    layers: int | None,
    trust_remote_code: bool,
) -> None:
    """Show the ratio of every layer and kind of tensor in one or two RECIPES.

    Ratios are those that mergekit will use, with its lists, filters and slices. Of the models only
    small files are read.

    Example: chatvec schedule show recipes/per_layer.yaml --layers 48 --png schedule.png
    """
    if len(recipes) > 2:
        raise ChatVecError("show takes one or two recipes.", "Leave the others out.")
    if dark and png is None:
        raise ChatVecError("--dark is for a picture.", "Add `--png FILE`.")
    texts = [named_text(recipe) for recipe in recipes]
    for text, name in texts:
        parse_yaml(text, name)  # before anything heavy is loaded
    with loading("mergekit", quiet=as_json):
        from chatvec_method.cli.ratio_tables import print_json, print_ratios
        from chatvec_method.recipe.file import parse_recipe

        quiet_libraries()
    read = [parse_recipe(text, name) for text, name in texts]
    plans = [(recipe.name, _planner(recipe, layers, trust_remote_code)(recipe)) for recipe in read]
    if png is not None:
        from chatvec_method.pictures.ratios import schedule_picture

        write(png, schedule_picture(plans, "dark" if dark else "light"))
    if as_json:
        print_json(plans)
    else:
        print_ratios(console(), plans)


def _shape_command(written: str) -> click.Command:
    """Return the command of a shape, which may have its numbers behind it."""
    name, numbers = name_and_numbers(written)
    if name not in FORMS:
        parse_shape(written)  # says what there is
    form = FORMS[name]

    def run(words: tuple[str, ...], **options: Any) -> None:
        own = {p.name: options.pop(p.name) for p in form.parameters}
        named = [f"{key}={value:g}" for key, value in own.items() if value is not None]
        between = ":" if form.parameters else ","
        given = between.join(filter(None, [numbers, *words, *named]))
        _print_schedule(f"{name}:{given}" if given else name, **options)

    options = [
        click.option(
            f"--{parameter.name}",
            type=float,
            help=f"{parameter.help}  [default: {parameter.default:g}]",
        )
        for parameter in form.parameters
    ]
    command = _with_schedule_options(run)
    for option in reversed([click.argument("words", nargs=-1, metavar="[NUMBERS]"), *options]):
        command = option(command)
    return click.command(
        name=written,
        short_help=form.summary,
        help=f"{form.summary}\n\nExample: chatvec schedule {form.example} --layers 32",
    )(command)


def _with_schedule_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options: list[Callable[..., Any]] = [
        click.option(
            "--layers",
            type=click.IntRange(min=1),
            metavar="N",
            help="How many layers the model has; with --into only where its models are not to be "
            "looked at, and are Llama-like.",
        ),
        click.option(
            "--into",
            type=RECIPE,
            metavar="RECIPE",
            help="Make this recipe with the schedule as its ratio.",
        ),
        click.option(
            "--chat", metavar="MODEL", help="With --into: the chat model, if there are several."
        ),
        *(
            click.option(f"--{option}", metavar="SHAPE", help=f"Another shape for {kind}.")
            for option, kind in KINDS.items()
        ),
        click.option("--embeddings", type=float, help="Their ratio.  [default: the first layer's]"),
        click.option("--head", type=float, help="Its ratio.  [default: the last layer's]"),
        click.option("--final-norm", type=float, help="Its ratio.  [default: the last layer's]"),
        recipe_options,
        with_remote_code,
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _print_schedule(
    shape: str,
    *,
    layers: int | None,
    into: str | None,
    chat: str | None,
    embeddings: float | None,
    head: float | None,
    final_norm: float | None,
    output: Path | None,
    as_diff: bool,
    trust_remote_code: bool,
    **kinds: str | None,
) -> None:
    """Print the `ratio:` of a recipe, or the recipe with it."""
    made = Schedule(
        parse_shape(shape),
        {KINDS[option]: parse_shape(text) for option, text in kinds.items() if text is not None},
        embeddings,
        head,
        final_norm,
    )
    if into is not None:
        text, name = named_text(into)
        parse_yaml(text, name)  # before anything heavy is loaded
        with loading("mergekit"):
            from chatvec_method.cli.written_recipe import deliver
            from chatvec_method.recipe.file import parse_recipe
            from chatvec_method.schedules.into_recipe import with_schedule

            quiet_libraries()
        recipe = parse_recipe(text, name)
        planner = _planner(recipe, layers, trust_remote_code)
        text = with_schedule(recipe, made, planner, chat)
        deliver(recipe, text, output, as_diff=as_diff)
        return
    if output is not None or as_diff:
        raise ChatVecError("-o and --diff are for a recipe.", "Add `--into RECIPE`.")
    if chat is not None:
        raise ChatVecError("--chat is for a recipe.", "Add `--into RECIPE`.")
    if layers is None:
        raise ChatVecError(
            "how many layers the model has is not known.",
            "Add `--layers 32`, or `--into RECIPE` to take it from a recipe's models.",
        )
    lines = as_yaml(ratio_cases(made, LLAMA, layers))
    if len(lines) > 1:
        click.echo("# For Llama-like models. Leave out lm_head where embeddings are tied.")
    click.echo("\n".join(lines))


def _planner(recipe: Recipe, layers: int | None, trust_remote_code: bool) -> Planner:
    from chatvec_method.schedules.planners import planner_of_layers, planner_of_models

    if layers is not None:
        return planner_of_layers(layers)
    try:
        return planner_of_models(recipe, trust_remote_code)
    except ChatVecError as error:
        raise ChatVecError(
            error.problem,
            f"{error.fix} Or add `--layers N`, which supposes Llama-like models of N layers.",
        ) from error
