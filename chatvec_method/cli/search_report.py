"""What a search found, as a table for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from chatvec_method.cli.layout import prose, records
from chatvec_method.searching.files import recipe_names
from chatvec_method.searching.objectives import difference, interval_of

if TYPE_CHECKING:
    from rich.console import Console

    from chatvec_method.searching.outcome import Candidate, Outcome

LEGEND = (
    "search: on the half of the prompts by which the recipes were chosen; report: on the other "
    "half, with intervals of 95 %. against uniform: by how much it differs there from the best "
    "uniform ratio, prompt by prompt."
)


def print_outcome(console: Console, outcome: Outcome) -> None:
    """Print the Pareto set, the best uniform ratio, and what it comes to."""
    header = ["recipe", "trial"]
    for each in outcome.sought.objectives:
        header += [f"{each.name}: search", "report", "against uniform"]
    for limit in outcome.sought.constraints:
        header += [f"{limit.text}: search", "report"]
    names = recipe_names(outcome)
    rows = [
        [names[each.tried.number], each.tried.label, *_cells(outcome, each)]
        for each in outcome.front
    ]
    if outcome.uniform is not None:
        label = outcome.uniform.tried.label
        rows.append(["best uniform", label, *_cells(outcome, outcome.uniform)])
    early = sum(each.values is None for each in outcome.trials)
    seconds = sorted(each.seconds for each in outcome.trials)
    title = (
        f"{len(outcome.trials)} trials, {early} of them ended early; "
        f"{seconds[len(seconds) // 2]:.1f} s each (median)"
    )
    records(console, title, header, rows, right=range(2, len(header)))
    console.print()
    prose(console, LEGEND, style="dim")
    console.print()
    for sentence in outcome.sentences:
        prose(console, sentence, style="bold")


def _cells(outcome: Outcome, candidate: Candidate) -> Iterator[str]:
    uniform = outcome.uniform
    for each in outcome.sought.objectives:
        low, high = interval_of(each.measure, candidate.report)
        yield f"{each.measure.value(candidate.search):.3f}"
        yield f"{each.measure.value(candidate.report):.3f} ({low:.3f}–{high:.3f})"
        if uniform is None or candidate.tried.number == uniform.tried.number:
            yield ""
        else:
            value, (low, high) = difference(each.measure, candidate.report, uniform.report)
            yield f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
    for limit in outcome.sought.constraints:
        yield f"{limit.measure.value(candidate.search):.3f}"
        yield f"{limit.measure.value(candidate.report):.3f}"
