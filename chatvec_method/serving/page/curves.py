"""The curves of what was measured in a session: a small panel for each axis, over the ratio."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from chatvec_method.serving.page.measure import AXES, Measurement
from chatvec_method.serving.page.words import Words

WIDTH, HEIGHT = 210, 132
LEFT, RIGHT, TOP, BOTTOM = 42, 10, 26, 22
LINES = 4
"""Colours there are, and then anew."""


def curves_svg(measured: Sequence[Measurement], words: Words) -> str:
    """Return the panels as HTML; "" where nothing was measured yet.

    Args:
        measured: In the order in which it was.
        words: Of the page.
    """
    axes = [axis for axis in AXES if any(axis in each.shares for each in measured)]
    panels = "".join(_panel(axis, measured, words) for axis in axes)
    return f'<div class="panels">{panels}</div>' if panels else ""


def _panel(axis: str, measured: Sequence[Measurement], words: Words) -> str:
    most = max(1.0, *(each.ratio for each in measured))
    least = min(0.0, *(each.ratio for each in measured))

    def x(ratio: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (ratio - least) / (most - least)

    def y(share: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)

    parts = [f'<text class="title" x="{LEFT}" y="14">{escape(words[axis])}</text>']
    for share in (0, 0.5, 1):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(share)}" ')
        parts.append(f'y2="{y(share)}"/><text class="tick" text-anchor="end" x="{LEFT - 5}" ')
        parts.append(f'y="{y(share) + 3.5}">{100 * share:.0f} %</text>')
    for ratio in (least, (least + most) / 2, most):
        parts.append(f'<text class="tick" text-anchor="middle" x="{x(ratio):.1f}" ')
        parts.append(f'y="{HEIGHT - 6}">{ratio:g}</text>')
    told = []
    lines = list(dict.fromkeys((each.line, each.language) for each in measured))
    for number, line in enumerate(lines):
        points = {
            each.ratio: each.shares[axis]
            for each in measured
            if (each.line, each.language) == line and axis in each.shares
        }
        kind = f"line-{number % LINES}"
        path = " ".join(f"{x(r):.1f},{y(points[r].value):.1f}" for r in sorted(points))
        parts.append(f'<polyline class="{kind}" points="{path}"/>')
        for ratio, reached in sorted(points.items()):
            parts.append(f'<line class="{kind} between" x1="{x(ratio):.1f}" x2="{x(ratio):.1f}" ')
            parts.append(f'y1="{y(reached.low):.1f}" y2="{y(reached.high):.1f}"/>')
            parts.append(f'<circle class="{kind}" r="3.2" cx="{x(ratio):.1f}" ')
            parts.append(f'cy="{y(reached.value):.1f}"/>')
            told.append(f"{ratio:g}: {100 * reached.value:.0f} %")
    name = f"{words[axis]}: {', '.join(told)}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(name)}">'
        f"{''.join(parts)}</svg>"
    )
