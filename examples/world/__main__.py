"""The command line: train the three models, and ask models what they can do.

``python -m examples.world train OUT`` and ``python -m examples.world ask MODEL [MODEL ...]``,
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
from .exam import following, refusing
from .stages import STAGES, WorldError, is_finished, run_stage

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
    help="Train this stage even if it is finished; base brings chat and cp with it.",
)
@click.option(
    "--threads",
    default=1,
    show_default=True,
    help="CPU threads. A second one saves a third of the time on a quiet machine, and on a busy "
    "one costs more than it brings.",
)
def train(out: Path, seed: int, again: tuple[str, ...], threads: int) -> None:
    """Train base, chat and cp from nothing, into OUT/base, OUT/chat and OUT/cp.

    Takes about five minutes on one CPU core. Finished stages are kept, so that an interrupted run
    goes on where it was. The losses are in OUT/train.log.

    Example: python -m examples.world train /tmp/world --seed 1
    """
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    trained: set[str] = set()
    try:
        for stage in STAGES.values():
            wanted = stage.name in again or stage.parent in trained
            if not wanted and is_finished(stage, out, seed):
                click.echo(f"{stage.name}: finished before, kept")
                continue
            run_stage(stage, out, seed, DEVICE, click.echo)
            trained.add(stage.name)
    except WorldError as error:
        raise click.ClickException(str(error)) from None


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


if __name__ == "__main__":
    main(prog_name="python -m examples.world")
