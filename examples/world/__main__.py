"""The command line: train the models, and ask models what they can do.

`python -m examples.world train OUT` and `python -m examples.world ask MODEL [MODEL ...]`,
from the root of the repository.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import torch
import transformers
from rich.console import Console
from transformers import AutoTokenizer, LlamaForCausalLM

from . import report
from .evaluate import evaluate
from .exam import following, refusing
from .settings import SIZES, World
from .stages import STAGES, WorldError, grow, is_finished, run_stage
from .word_order import AS_A, ORDERS

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A miniature world of two languages, in which the chat vector works."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


@main.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--seed", default=0, show_default=True, help="Decides the weights and the text.")
@click.option(
    "--again",
    type=click.Choice(list(STAGES)),
    multiple=True,
    help="Train this stage even if it is finished, and those that build on it.",
)
@click.option(
    "--only",
    type=click.Choice(list(STAGES)),
    multiple=True,
    help="Train only this stage, and those it builds on.",
)
@click.option("--size", type=click.Choice(list(SIZES)), default="small", show_default=True)
@click.option(
    "--order",
    type=click.Choice(list(ORDERS)),
    default=AS_A,
    show_default=True,
    help="The word order of B. With its verb last, the world is harder.",
)
@click.option(
    "--threads",
    default=1,
    show_default=True,
    help="CPU threads. A second one saves a third of the time on a quiet machine, and on a busy "
    "one costs more than it brings.",
)
def train(
    out: Path,
    seed: int,
    again: tuple[str, ...],
    only: tuple[str, ...],
    size: str,
    order: str,
    threads: int,
) -> None:
    """Train base, chat, cp and the models to compare with from nothing, each into its folder.

    Takes under seven minutes on one CPU core; a GPU is used where there is one. Finished stages are
    kept, so that an interrupted run goes on where it was. The losses are in OUT/train.log.

    Example: python -m examples.world train /tmp/world --seed 1
    """
    torch.set_num_threads(threads)
    world = World(seed, SIZES[size], order)
    try:
        grow(out, world, DEVICE, click.echo, only=only, again=again)
    except WorldError as error:
        raise click.ClickException(str(error)) from None


@main.command("experiment")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--seeds", default="0,1,3,5,6", show_default=True, help="As in 0-4, or 0,2,5.")
@click.option("--size", type=click.Choice(list(SIZES)), default="small", show_default=True)
@click.option("--order", type=click.Choice(list(ORDERS)), default=AS_A, show_default=True)
def run_experiment(out: Path, seeds: str, size: str, order: str) -> None:
    """Repeat the paper's experiment: train, merge at many ratios, measure, tell.

    The world of each seed grows in OUT/seed-N, unless it is there, and is measured into
    OUT/seed-N.json, unless that is there. OUT/results.csv, OUT/results.md and the pictures are of
    all these seeds together. Takes about ten minutes a seed on one CPU core.

    Example: python -m examples.world experiment /tmp/experiment --seeds 0,1,3,5,6
    """
    from . import experiment, figures, ordering, results
    from .second_format import measure_second_format

    torch.set_num_threads(1)  # a second one would wait more than work
    numbers, measured = _numbers(seeds), []
    for seed in numbers:
        world, file = World(seed, SIZES[size], order), out / f"seed-{seed}.json"
        if not file.exists():
            click.echo(f"--- seed {seed}")
            try:
                grow(out / f"seed-{seed}", world, DEVICE, click.echo)
            except WorldError as error:
                raise click.ClickException(str(error)) from None
            told = (out / f"seed-{seed}", DEVICE, click.echo)
            experiment.save([*experiment.measure(*told), *measure_second_format(*told)], file)
        measured.append(experiment.load(file))
    table = results.spreads(measured)
    seed_by_seed = ordering.markdown(ordering.orderings(table, numbers))
    text = f"{seed_by_seed}\n{results.markdown(table)}"
    (out / "results.md").write_text(text, encoding="utf-8")
    results.write_csv(table, numbers, out / "results.csv")
    figures.draw_sweep(table, out / "ratio.png")
    figures.draw_tasks(table, out / "tasks.png")
    figures.draw_schedules(table, out / "schedules.png")
    click.echo(f"Written: {out}/results.md, results.csv, ratio.png, tasks.png, schedules.png")


@main.command("endurance")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--seeds", default="0,1,3,5,6", show_default=True, help="As in 0-4, or 0,2,5.")
@click.option(
    "--steps", default="100,200,400,800,1600,3200", show_default=True, help="Of cp's training."
)
def run_endurance(out: Path, seeds: str, steps: str) -> None:
    """Ask when a chat vector stops working: more and more pretraining, ratios and schedules.

    The models of each seed grow in OUT/seed-N, unless they are there; answers are kept in OUT/kept.
    Writes OUT/endurance.csv, endurance.md and endurance.png. Takes about a quarter of an hour a
    seed on one CPU core.

    Example: python -m examples.world endurance /tmp/endurance --seeds 0,1,3,5,6
    """
    from . import endurance, figures

    torch.set_num_threads(1)  # a second one would wait more than work
    rows = []
    for seed in _numbers(seeds):
        click.echo(f"--- seed {seed}")
        folder, state = out / f"seed-{seed}", out / "kept"
        try:
            told = (World(seed), folder, state, DEVICE, click.echo, _numbers(steps))
            rows += endurance.measure_seed(*told)
        except WorldError as error:
            raise click.ClickException(str(error)) from None
        endurance.write_csv(rows, out / "endurance.csv")
        (out / "endurance.md").write_text(endurance.markdown(rows), encoding="utf-8")
        figures.draw_endurance(rows, out / "endurance.png")
    click.echo(f"Written: {out}/endurance.csv, endurance.md, endurance.png")


@main.command("search")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--seeds", default="0,1,3,5,6", show_default=True, help="As in 0-4, or 0,2,5.")
@click.option("--trials", default=20, show_default=True, help="Of each way to search.")
@click.option("--order", type=click.Choice(list(ORDERS)), default=AS_A, show_default=True)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    help="Of cp's training, on the same text.  [default: 800]",
)
def run_search(out: Path, seeds: str, trials: int, order: str, steps: int | None) -> None:
    """Ask whether a schedule pays: hypervolume against trials, for seven ways to search.

    The world of each seed grows in OUT/seed-N, unless it is there, and is searched into
    OUT/search-N.json, unless that is there. Writes OUT/search.csv, search.md and search.png. Takes
    about three minutes a seed on one quiet CPU core, beside the training.

    Example: python -m examples.world search /tmp/search --seeds 0,1,3,5,6
    """
    from . import endurance, search

    torch.set_num_threads(1)  # a second one would wait more than work
    stage = STAGES["cp"] if steps is None else endurance.cp_of(steps)
    curves = {}
    for seed in _numbers(seeds):
        world, file = World(seed, order=order), out / f"search-{seed}.json"
        if not file.exists():
            click.echo(f"--- seed {seed}")
            try:
                grow(out / f"seed-{seed}", world, DEVICE, click.echo, only=("chat",))
                if not is_finished(stage, out / f"seed-{seed}", world):
                    run_stage(stage, out / f"seed-{seed}", world, DEVICE, click.echo)
            except WorldError as error:
                raise click.ClickException(str(error)) from None
            told = (out / f"seed-{seed}", stage.name, world, trials, DEVICE, click.echo)
            search.save(search.measure(*told), file)
        curves[seed] = search.hypervolumes(search.load(file, trials))
    search.write_csv(curves, out / "search.csv")
    table = search.markdown(curves, sorted({5, 10, trials} & set(range(1, trials + 1))))
    (out / "search.md").write_text(table, encoding="utf-8")
    search.draw(curves, out / "search.png")
    click.echo(f"Written: {out}/search.csv, search.md, search.png")


@main.command("vectors")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--seeds", default="0,1,3,5,6", show_default=True, help="As in 0-4, or 0,2,5.")
def run_vectors(out: Path, seeds: str) -> None:
    """Ask what a chat vector's file may leave out: bits of every element, or rank.

    The models of each seed grow in OUT/seed-N, unless they are there, and are measured into
    OUT/vectors-N.csv, unless that is there. Writes OUT/vectors.csv, vectors.md and vectors.png.

    Example: python -m examples.world vectors /tmp/vectors --seeds 0,1,3,5,6
    """
    from . import figures, vectors

    torch.set_num_threads(1)  # a second one would wait more than work
    rows = []
    for seed in _numbers(seeds):
        folder, file = out / f"seed-{seed}", out / f"vectors-{seed}.csv"
        if not file.exists():
            click.echo(f"--- seed {seed}")
            try:
                grow(folder, World(seed), DEVICE, click.echo, only=("chat", "cp"))
            except WorldError as error:
                raise click.ClickException(str(error)) from None
            vectors.write_csv(list(vectors.measure(folder, seed, DEVICE, click.echo)), file)
        rows += vectors.read_csv(file)
    vectors.write_csv(rows, out / "vectors.csv")
    (out / "vectors.md").write_text(vectors.markdown(rows), encoding="utf-8")
    figures.draw_vectors(rows, out / "vectors.png")
    click.echo(f"Written: {out}/vectors.csv, vectors.md, vectors.png")


def _numbers(text: str) -> list[int]:
    """Read `0-2,5` as 0, 1, 2 and 5."""
    try:
        ranges = [[int(end) for end in part.split("-")] for part in text.split(",")]
        return [number for ends in ranges for number in range(ends[0], ends[-1] + 1)]
    except ValueError:
        raise click.BadParameter("write numbers and ranges, as in 0-2,5.") from None


@main.command()
@click.argument(
    "models",
    metavar="MODEL [MODEL ...]",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option(
    "--prompts",
    type=click.IntRange(min=1),
    default=40,
    show_default=True,
    help="Prompts a task; of questions there are no more than 16 each.",
)
@click.option(
    "--examples",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Prompts of each task to show with all answers.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the shares as JSON, nothing else.")
def ask(models: tuple[Path, ...], prompts: int, examples: int, as_json: bool) -> None:
    """Ask each MODEL the same held-out requests in B, and show what they answer.

    Decoding is greedy and in the chat format: the model's own, or the world's for a model that
    has none. Words of B are glossed in A.

    Example: python -m examples.world ask examples/world/models/cp out/
    """
    torch.set_num_threads(1)  # a second one would wait more than work
    exam, bad = following(prompts), refusing()
    names = [path.name for path in models]
    if len(set(names)) < len(names):
        names = [str(path) for path in models]
    papers = []
    for name, path in zip(names, models, strict=True):
        try:
            model = LlamaForCausalLM.from_pretrained(path, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(path)
        except OSError as error:
            raise click.ClickException(f"{path} does not hold a model: {error}") from None
        papers.append(report.examine(name, model.to(DEVICE).eval(), tokenizer, exam, bad))
    if as_json:
        click.echo(json.dumps(report.as_json(papers), indent=2))
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    if examples:
        report.print_examples(console, exam, bad, papers, examples)
    report.print_marks(console, exam, bad, papers)


main.add_command(evaluate)


if __name__ == "__main__":
    main(prog_name="python -m examples.world")
