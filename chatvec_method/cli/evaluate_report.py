"""An evaluation as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from chatvec_method.cli.console import table
from chatvec_method.evaluation.sweep import STEPS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from chatvec_method.evaluation.results import Results
    from chatvec_method.evaluation.scores import Score
    from chatvec_method.evaluation.sweep import Result

SUITE = {
    "follows": "follows",
    "knows": "knows",
    "recalls": "recalls",
    "refuses": "refuses",
    "does_not_over_refuse": "does not over-refuse",
    "language": "language",
    "ends": "ends",
    "reads": "reads",
}
BESIDE = {
    "english": "in English",
    "mixed": "mixed",
    "other language": "other",
    "loops": "loops",
    "length": "length",
}
SIDE_BY_SIDE = 4
"""Points in one table of tasks."""
LEGEND = (
    "%; in brackets intervals of 95 %, by the bootstrap over prompts. language: answers in it; "
    "reads: perplexity a byte of text. Marks are given by rules, see docs/evaluate.md."
)
LINE = (
    "Perplexity a byte on the straight line from cp to the merge. Barrier: by how many nats a byte "
    "the worst point lies above the line between the ends; a barrier foretells failure."
)


def print_results(console: Console, results: Results) -> None:
    """Print what was found out, language by language, then tasks, judge and lines."""
    languages = dict.fromkeys(s.language for r in results for s in r.scores if s.language)
    for language in languages:
        console.print(_suite_table(results, language, SUITE, f"{language}, by rules"))
        console.print()
        console.print(_suite_table(results, language, BESIDE, f"{language}, beside it"))
        console.print()
    if languages:
        console.print(Text(LEGEND, style="dim"))
        console.print()
    for title, wanted in (
        ("Tasks and texts", [s.axis for s in _others(results) if s.source != "judge"]),
        ("Judged by a model", [s.axis for s in _others(results) if s.source == "judge"]),
    ):
        axes = list(dict.fromkeys(wanted))
        shown = [r for r in results if any(s.axis in axes for s in r.scores)]
        for start in range(0, len(shown), SIDE_BY_SIDE):
            console.print(_axes_table(shown[start : start + SIDE_BY_SIDE], axes, title))
            console.print()
    _print_lines(console, results)
    for name, by_chat in results.moved.items():
        for chat, moved in by_chat.items():
            told = f"{name}: cp has moved {moved:.2f} times as far from base as {chat} has."
            console.print(told, soft_wrap=True)
    for sentence in results.conclusions:
        console.print(Text(sentence, style="bold"), soft_wrap=True)


def _others(results: Results) -> Iterator[Score]:
    """Yield the scores that are in none of the suite's tables."""
    for result in results:
        for score in result.scores:
            ours = score.source == "rules" and score.language is not None
            if not ours and score.part_of is None:
                yield score


def _suite_table(results: Results, language: str, axes: dict[str, str], title: str) -> Table:
    shown = [r for r in results if any(s.language == language for s in r.scores)]
    there = {s.axis for r in shown for s in r.scores if s.language == language}
    names = {axis: name for axis, name in axes.items() if axis in there}
    rows = []
    for result, label in zip(shown, _labels(shown), strict=True):
        scores = {s.axis: s for s in result.scores if s.language == language}
        rows.append([label, *(_cell(scores.get(axis)) for axis in names)])
    return table(title, ["", *names.values()], rows, right=range(1, len(names) + 1))


def _axes_table(shown: Sequence[Result], axes: Sequence[str], title: str) -> Table:
    """Return a table with a line an axis: there may be many of them."""
    languages = {s.language for r in shown for s in r.scores if s.axis in axes and s.language}
    keys = dict.fromkeys(
        (score.axis, score.language) for r in shown for score in r.scores if score.axis in axes
    )
    rows = []
    for axis, language in keys:
        cells = [
            _cell(next((s for s in r.scores if (s.axis, s.language) == (axis, language)), None))
            for r in shown
        ]
        name = f"{axis} ({language})" if len(languages) > 1 and language else axis
        rows.append([name, *cells])
    return table(title, ["", *_labels(shown)], rows, right=range(1, len(shown) + 1))


def _print_lines(console: Console, results: Results) -> None:
    shown = [result for result in results if result.line is not None]
    if not shown:
        return
    rows = [
        [
            label,
            *(f"{each:.3f}" for each in result.line.perplexities),
            f"{result.line.barrier:.3f}",
        ]
        for result, label in zip(shown, _labels(shown), strict=True)
        if result.line is not None
    ]
    header = ["", *(f"{step:g} of it" for step in STEPS), "barrier"]
    console.print(table("From cp to the merge", header, rows, right=range(1, len(header))))
    console.print(Text(LINE, style="dim"))
    console.print()


def _labels(results: Sequence[Result]) -> list[str]:
    """Return what to call points, with their target where there are several recipes."""
    recipes = {each.point.target for each in results if each.point.kind == "recipe"}
    return [
        f"{each.point.target} {each.point.label}"
        if len(recipes) > 1 and each.point.kind == "recipe"
        else each.point.label
        for each in results
    ]


def _cell(score: Score | None) -> str:
    if score is None:
        return "–"
    factor, digits = {"share": (100, 0), "characters": (1, 0), "mark": (1, 1)}.get(
        score.unit, (1, 3)
    )
    value = f"{factor * score.value:.{digits}f}"
    if score.interval is None:
        return value
    low, high = (f"{factor * end:.{digits}f}" for end in score.interval)
    return f"{value} ({low}–{high})"
