"""The picture of an evaluation: a panel for each axis, over the ratio of the chat vector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from chatvec_method.evaluation.results import Results
from chatvec_method.evaluation.scores import Score
from chatvec_method.evaluation.sweep import Result
from chatvec_method.pictures.style import LINES, WIDTH, Theme, as_png, short, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
PANEL_HEIGHT, MARGIN = 1.9, 0.75
"""In inches: of a panel, and of what is written below all of them."""
DASHES = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
TITLES = {
    "follows": "follows instructions, %",
    "knows": "knows, %",
    "recalls": "recalls earlier turns, %",
    "refuses": "refuses what does harm, %",
    "does_not_over_refuse": "does not over-refuse, %",
    "language": "answers in the language, %",
    "english": "answers in English, %",
    "mixed": "mixes languages, %",
    "ends": "ends by itself, %",
    "reads": "perplexity a byte of text",
    "judge": "a judge's mark, 1 to 10",
}
LEFT_OUT = ("other language", "loops", "length")


def evaluation_pictures(results: Results) -> dict[str, bytes]:
    """Return the picture by file name, for light and for dark pages."""
    themes: dict[str, Theme] = {"": "light", "-dark": "dark"}
    return {
        f"evaluation{suffix}.png": evaluation_picture(results, theme)
        for suffix, theme in themes.items()
    }


def evaluation_picture(results: Results, theme: Theme = "light") -> bytes:
    """Return a picture of all axes over the ratio; the bands are intervals of 95 %.

    What has no ratio, or another in each layer, is a line across.

    Args:
        results: What was found out.
        theme: Dark on light, or light on dark.

    Returns:
        A PNG file.
    """
    # Loaded here, as it takes a while and most runs draw nothing.
    from matplotlib.figure import Figure

    axes = _axes(results)
    rows = -(-len(axes) // COLUMNS)
    with style(theme) as (_, ink):
        figure = Figure(figsize=(WIDTH, PANEL_HEIGHT * rows + MARGIN), layout="constrained")
        panels: Any = figure.subplots(rows, min(COLUMNS, len(axes)), squeeze=False)
        drawn: dict[str, Any] = {}
        for panel in panels.flat:
            panel.set_axis_off()
        for panel, axis in zip(panels.flat, axes, strict=False):
            drawn |= _draw(panel, results, axis, ink)
        figure.legend(
            drawn.values(), drawn, loc="outside lower center", ncols=2, frameon=False, fontsize=8
        )
        return as_png(figure)


def _axes(results: Results) -> list[str]:
    """Return the axes that are drawn, in the order in which they are told."""
    return list(
        dict.fromkeys(
            score.axis
            for result in results
            for score in result.scores
            if score.part_of is None and score.axis not in LEFT_OUT
        )
    )


def _draw(panel: Axes, results: Results, axis: str, ink: str) -> dict[str, Any]:
    """Draw an axis; return the lines by what they are called."""
    panel.set_axis_on()
    drawn: dict[str, Any] = {}
    share = False
    several = len({s.language for r in results for s in r.scores if s.language}) > 1
    for place, (name, curve) in enumerate(_curves(results, axis, several)):
        share = share or curve[0][1].unit == "share"
        factor = 100.0 if curve[0][1].unit == "share" else 1.0
        colour = LINES[place % len(LINES)]
        ratios = [ratio for ratio, _ in curve]
        values = [factor * score.value for _, score in curve]
        drawn[name] = panel.plot(
            ratios, values, color=colour, linewidth=2, marker="o", markersize=3
        )[0]
        between = [score.interval or (score.value, score.value) for _, score in curve]
        lows, highs = ([factor * each[end] for each in between] for end in (0, 1))
        panel.fill_between(ratios, lows, highs, color=colour, alpha=0.28, linewidth=0)
    for place, (name, score) in enumerate(_levels(results, axis, several)):
        share = share or score.unit == "share"
        value = score.value * (100 if score.unit == "share" else 1)
        drawn[name] = panel.axhline(
            value,
            color=LINES[-1 - place % len(LINES)],
            linestyle=DASHES[place % len(DASHES)],
            linewidth=1.3,
        )
    panel.set_title(TITLES.get(axis, short(axis, 38)), loc="left")
    if share:
        panel.set_ylim(-4, 104)
    panel.grid(axis="y", color=ink, alpha=0.2, linewidth=0.6)
    panel.tick_params(length=0)
    panel.set_frame_on(False)
    if any(result.point.ratio is not None for result in results):
        panel.set_xlabel("ratio")
    else:
        panel.set_xticks([])
    return drawn


def _curves(
    results: Results, axis: str, several: bool
) -> Iterator[tuple[str, Sequence[tuple[float, Score]]]]:
    """Yield the scores over the ratio of each recipe and language."""
    curves: dict[str, list[tuple[float, Score]]] = {}
    for result in results:
        if result.point.ratio is None:
            continue
        for score in _scores(result, axis):
            name = _name(result.point.target, score, several)
            curves.setdefault(name, []).append((result.point.ratio, score))
    for name, curve in curves.items():
        yield name, sorted(curve, key=lambda pair: pair[0])


def _levels(results: Results, axis: str, several: bool) -> Iterator[tuple[str, Score]]:
    """Yield what has no place on the ratio's axis."""
    for result in results:
        if result.point.ratio is None:
            for score in _scores(result, axis):
                yield _name(result.point.label, score, several), score


def _scores(result: Result, axis: str) -> list[Score]:
    return [each for each in result.scores if each.axis == axis and each.part_of is None]


def _name(what: str, score: Score, several: bool) -> str:
    return f"{short(what, 45)}, {score.language}" if several and score.language else short(what, 45)
