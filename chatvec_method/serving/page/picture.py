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

WIDTH, ROW, TOP, BOTTOM = 640, 34, 6, 26
NAMES = 92
"""In the picture's units: of the names of rows, at its left."""
OUTSIDE = 46
"""Of what stands before and behind the layers."""
GAP = 4
WRITTEN = 44
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
    before = {n: r for n, r in outside.items() if n not in ("final norm", "head")}
    after = {n: r for n, r in outside.items() if n not in before}
    left = NAMES + len(before) * (OUTSIDE + GAP)
    width = WIDTH - left - len(after) * (OUTSIDE + GAP)
    layers = 1 + max((layer for row in rows.values() for layer in row), default=0)
    height = TOP + ROW * max(len(rows), 3)
    strongest = max(1.0, *(abs(r) for row in rows.values() for r in row.values()), 0.0)
    strongest = max(strongest, *(abs(r) for r in outside.values()), 0.0)
    cell = width / layers
    parts: list[str] = []
    for y, (name, row) in enumerate(rows.items()):
        top = TOP + y * ROW
        parts.append(_text(NAMES - 8, top + ROW / 2, _named(name, words), "end", "name"))
        for layer, ratio in row.items():
            parts.append(_box(left + layer * cell, top, cell, ROW - GAP, ratio, strongest))
        for x, ratio in labels_of(row, WRITTEN / cell):
            parts.append(_number(left + x * cell, top + (ROW - GAP) / 2, ratio, strongest))
    full = height - TOP - GAP
    for i, (name, ratio) in enumerate([*before.items(), *after.items()]):
        x = NAMES + i * (OUTSIDE + GAP)
        if name in after:
            x = left + width + GAP + (i - len(before)) * (OUTSIDE + GAP)
        parts.append(_box(x, TOP, OUTSIDE, full, ratio, strongest))
        middle = x + OUTSIDE / 2
        parts.append(_turned(middle, TOP + full / 2, _named(name, words), ratio, strongest))
    step = next(s for s in (1, 2, 4, 5, 8, 10, 20, 50, 100) if layers / s <= MOST_TICKS or s == 100)
    for layer in range(0, layers, step):
        x = left + (layer + 0.5) * cell
        parts.append(_text(x, height + 12, str(layer), "middle", "tick"))
    parts.append(_text(NAMES - 8, height + 12, words["layer"], "end", "tick"))
    told = f"{words['picture']}: {_summary(rows, outside, words)}"
    return (
        f'<svg class="schedule" viewBox="0 0 {WIDTH} {height + BOTTOM}" role="img" '
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


def _box(x: float, y: float, width: float, height: float, ratio: float, strongest: float) -> str:
    share = round(100 * abs(ratio) / strongest, 2)
    colour = "--more" if ratio >= 0 else "--less"
    fill = f"color-mix(in oklab, var({colour}) {share}%, var(--none))"
    return (
        f'<rect x="{x:.2f}" y="{y:.2f}" width="{max(width - 0.8, 0.4):.2f}" '
        f'height="{height:.2f}" rx="2" style="fill: {fill}"/>'
    )


def _ink(ratio: float, strongest: float) -> str:
    return "on-strong" if abs(ratio) / strongest > 0.55 else "on-weak"  # noqa: PLR2004


def _number(x: float, y: float, ratio: float, strongest: float) -> str:
    return _text(x, y, shown(ratio), "middle", f"value {_ink(ratio, strongest)}")


def _turned(x: float, y: float, name: str, ratio: float, strongest: float) -> str:
    kind = f"value {_ink(ratio, strongest)}"
    return (
        f'<text class="{kind}" text-anchor="middle" dominant-baseline="central" '
        f'transform="translate({x:.2f} {y:.2f}) rotate(-90)">{escape(name)} {shown(ratio)}</text>'
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str) -> str:
    return (
        f'<text x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}" dominant-baseline="central" '
        f'class="{kind}">{escape(text)}</text>'
    )
