"""`chatvec evaluate`: what a model, a recipe at many ratios or a server can do in a language."""

from __future__ import annotations

import csv
import io
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chatvec_method.cli.console import console, json_text, quiet_libraries
from chatvec_method.cli.model_options import on_device, with_adapter_cache, with_remote_code
from chatvec_method.cli.writing import write, write_all
from chatvec_method.errors import ChatVecError

if TYPE_CHECKING:
    from chatvec_method.evaluation.results import Results
    from chatvec_method.recipe.file import Recipe

FILE = click.Path(dir_okay=False, path_type=Path)
KEPT = "all answers are kept"
MISSING = "Install it with `pip install 'chatvec-method[evaluate]'`."


@click.command()
@click.argument("targets", metavar="TARGET ...", nargs=-1, required=True)
@click.option(
    "--language",
    "languages",
    multiple=True,
    metavar="LIST",
    help="Put the suite's prompts: ko, ja, zh-Hant, zh-Hans or en, or several: ko,en.",
)
@click.option(
    "--ratio",
    metavar="LIST",
    help="At which ratios to evaluate a recipe: 0,0.25,0.5 or 0:1.5:0.125 (from, to, step).  "
    "[default: the recipe's own]",
)
@click.option(
    "--schedule",
    "schedules",
    multiple=True,
    metavar="SHAPE",
    help="A ratio over the layers beside those, as `chatvec schedule` takes it: linear:1:0.3. May "
    "be given several times.",
)
@click.option(
    "--tasks",
    multiple=True,
    metavar="LIST",
    help="Tasks of lm-evaluation-harness besides: names, YAML files, folders of these. `ready` are "
    "a few that make sense for each --language, `ready-ko` those for one. Most need the hub. A "
    "YAML file of tasks is a program: take none of people whom you do not trust.",
)
@click.option(
    "--text",
    "texts",
    multiple=True,
    type=FILE,
    metavar="FILE",
    help="Measure the perplexity a byte of this text, too.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="For a quick look: N prompts an axis, documents a task and pieces a text.",
)
@click.option(
    "--judge",
    metavar="URL",
    help="Let a model on this OpenAI-compatible server judge open answers, from 1 to 10. The key, "
    "if it wants one, is OPENAI_API_KEY in the environment.",
)
@click.option("--judge-model", metavar="NAME", help="Which model there.  [default: the only one]")
@click.option(
    "--judge-against",
    metavar="TARGET",
    help="Let it also compare answers with those of cp or chat of the recipe, or of a TARGET, in "
    "either order.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything but the answers as JSON.")
@click.option("--csv", "table", type=FILE, metavar="FILE", help="Write every score, a line each.")
@click.option(
    "--answers",
    "answers_file",
    type=FILE,
    metavar="FILE",
    help="Write every answer beside its prompt and mark, one JSON object a line.",
)
@click.option(
    "--png",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write a picture into this folder, for light and dark pages: a panel an axis.",
)
@click.option(
    "--record",
    type=FILE,
    metavar="RECIPE",
    help="Write the headline into this recipe's `measured:`. Its own ratio is evaluated, too.",
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where answers are kept, so that nothing is asked twice and an evaluation that was killed "
    "goes on.  [default: ~/.cache/chatvec-method]",
)
@on_device
@with_remote_code
@with_adapter_cache
def evaluate(
    targets: tuple[str, ...],
    languages: tuple[str, ...],
    ratio: str | None,
    schedules: tuple[str, ...],
    tasks: tuple[str, ...],
    texts: tuple[Path, ...],
    limit: int | None,
    judge: str | None,
    judge_model: str | None,
    judge_against: str | None,
    as_json: bool,
    table: Path | None,
    answers_file: Path | None,
    png: Path | None,
    record: Path | None,
    state: Path | None,
    device: str,
    trust_remote_code: bool,
    lora_merge_cache: str | None,
) -> None:
    """Measure what each TARGET can do in a language, with intervals of 95 %.

    A TARGET is a folder, a name on the hub, a recipe (whose merge is held in memory at one ratio
    after the other) or the address of an OpenAI-compatible server up to /v1 (#NAME behind it names
    the model). Where a model has no chat template, it is talked to as the first TARGET that has
    one. Decoding is greedy.

    Example: chatvec evaluate recipes/eeve_chat.yaml --ratio 0:1.25:0.25 --language ko --limit 10
    """
    quiet_libraries()
    _check_judge(judge, judge_model, judge_against)
    for file in (table, answers_file):
        _check_writable(file)
    recipe = None if record is None else _to_record(record, targets)
    try:
        from chatvec_method.api import evaluate as evaluate_targets
        from chatvec_method.cli.evaluate_progress import told
        from chatvec_method.cli.evaluate_report import print_results

        with told() as on_step:
            results = evaluate_targets(
                targets,
                language=[name.strip() for each in languages for name in each.split(",")],
                ratio=() if ratio is None else ratio,
                schedule=schedules,
                own_ratio=record is not None,
                tasks=[name.strip() for each in tasks for name in each.split(",")],
                text=texts,
                limit=limit,
                judge=judge,
                judge_model=judge_model,
                judge_against=judge_against,
                state=state,
                device=device,
                trust_remote_code=trust_remote_code,
                lora_merge_cache=lora_merge_cache,
                on_step=on_step,
            )
    except ImportError as error:
        raise ChatVecError(f"a library for evaluation is missing ({error}).", MISSING) from error
    if table is not None:
        _write_table(table, results)
    if answers_file is not None:
        _write_answers(answers_file, results)
    if png is not None:
        _write_pictures(png, results)
    if recipe is not None and record is not None:
        _record(record, recipe, results)
    if as_json:
        click.echo(json_text(results.as_data()))
    else:
        print_results(console(), results)


def _to_record(file: Path, targets: tuple[str, ...]) -> Recipe:
    """Return the recipe that gets figures, which must not be those of another's output."""
    from chatvec_method.finishing.output import check_made_from
    from chatvec_method.recipe.file import read_recipe

    recipe = read_recipe(file)
    if len(targets) == 1 and (out := Path(targets[0])).is_dir():
        check_made_from(out, recipe, "Evaluate its output, or leave `--record` out.")
    return recipe


def _check_judge(judge: str | None, model: str | None, against: str | None) -> None:
    if judge is None and (model is not None or against is not None):
        raise ChatVecError(
            f"--judge-{'against' if model is None else 'model'} is for a judge.",
            "Add `--judge URL`.",
        )


def _check_writable(file: Path | None) -> None:
    """Refuse now what could not be written after hours."""
    if file is not None and not file.absolute().parent.is_dir():
        raise ChatVecError(
            f"there is no folder for {file}.", "Write the name of a file in a folder that exists."
        )


def _write_table(file: Path, results: Results) -> None:
    rows: list[dict[str, Any]] = list(results.rows())
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write(file, stream.getvalue(), KEPT)


def _write_answers(file: Path, results: Results) -> None:
    lines = [json.dumps(each, ensure_ascii=False) + "\n" for each in results.answers()]
    write(file, "".join(lines), KEPT)


def _write_pictures(folder: Path, results: Results) -> None:
    from chatvec_method.evaluation.curves import evaluation_pictures

    write_all(folder, dict(evaluation_pictures(results)), KEPT)


def _record(file: Path, recipe: Recipe, results: Results) -> None:
    from chatvec_method.evaluation.record import recorded

    command = shlex.join(["chatvec", *sys.argv[1:]])
    write(file, recorded(recipe, results, command), KEPT)
