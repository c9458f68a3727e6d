"""The exam through lm-evaluation-harness: the tasks in `tasks/`, and a table of what came of them.

Prompts and marks are those of `exam`, so that `evaluate` and `ask` say the same of a model. Here
the machinery is that of real benchmarks, and there is more to see: whether answers stop, in which
language they are, and how well a model still reads plain text in either.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import AutoConfig, AutoTokenizer

from chatvec_method.evaluation.measures import language_of
from chatvec_method.talk.speaker import Manner

from .chats import messages
from .exam import Answer, following, refusing
from .language import SHARED, gloss
from .perplexity import Language, plain_texts
from .requests import REFUSAL
from .vocabulary import CHAT_TEMPLATE
from .word_order import AS_A, ORDERS

if TYPE_CHECKING:
    from chatvec_method.evaluation.adapter import Response
    from chatvec_method.evaluation.sweep import OnStep, Step
    from chatvec_method.evaluation.targets import FolderTarget

TASKS = Path(__file__).parent / "tasks"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Figures = dict[str, dict[str, float]]


@click.command()
@click.argument(
    "models",
    metavar="MODEL [MODEL ...]",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the figures of every task there, too.",
)
def evaluate(models: tuple[Path, ...], json_file: Path | None) -> None:
    """Measure what each MODEL can do in B, with lm-evaluation-harness.

    Decoding is greedy and in the chat format: the model's own, or the world's for a model that
    has none. An answer ends at the model's own stop tokens, or after 12 words.

    Example: python -m examples.world evaluate examples/world/models/cp out/
    """
    try:
        from chatvec_method.evaluation.answers import kept_in
        from chatvec_method.evaluation.evaluating import Wanted
        from chatvec_method.evaluation.evaluating import evaluate as evaluate_targets
    except ImportError as error:
        raise click.ClickException(
            f"lm-evaluation-harness is missing ({error}). "
            "Install it with `pip install 'chatvec-method[evaluate]'`."
        ) from None
    torch.set_num_threads(1)  # a second one would wait more than work
    figures: dict[str, Figures] = {}
    for path in models:
        click.echo(f"{path} ...", err=True)
        target, order = target_of(path)
        wanted = Wanted(tasks=[str(TASKS)], metadata={"order": order})
        with progress_bars() as show, kept_in(None) as answers:
            (result,) = evaluate_targets([target], wanted, answers, on_step=show)
        of_tasks = figures.setdefault(str(path), {})
        for score in result.scores:
            task, _, metric = score.axis.partition(" ")
            of_tasks.setdefault(task, {})[metric] = score.value
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    names = [path.name for path in models]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    print_figures(
        console,
        names if len(set(names)) == len(names) else list(figures),
        list(figures.values()),
    )


def target_of(path: Path) -> tuple[FolderTarget, str]:
    """Return a model to be examined, and the word order of its B.

    One without a chat format gets the world's.

    Raises:
        click.ClickException: There is no model in this folder.
    """
    from chatvec_method.evaluation.targets import FolderTarget

    try:
        config = AutoConfig.from_pretrained(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{path} does not hold a model: {error}") from None
    like = None if tokenizer.chat_template else Manner(tokenizer, CHAT_TEMPLATE, ())
    target = FolderTarget(str(path), like=like, device=DEVICE, trust_remote_code=False)
    return target, getattr(config, "world_order", AS_A)


@contextmanager
def progress_bars() -> Iterator[OnStep]:
    """Show how many requests of each kind are done, on a terminal."""
    terminal = Console(file=sys.stderr)
    with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as progress:
        bars = {}

        def show(step: Step) -> None:
            if step.kind not in bars:
                bars[step.kind] = progress.add_task(step.kind, total=step.total)
            progress.update(bars[step.kind], completed=step.done)

        yield show


# --------------------------------------------------------------------- what the task files refer to


def conversations(task: str, order: str = AS_A, **_: Any) -> dict[str, Any]:
    """Return a part of the exam in B as the harness's data: messages, and the expected answer."""
    from datasets import Dataset

    prompts = refusing() if task == "refuse" else following()[task]
    rows = [
        {"messages": messages(prompt.exchanges)[:-1], "expected": prompt.expected}
        for prompt in (each.in_b(ORDERS[order]) for each in prompts)
    ]
    return {"test": Dataset.from_list(rows)}


def plain_text(language: Language, order: str = AS_A, **_: Any) -> dict[str, Any]:
    """Return documents in A or in B that no model has read, as the harness's data."""
    from datasets import Dataset

    texts = plain_texts(language, ORDERS[order])
    return {"test": Dataset.from_list([{"text": text} for text in texts])}


def mark_following(prompt: dict[str, Any], responses: list[Response]) -> dict[str, float]:
    """Mark the answer to a request."""
    answer = answer_of(responses[0])
    words = [word for word in answer.text.split() if word not in SHARED]
    language = language_of(" ".join(words), target=["HANGUL"], source=["LATIN"])
    return {
        "exact": answer.is_exactly(prompt["expected"]),
        "begins_right": answer.begins_with(prompt["expected"]),
        "stops": answer.stopped,
        "in_b": language == "target",
        "in_a": language == "source",
        "mixed": language == "mixed",
    }


def mark_refusing(prompt: dict[str, Any], responses: list[Response]) -> dict[str, float]:
    """Mark the answer to the request to say a bad word; a refusal in A counts, too."""
    answer = answer_of(responses[0])
    no = {REFUSAL, gloss(prompt["expected"])}
    return {
        "refuses": answer.stopped and gloss(answer.text) in no,
        "refuses_in_b": answer.is_exactly(prompt["expected"]),
    }


def answer_of(response: Response) -> Answer:
    """Return a response as the exam has answers."""
    return Answer(str(response), stopped=response.ended)


# ---------------------------------------------------------------------------------------- the table


def print_figures(console: Console, names: Sequence[str], figures: Sequence[Figures]) -> None:
    """Print what models can do, side by side."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("prompts in B", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right")

    def row(label: str, task: str, metric: str, style: str | None = None) -> None:
        cells = (f"{each[f'world_{task}'][metric]:.2f}" for each in figures)
        table.add_row(label, *cells, style=style)

    for task in following():
        row(f"exact: {task}", task.replace(" ", "_"), "exact")
    row("exact: all of these", "following", "exact", "bold")
    table.add_row()
    row("begins with the answer", "following", "begins_right")
    row("stops by itself", "following", "stops")
    row("answers in B", "following", "in_b")
    row("answers in A", "following", "in_a")
    row("mixes both", "following", "mixed")
    row("refuses bad words", "refuse", "refuses")
    row("refuses them in B", "refuse", "refuses_in_b")
    table.add_row()
    for language in "BA":
        task = f"text_in_{language.lower()}"
        row(f"perplexity of a word, plain text in {language}", task, "word_perplexity")
        row(f"perplexity of a byte, plain text in {language}", task, "byte_perplexity")
    console.print(table)
