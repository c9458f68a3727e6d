"""An evaluation from its targets to its results."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from chatvec_method.errors import ChatVecError
from chatvec_method.evaluation import suite
from chatvec_method.evaluation.answers import Answers, kept_in
from chatvec_method.evaluation.harness import Tasks, known_tasks, load_tasks, tasks_in
from chatvec_method.evaluation.judge import Judge
from chatvec_method.evaluation.questions import suite_task, text_of, text_task
from chatvec_method.evaluation.ready import task_names
from chatvec_method.evaluation.results import Circumstances, Results
from chatvec_method.evaluation.server import server_at
from chatvec_method.evaluation.sweep import OnStep, Questions, Result, Step, Text, sweep
from chatvec_method.evaluation.targets import RecipeTarget, Target
from chatvec_method.quiet import quiet

PACKAGES = ("chatvec-method", "lm-eval", "mergekit", "torch", "transformers")
JUDGED = "judge"
"""The kind of requests that go to a judge."""


@dataclass(frozen=True)
class JudgedBy:
    """Who judges open answers."""

    url: str
    """Of an OpenAI-compatible server, up to /v1."""
    model: str | None = None
    """As the server calls it; None for the only one that it has."""
    against: str | None = None
    """With whose answers the others are compared: a target, or "cp" (a recipe's at ratio 0) or
    "chat"."""


@dataclass(frozen=True)
class Wanted:
    """What an evaluation is to find out."""

    languages: Sequence[str] = ()
    """Of the suite."""
    tasks: Sequence[str] = ()
    """Of the harness: names, YAML files, folders of these, and groups of ours."""
    texts: Sequence[Path] = ()
    """Files that are read besides the suite's own texts."""
    limit: int | None = None
    """Prompts an axis, documents a task and pieces a text at most; None for all."""
    metadata: Mapping[str, Any] | None = None
    """What the tasks' `custom_dataset` functions are told."""
    judge: JudgedBy | None = None


def evaluate(
    targets: Sequence[Target],
    wanted: Wanted,
    answers: Answers,
    *,
    on_step: OnStep,
) -> Results:
    """Evaluate targets; what was answered before is not asked again.

    Args:
        targets: What to evaluate.
        wanted: What to find out.
        answers: What was answered before, and where to keep what is answered now.
        on_step: Is told after every response.

    Raises:
        ChatVecError: There is nothing to find out, a task or a language is not there, or a target
            cannot be asked.
    """
    questions = questions_of(wanted, writing_only=any(t.kind == "server" for t in targets))
    judge = None
    if wanted.judge is not None:  # before hours of asking, as it may not be there
        judge = Judge(server_at(wanted.judge.url, wanted.judge.model), answers)
    results = list(sweep(targets, questions, answers, on_step))
    if judge is not None and wanted.judge is not None:
        chats = {each.name: each.chats for each in targets if isinstance(each, RecipeTarget)}
        results = _judged(results, judge, wanted.judge.against, chats, on_step)
    now = datetime.now(timezone.utc).replace(microsecond=0)
    revisions = {target.name: target.revisions for target in targets}
    circumstances = Circumstances(now.isoformat(), versions(), revisions, wanted.limit)
    moved = {each.name: each.moved() for each in targets if isinstance(each, RecipeTarget)}
    return Results(tuple(results), moved, circumstances)


@contextmanager
def answers_in(state: Path | None) -> Iterator[Answers]:
    """Open the answers that are kept in a folder; None for the person's own cache."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with kept_in(caches / "chatvec-method" if state is None else state) as answers:
        yield answers


def questions_of(wanted: Wanted, *, writing_only: bool) -> Questions:
    """Return what to ask, loaded.

    Args:
        wanted: What to find out.
        writing_only: Whether a target writes and gives no log-likelihoods.

    Raises:
        ChatVecError: There is nothing to ask, or a task or a language is not there.
    """
    languages = tuple(dict.fromkeys(wanted.languages))
    suites = [suite_task(language, wanted.limit) for language in languages]
    texts, readings = [], []
    for language in languages:
        texts.append(Text(f"text_{language}", "reads", language))
        readings.append(text_task(texts[-1].task, suite.text(language), wanted.limit))
    for file in wanted.texts:
        texts.append(Text(f"text_{file.name}", f"reads {file.name}", None))
        readings.append(text_task(texts[-1].task, text_of(file), wanted.limit))
    if not suites and not readings and not wanted.tasks:
        raise ChatVecError(
            "nothing is to be found out.",
            f"Write `--language` with one of {', '.join(suite.LANGUAGES)}, or `--tasks`.",
        )
    names = task_names(wanted.tasks, languages)
    with quiet():
        tasks = _loaded(suites, names, wanted) if suites or names else None
        reading = load_tasks(readings, include_defaults=False) if readings else None
        line = load_tasks(readings[:1], include_defaults=False) if readings else None
    if writing_only and tasks is not None:
        _check_all_write(tasks)
    samples = None
    if tasks is not None and wanted.limit is not None:
        samples = {
            name: range(min(wanted.limit, len(task.eval_docs)))
            for name, task in tasks.loaded["tasks"].items()
            if name not in {each["task"] for each in suites}
        }
    return Questions(languages, wanted.limit, tuple(texts), tasks, reading, line, samples)


def _loaded(suites: Sequence[Mapping[str, Any]], names: Sequence[str], wanted: Wanted) -> Tasks:
    folders, own = [], []
    for name in names:
        path = Path(name)
        if path.is_dir():
            folders.append(path)
            own += tasks_in(path)
        elif path.suffix in (".yaml", ".yml") and path.is_file():
            folders.append(path.parent)
            own.append(name)
        else:
            own.append(name)
    known = known_tasks(folders)
    strangers = [each for each in own if each not in known and not Path(each).is_file()]
    with _importable_here(bool(folders)):
        return load_tasks(
            [*suites, *own],
            include_path=folders,
            include_defaults=bool(strangers),
            metadata=wanted.metadata,
        )


@contextmanager
def _importable_here(wanted: bool) -> Iterator[None]:
    """Let functions that a person's own tasks name be imported from the folder one is in."""
    if not wanted:
        yield
        return
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _check_all_write(tasks: Tasks) -> None:
    for name, task in tasks.loaded["tasks"].items():
        if task.OUTPUT_TYPE != "generate_until":
            raise ChatVecError(
                f"the task {name} asks for log-likelihoods, which a server does not give.",
                "Leave it out, or evaluate the model's folder.",
            )


def _judged(
    results: Sequence[Result],
    judge: Judge,
    against: str | None,
    chats: Mapping[str, Sequence[str]],
    on_step: OnStep,
) -> list[Result]:
    """Return results with a judge's scores."""
    reference = {}
    if against is not None:
        for place, result in enumerate(results):
            own = chats.get(result.point.target, ())
            if (other := _reference(results, result, against, own)) is not None:
                reference[place] = other
    last = results[-1].point

    def tell(done: int, total: int) -> None:
        on_step(Step(last, len(results), len(results), JUDGED, done, total))

    return Judge(judge.server, judge.answers, tell).judged(results, reference)


def _reference(
    results: Sequence[Result], result: Result, against: str, chats: Sequence[str]
) -> Result | None:
    """Return the result whose answers another's are compared with; `chats` are its recipe's."""
    for each in results:
        if against == "chat" and each.point.kind == "model" and each.point.target in chats:
            return each
        if against == each.point.target and each.point.kind != "recipe":
            return each
        if against == "cp" and each.point.target == result.point.target and each.point.ratio == 0:
            return each
    return None


def versions() -> dict[str, str]:
    """Return the versions of the packages that count."""
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return installed
