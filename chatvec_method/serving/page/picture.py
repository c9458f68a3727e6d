"""The picture of a schedule: a map of parts by layers, whose colours follow the page's theme.

It is SVG, drawn anew in a millisecond. White, or black on a dark page, is 0; blue adds the chat
vector and orange removes it, the stronger the deeper: these can be told apart with any colour
vision. What is written there are numbers and words of the page: no name of a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from html import escape

from mergekit.common import ModelReference

from chatvec_method.facts.plan import MergePlan
from chatvec_method.pictures.rows import labels_of, outside_of, rows_of
from chatvec_method.pictures.style import shown
from chatvec_method.serving.page.words import Words

WIDTH, ROW, TOP, TICKS, OUTSIDE = 420, 34, 2, 26, 34
"""In the picture's units: its width, a row, what is above, the numbers below, and a last row."""
NAMES = 92
"""Of the names of rows, at the left."""
GAP = 4
WRITTEN = 46
"""What a number needs."""
MOST_TICKS = 12


def schedule_svg(plan: MergePlan, chat: ModelReference, words: Words) -> str:
    """Return the picture of a chat vector's ratios.

    Args:
        plan: What the merge computes.
        chat: The chat model or vector.
        words: Of the page.
    """
    rows, outside = rows_of(plan, chat), outside_of(plan, chat)
    layers = 1 + max((layer for row in rows.values() for layer in row), default=0)
    every = [ratio for row in rows.values() for ratio in row.values()] + [*outside.values()]
    strongest = max(1.0, *map(abs, every))
    cell = (WIDTH - NAMES) / layers
    parts: list[str] = []
    for y, (name, row) in enumerate(rows.items()):
        top = TOP + y * ROW
        parts.append(_text(NAMES - 8, top + (ROW - GAP) / 2, _named(name, words), "end", "name"))
        for layer, ratio in row.items():
            parts.append(_box(NAMES + layer * cell, top, cell, ratio, strongest))
        for x, ratio in labels_of(row, WRITTEN / cell):
            parts.append(_written(NAMES + x * cell, top, shown(ratio), ratio / strongest))
    bottom = TOP + ROW * len(rows)
    step = next(s for s in (1, 2, 4, 5, 8, 10, 20, 50, 100) if layers / s <= MOST_TICKS or s == 100)
    for layer in range(0, layers, step):
        parts.append(_text(NAMES + (layer + 0.5) * cell, bottom + 8, str(layer), "middle", "tick"))
    parts.append(_text(NAMES - 8, bottom + 8, words["layer"], "end", "tick"))
    top, width = bottom + TICKS, WIDTH / max(len(outside), 1)
    for place, (name, ratio) in enumerate(outside.items()):
        parts.append(_box(place * width, top, width, ratio, strongest))
        text = f"{_named(name, words)} {shown(ratio)}"
        parts.append(_written((place + 0.5) * width, top, text, ratio / strongest))
    told = f"{words['picture']}: {_summary(rows, outside, words)}"
    return (
        f'<svg class="schedule" viewBox="0 0 {WIDTH} {top + OUTSIDE}" role="img" '
        f'aria-label="{escape(told)}">{"".join(parts)}</svg>'
    )


def _summary(
    rows: Mapping[str, Mapping[int, float]], outside: Mapping[str, float], words: Words
) -> str:
    """Return in words what the picture shows."""
    said = []
    for name, row in rows.items():
        values = [shown(row[layer]) for layer in sorted(row)]
        said.append(f"{_named(name, words)} {' '.join(_without_repeats(values))}")
    said += [f"{_named(name, words)} {shown(ratio)}" for name, ratio in outside.items()]
    return "; ".join(said)


def _without_repeats(values: Iterable[str]) -> Iterator[str]:
    before = None
    for value in values:
        if value != before:
            yield value
        before = value


def _named(name: str, words: Words) -> str:
    return words.get(name.replace(" ", "_"), name)


def _box(x: float, y: float, width: float, ratio: float, strongest: float) -> str:
    share = round(100 * abs(ratio) / strongest, 2)
    colour = "--more" if ratio >= 0 else "--less"
    fill = f"color-mix(in oklab, var({colour}) {share}%, var(--none))"
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{max(width - 1, 0.4):.2f}" '
        f'height="{ROW - GAP}" rx="2" style="fill: {fill}"/>'
    )


def _written(x: float, top: float, text: str, strength: float) -> str:
    kind = f"value tenths-{round(10 * abs(strength))}"
    return _text(x, top + (ROW - GAP) / 2, text, "middle", kind)


def _text(x: float, y: float, text: str, anchor: str, kind: str) -> str:
    return (
        f'<text x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}" dominant-baseline="central" '
        f'class="{kind}">{escape(text)}</text>'
    )
