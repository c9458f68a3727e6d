"""lm-evaluation-harness on a model that is loaded already, as often as its weights change.

Tasks are the harness's own: built in, or YAML files in a folder. They are loaded once, which takes
the harness a while, and put to one model after another or to the same at many ratios. What comes
back is data: every figure of every filter, and every answer with whether it came to an end.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, TypeAlias

import lm_eval  # type: ignore[import-untyped]
import numpy as np
import torch
from lm_eval.api import metrics  # type: ignore[import-untyped]
from lm_eval.api.model import LM  # type: ignore[import-untyped]
from lm_eval.defaults import (  # type: ignore[import-untyped]
    DEFAULT_OTHER_SEED,
    DEFAULT_RANDOM_SEED,
)
from lm_eval.tasks import TaskManager  # type: ignore[import-untyped]

from chatvec_method.errors import ChatVecError
from chatvec_method.evaluation.adapter import ChatModel, OnProgress, Response
from chatvec_method.evaluation.intervals import Floats, interval, resampled
from chatvec_method.evaluation.unloadable import not_loaded
from chatvec_method.quiet import quiet
from chatvec_method.talk.speaker import Speaker

TaskName: TypeAlias = str | Mapping[str, Any]
"""What the harness takes for a task: the name of a task, a group or a tag, the path of a YAML file,
or what such a file says."""


@dataclass(frozen=True)
class Tasks:
    """Tasks and groups that are loaded, with their data."""

    loaded: Mapping[str, Any]
    """The harness's tasks, groups and what is in which group, as its `TaskManager` has them."""


@dataclass(frozen=True)
class Figure:
    """One figure of a task or a group."""

    task: str
    metric: str
    filter: str
    """The filter of the answers; "none" where the task names none."""
    value: float
    higher_is_better: bool | None
    """None where the harness does not know."""
    documents: int
    """How many documents it is of."""
    interval: tuple[float, float] | None = None
    """Of 95 %, by the bootstrap over documents; None where a figure is not a mean of theirs."""


@dataclass(frozen=True)
class Sample:
    """A prompt, and what the model answered; of tasks that let it write."""

    task: str
    document: int
    """Its place in the task's data."""
    prompt: str
    """As the model read it, chat format and all."""
    answer: str
    ended: bool
    """Whether the model came to an end by itself."""


@dataclass(frozen=True)
class Marks:
    """A task's figure, document by document: the mean of marks, or the perplexity of text."""

    task: str
    metric: str
    filter: str
    by_document: Mapping[int, tuple[float, float]]
    """Of each a value and its weight: the figure is Σ values / Σ weights, or a perplexity of it."""
    perplexity: bool
    """Whether the figure is exp(−Σ values / Σ weights)."""

    @property
    def replicates(self) -> Floats:
        """Return what the figure would be of other documents, drawn from the same ones."""
        values, weights = zip(*self.by_document.values(), strict=True)
        drawn = resampled(values, weights, of=self.task)
        return np.exp(-drawn) if self.perplexity else drawn


@dataclass(frozen=True)
class Evaluation:
    """What tasks say of a model."""

    figures: tuple[Figure, ...]
    samples: tuple[Sample, ...]
    marks: tuple[Marks, ...]
    """Of the figures of tasks that can be told document by document."""

    def value(self, task: str, metric: str, filter: str = "none") -> float:
        """Return one figure's value.

        Raises:
            KeyError: There is no such figure.
        """
        for figure in self.figures:
            if (figure.task, figure.metric, figure.filter) == (task, metric, filter):
                return figure.value
        raise KeyError(f"{task}: {metric},{filter}")


def load_tasks(
    names: TaskName | Sequence[TaskName],
    *,
    include_path: Path | Sequence[Path] | None = None,
    include_defaults: bool = True,
    metadata: Mapping[str, Any] | None = None,
) -> Tasks:
    """Load tasks and their data.

    Args:
        names: The tasks.
        include_path: One folder or several with YAML files of tasks and groups.
        include_defaults: Whether to look among the tasks that come with the harness, too. To find
            all 14,000 of them takes it ten seconds.
        metadata: What the tasks' `custom_dataset` functions are told, besides their own settings.

    Raises:
        ChatVecError: There is no such task, or it cannot be loaded.
    """
    if isinstance(names, str | Mapping):
        names = [names]
    folders = [include_path] if isinstance(include_path, Path) else list(include_path or [])
    manager = TaskManager(
        include_path=folders, include_defaults=include_defaults, metadata=dict(metadata or {})
    )
    for name in names:
        if isinstance(name, str) and name not in manager.all_tasks and not Path(name).is_file():
            near = difflib.get_close_matches(name, manager.all_tasks, n=3)
            raise ChatVecError(
                f"there is no task {name}.",
                f"Do you mean {' or '.join(near)}?"
                if near
                else "Write the name of a task, a group or a tag, or the path of a YAML file.",
            )
    with _seeded():  # some tasks draw while they read their data
        try:
            return Tasks(manager.load(list(names)))
        except Exception as error:  # the hub's, of data libraries, and of the tasks' own code
            raise not_loaded(error, names, lambda name: manager.load([name])) from error


def known_tasks(folders: Sequence[Path]) -> set[str]:
    """Return the names of all tasks, groups and tags in some folders."""
    return set(TaskManager(include_path=list(folders), include_defaults=False).all_tasks)


def tasks_in(folder: Path) -> list[str]:
    """Return the groups in a folder, and the tasks that are in none of them.

    Raises:
        ChatVecError: There are none.
    """
    manager = TaskManager(include_path=[folder], include_defaults=False)
    entries = {name: manager.task_index[name].cfg or {} for name in manager.all_groups}
    inside = {
        part if isinstance(part, str) else part.get("task") or part.get("group")
        for entry in entries.values()
        for part in entry.get("task", ())
    }
    names = [n for n in (*manager.all_groups, *manager.all_subtasks) if n not in inside]
    if not names:
        raise ChatVecError(
            f"the folder {folder} has no tasks.", "Write one with YAML files of tasks in it."
        )
    return names


def evaluate(
    model: Speaker | Callable[[OnProgress | None], LM],
    tasks: Tasks | TaskName | Sequence[TaskName],
    *,
    include_path: Path | Sequence[Path] | None = None,
    include_defaults: bool = True,
    metadata: Mapping[str, Any] | None = None,
    batch_size: int | str = 1,
    limit: float | None = None,
    samples: Mapping[str, Sequence[int]] | None = None,
    apply_chat_template: bool = True,
    intervals: bool = True,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Put tasks to a model, in this process.

    Decoding is as the tasks say, which is greedily unless they say otherwise. Draws are the same in
    every evaluation. No answer is kept for the next one: by then the weights may be others.

    Args:
        model: A model to talk to; or what returns another model of the harness's, which tells of
            its progress as it is told to, and makes batches as it likes.
        tasks: What `load_tasks` returned; or names, with which it is called.
        include_path: As in `load_tasks`, for tasks that are not loaded yet.
        include_defaults: The same.
        metadata: The same.
        batch_size: How many requests are worked on at once; "auto" tries which number fits.
        limit: Only so many documents of every task, the first ones; below 1, this share of them.
        samples: Only these documents, by task: their places in the task's data. Tasks that are not
            among them keep all theirs.
        apply_chat_template: Whether prompts are put in the model's chat format.
        intervals: Whether figures get theirs, which takes a while where there are many.
        on_progress: Is told after every response. Then nothing else is told: without it, the
            harness shows its own bars and messages.

    Raises:
        ChatVecError: There is no such task, or the device has not enough memory.
        ValueError: There are both `limit` and `samples`, or `samples` are of no task or of no
            document.
    """
    with _only_telling(on_progress) as tell:
        if not isinstance(tasks, Tasks):
            tasks = load_tasks(
                tasks,
                include_path=include_path,
                include_defaults=include_defaults,
                metadata=metadata,
            )
        places = None if samples is None else _places(samples, tasks)
        for task in tasks.loaded["tasks"].values():
            task.set_fewshot_seed(DEFAULT_OTHER_SEED)
        if isinstance(model, Speaker):
            asked = ChatModel(model, batch_size=batch_size, on_progress=tell)
        else:
            asked = model(tell)
        with _seeded():
            try:
                results = lm_eval.evaluate(
                    asked,
                    tasks.loaded,
                    limit=limit,
                    samples=places,
                    bootstrap_iters=0,
                    apply_chat_template=apply_chat_template,
                    fewshot_as_multiturn=True,
                )
            except torch.OutOfMemoryError as error:
                name = model.name if isinstance(model, Speaker) else "the model"
                raise ChatVecError(
                    f"{name} needs more memory than the device has, with {batch_size} requests at "
                    "once.",
                    "Take a smaller batch size.",
                ) from error
    marks = tuple(_marks(results["samples"], tasks))
    figures = _figures(results, _replicates(marks, tasks) if intervals else {})
    return Evaluation(tuple(figures), tuple(_samples(results)), marks)


def _places(samples: Mapping[str, Sequence[int]], tasks: Tasks) -> dict[str, list[int]]:
    """Return the places of documents as the harness reads them rightly: in order, each once."""
    places = {task: sorted(set(each)) for task, each in samples.items()}
    for task, each in places.items():
        if task not in tasks.loaded["tasks"]:
            raise ValueError(f"samples: {task} is not one of {', '.join(tasks.loaded['tasks'])}")
        if not each:
            raise ValueError(f"samples: {task} has none, and the harness would take all")
    return places


def _figures(
    results: Mapping[str, Any], replicates: Mapping[tuple[str, str, str], Floats]
) -> Iterator[Figure]:
    for task, figures in results["results"].items():
        for name, value in figures.items():
            metric, comma, filter_ = name.rpartition(",")
            if comma and isinstance(value, Real):  # no standard errors: these would be "N/A"
                better = results["higher_is_better"].get(task, {}).get(metric)
                drawn = replicates.get((task, metric, filter_))
                yield Figure(
                    task,
                    metric,
                    filter_,
                    float(value),
                    better,
                    int(figures["sample_len"]),
                    None if drawn is None else interval(drawn),
                )


def _marks(samples: Mapping[str, Sequence[Mapping[str, Any]]], tasks: Tasks) -> Iterator[Marks]:
    """Yield the marks of every figure that is a mean of its documents, or made of one."""
    for task, each in samples.items():
        aggregations = tasks.loaded["tasks"][task].aggregation()
        by_figure: defaultdict[tuple[str, str], dict[int, Any]] = defaultdict(dict)
        for sample in each:
            for metric in sample["metrics"]:
                by_figure[metric, sample["filter"]][sample["doc_id"]] = sample[metric]
        for (metric, filter_), values in by_figure.items():
            aggregation = aggregations.get(metric, metrics.mean)
            weighted = {place: _weighted(aggregation, value) for place, value in values.items()}
            marks = {place: mark for place, mark in weighted.items() if mark is not None}
            if len(marks) == len(values):
                perplexity = aggregation in (metrics.weighted_perplexity, metrics.perplexity)
                yield Marks(task, metric, filter_, marks, perplexity)


def _weighted(aggregation: Any, value: Any) -> tuple[float, float] | None:
    """Return what a document adds to a figure's two sums; None where the figure has none."""
    if aggregation is metrics.weighted_perplexity:
        return float(value[0]), float(value[1])
    if aggregation is metrics.bits_per_byte:
        return -float(value[0]) / math.log(2), float(value[1])
    if aggregation in (metrics.mean, metrics.perplexity) and isinstance(value, Real):
        return float(value), 1.0
    return None


def _replicates(marks: Sequence[Marks], tasks: Tasks) -> dict[tuple[str, str, str], Floats]:
    """Return what each figure would be of other documents, drawn from the same ones."""
    replicates = {(each.task, each.metric, each.filter): each.replicates for each in marks}
    sizes = {each.task: len(each.by_document) for each in marks}
    for name, group in tasks.loaded.get("groups", {}).items():
        leaves = [task.task_name for task in group.get_all_tasks()]
        for wanted in group.aggregate_metric_list or ():
            for filter_ in {key[2] for key in replicates if key[1] == wanted.metric}:
                parts = [t for t in leaves if (t, wanted.metric, filter_) in replicates]
                if parts:
                    replicates[name, wanted.metric, filter_] = np.average(
                        [replicates[part, wanted.metric, filter_] for part in parts],
                        axis=0,
                        weights=[sizes[p] for p in parts] if wanted.weight_by_size else None,
                    )
    return replicates


def _samples(results: Mapping[str, Any]) -> Iterator[Sample]:
    for task, samples in results["samples"].items():
        filters = [sample["filter"] for sample in samples]
        for sample in samples:
            if sample["filter"] != filters[0]:  # the same answers once more
                continue
            for (prompt, *_), answers in zip(sample["arguments"], sample["resps"], strict=True):
                for answer in answers:
                    if isinstance(answer, Response):
                        yield Sample(task, sample["doc_id"], prompt, str(answer), answer.ended)


@contextlib.contextmanager
def _only_telling(on_progress: OnProgress | None) -> Iterator[OnProgress | None]:
    """Keep back what the harness shows, but not what is shown by whoever is told of progress."""
    if on_progress is None:
        yield None
        return
    stderr = sys.stderr

    def tell(kind: str, done: int, total: int) -> None:
        with contextlib.redirect_stderr(stderr):
            on_progress(kind, done, total)

    with quiet():
        yield tell


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Draw as the harness run by itself does, and leave other people's draws as they are."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            random.seed(DEFAULT_RANDOM_SEED)
            np.random.seed(DEFAULT_OTHER_SEED)
            torch.manual_seed(DEFAULT_OTHER_SEED)
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
