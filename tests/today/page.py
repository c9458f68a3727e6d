"""docs/models.md: the table for people who ask whether it does theirs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import version

from .sweep import Outcome, Row, State
from .table import TABLE, Architecture

NOT_IN_TRANSFORMERS = (
    (
        "Baichuan 1 and 2, ChatGLM 2 and 3, InternLM 2 and 2.5, Qwen 1",
        "mergekit knows their tensors; write `--trust-remote-code`, which runs the Python that the "
        "models bring",
    ),
    (
        "MiniCPM 1 and 2, Orion, PLaMo, XVERSE",
        "write `--trust-remote-code`; mergekit takes the tensors' names from the files",
    ),
)
"""Which cannot be made in miniature, as their classes are not here, and so were not tried."""
MARKS = {
    State.PASSED: "✓",
    State.EXACT: "✓",
    State.REFUSED: "refused",
    State.TOLD: "said by check",
    State.WRONG: "**wrong**",
    State.LATE: "**fails**",
    State.TRACEBACK: "**fails**",
}
"""What stands in the page for the states; the bold ones are faults of ours."""


def page(rows: Sequence[Row]) -> str:
    """Return the page."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("mergekit", "transformers"))
    texts = [row for row in rows if not TABLE[row.name].vision]
    seeing = [row for row in rows if TABLE[row.name].vision]
    parts = [
        "# Does it do mine?",
        f"*Made by `python -m tests.today --write docs/models.md` with {versions}.*",
        "Each architecture was built in miniature from transformers' own classes, with a real "
        "tokenizer and the files of a hub, as base, chat and cp. `chatvec check` and `chatvec "
        "merge` ran on the plain recipe, and stock `mergekit-yaml` with `chatvec finish` after it. "
        "A ✓ says: every element is the float64 sum rounded once, transformers loads the output "
        "without missing or unexpected keys, its config means what cp's means, its tokenizer "
        "gives text cp's ids, and it stops at the chat model's end of a turn.",
        f"{totals(rows)}",
        "## Models that read and write",
        _table(texts),
        "## Models that see, too",
        _table(seeing),
        _ways_out(rows),
        "## Not in transformers",
        "\n".join(
            ["| models | what to do, untried |", "| --- | --- |"]
            + [f"| {models} | {advice} |" for models, advice in NOT_IN_TRANSFORMERS]
        ),
        "Is yours not here? `chatvec check` on your recipe reads only small files, and says what "
        "would come out.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def totals(rows: Iterable[Row]) -> str:
    """Return how many there are of each kind, in a sentence."""
    listed = list(rows)
    exact = sum(row.merge.state is State.EXACT for row in listed)
    by_stock = sum(row.stock.state is State.EXACT for row in listed)
    refused = sum(row.merge.state is State.REFUSED for row in listed)
    faults = sum(bool(row.faults) for row in listed)
    return (
        f"{len(listed)} architectures: {exact} exact through `chatvec merge`, {refused} refused by "
        f"check, {by_stock} exact through stock mergekit and `chatvec finish`; {faults} with a "
        "fault of ours."
    )


def _table(rows: Iterable[Row]) -> str:
    lines = [
        "| architecture | models | special | `chatvec merge` | stock + `finish` | stops at |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        entry: Architecture = TABLE[row.name]
        cells = (
            f"`{entry.name}`"
            if entry.name == entry.model_type
            else f"`{entry.model_type}` ({entry.name})",
            entry.people,
            entry.special,
            _mark(row.merge),
            _mark(row.stock),
            " ".join(f"`{_escaped(token)}`" for token in row.merge.stops_at),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mark(outcome: Outcome) -> str:
    return MARKS[outcome.state]


def _ways_out(rows: Iterable[Row]) -> str:
    """Return what to do where the merge is refused, in the words of the check."""
    refused = [row for row in rows if row.merge.state is State.REFUSED and row.way_out]
    if not refused:
        return ""
    lines = [f"- `{row.name}`: {_escaped(row.way_out)}" for row in refused]
    return "\n".join(["## Where it is refused", "", *lines])


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
