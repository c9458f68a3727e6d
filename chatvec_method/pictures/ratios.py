"""Pictures of a merge's ratios: how much of each chat vector goes where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from chatvec_method.facts.models import without_commits
from chatvec_method.facts.plan import MergePlan, slices_of
from chatvec_method.pictures.rows import Row, labels_of, outside_of, rows_of
from chatvec_method.pictures.style import (
    LINES,
    LONGEST_NAME,
    WIDTH,
    Theme,
    as_png,
    new_figure,
    short,
    shown,
    style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

ROW_HEIGHT, LEAST_HEIGHT, MARGIN = 0.36, 1.35, 0.75
"""In inches: of a kind of tensor, of all kinds, and of what is above and below them."""
CURVES_HEIGHT, BESIDE = 1.8, 2.5
"""In inches: of curves, and what a second recipe adds to the width."""
DASHES = ("-", "--", "-.", ":")
WIDTHS = (4.0, 2.5, 1.3)
"""The lines below are wider, so that they can be seen where lines meet."""
MARKERS = "os^Dvx"
MOST_MARKERS = 64


def ratios_vary(plan: MergePlan) -> bool:
    """Tell whether there is something to see: a chat vector with more than one ratio."""
    return any(
        len({tensor.ratios[chat] for tensor in plan.tensors if chat in tensor.ratios}) > 1
        for chat in plan.roles.chats
    )


def ratio_picture(plan: MergePlan, theme: Theme = "light") -> bytes:
    """Return a picture of the ratio of every layer and kind of tensor, one chat vector a row.

    Blue adds the chat vector and orange removes it, the stronger the deeper: these two can be told
    apart with any colour vision. The same plan gives the same bytes.

    Args:
        plan: What the merge will compute.
        theme: Dark on light, or light on dark.

    Returns:
        A PNG file.
    """
    chats = plan.roles.chats
    rows = {chat: rows_of(plan, chat) for chat in chats}
    heights = [max(LEAST_HEIGHT, ROW_HEIGHT * len(rows[chat])) for chat in chats]
    with style(theme) as (ground, _):
        figure = new_figure(WIDTH, sum(heights) + MARGIN * len(chats))
        panels: Any = figure.subplots(len(chats), squeeze=False, height_ratios=heights)
        colours = _colours([t.ratios[chat] for chat in chats for t in plan.language_model])
        for panel, chat in zip(panels[:, 0], chats, strict=True):
            _draw(panel, rows[chat], outside_of(plan, chat), colours, ground)
            panel.set_title(
                f"Ratio of the chat vector of {short(without_commits(chat))}", loc="left"
            )
            panel.set_xlabel("layer")
        bar = figure.colorbar(colours, ax=panels[:, 0].tolist(), pad=0.01, aspect=12)
        bar.outline.set_visible(False)
        return as_png(figure)


def schedule_picture(plans: Sequence[tuple[str, MergePlan]], theme: Theme = "light") -> bytes:
    """Return a picture of the ratios of recipes, side by side: for each chat vector map and curves.

    The same plans give the same bytes, where the same fonts are.

    Args:
        plans: The name of each recipe, and what its merge will compute.
        theme: Dark on light, or light on dark.

    Returns:
        A PNG file.
    """
    columns = len(plans)
    vectors = [[(name, plan, chat) for chat in plan.roles.chats] for name, plan in plans]
    shown_vectors = [vector for of_plan in vectors for vector in of_plan]
    ratios = [
        tensor.ratios[chat] for _, plan, chat in shown_vectors for tensor in plan.language_model
    ]
    low, high = min(0.0, *ratios), max(1.0, *ratios)
    most_rows = max(len(rows_of(plan, chat)) for _, plan, chat in shown_vectors)
    heights = [max(LEAST_HEIGHT, ROW_HEIGHT * most_rows), CURVES_HEIGHT]
    count = max(map(len, vectors))
    with style(theme) as (ground, ink):
        figure = new_figure(WIDTH + BESIDE * (columns - 1), count * (sum(heights) + 2 * MARGIN))
        panels: Any = figure.subplots(
            2 * count, columns, squeeze=False, height_ratios=heights * count
        )
        colours = _colours(ratios)
        for panel in panels.flat:
            panel.set_axis_off()
        for column, of_plan in enumerate(vectors):
            for row, (name, plan, chat) in enumerate(of_plan):
                upper, lower = panels[2 * row : 2 * row + 2, column]
                upper.set_axis_on()
                lower.set_axis_on()
                _draw(upper, rows_of(plan, chat), outside_of(plan, chat), colours, ground, columns)
                _draw_curves(lower, rows_of(plan, chat), upper, ink)
                lower.set_ylim(low - 0.08 * (high - low), high + 0.08 * (high - low))
                _mark_slices([upper, lower], plan, ink)
                most = LONGEST_NAME // columns
                title = f"{short(name, most)}\nratio of {short(without_commits(chat), most)}"
                upper.set_title(title, loc="left")
        bar = figure.colorbar(colours, ax=panels[0].tolist(), pad=0.01, aspect=12)
        bar.outline.set_visible(False)
        bar.set_label("ratio")
        return as_png(figure)


def _draw_curves(panel: Axes, rows: dict[str, Row], above: Axes, ink: str) -> None:
    """Draw the ratios over the layers, one line for all kinds of tensors that have the same."""
    alike: dict[tuple[tuple[int, float], ...], list[str]] = {}
    for name, row in rows.items():
        alike.setdefault(tuple(sorted(row.items())), []).append(name)
    for i, (pairs, names) in enumerate(alike.items()):
        panel.plot(
            [layer + 0.5 for layer, _ in pairs],
            [ratio for _, ratio in pairs],
            color=LINES[i % len(LINES)],
            linestyle=DASHES[i % len(DASHES)],
            linewidth=WIDTHS[min(i, len(WIDTHS) - 1)],
            marker=MARKERS[i % len(MARKERS)],
            markersize=3 if len(pairs) <= MOST_MARKERS else 0,
            label=", ".join(names),
        )
    panel.set_xlim(above.get_xlim())
    panel.set_xticks(above.get_xticks(), [label.get_text() for label in above.get_xticklabels()])
    above.set_xticklabels([])
    panel.set_xlabel("layer")
    panel.set_ylabel("ratio")
    panel.grid(axis="y", color=ink, alpha=0.2, linewidth=0.6)
    panel.tick_params(length=0)
    panel.set_frame_on(False)
    panel.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3, frameon=False, handlelength=3
    )


def _mark_slices(panels: Iterable[Axes], plan: MergePlan, ink: str) -> None:
    """Draw a line where a slice of the recipe begins anew."""
    for part in slices_of(plan)[1:]:
        for panel in panels:
            panel.axvline(part.start, color=ink, linewidth=1, linestyle=":")


def _colours(ratios: list[float]) -> ScalarMappable:
    """Return colours for ratios: white for 0, at least up to 1."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    strongest = max(1.0, *map(abs, ratios))
    weakest = -strongest if min(ratios) < 0 else 0.0
    blues = ["#f7f7f7", "#a6cbe3", "#3f8ec0", "#08306b"]
    oranges = ["#7f2704", "#e6700f", "#fdbe85"]
    colours = LinearSegmentedColormap.from_list("ratio", oranges + blues if weakest else blues)
    return ScalarMappable(Normalize(weakest, strongest), colours)


def _draw(
    panel: Axes,
    rows: dict[str, Row],
    outside: dict[str, float],
    colours: ScalarMappable,
    ground: str,
    columns: int = 1,
) -> None:
    layers = 1 + max((layer for row in rows.values() for layer in row), default=0)
    cell = (
        layers * columns / 20
    )  # the width of what is outside the layers, beside `layers` of width 1
    for y, row in enumerate(rows.values()):
        for layer, ratio in row.items():
            _fill(panel, layer, y, 1, 1, ratio, colours)
        for x, ratio in labels_of(row, room=cell):
            _write(panel, x, y + 0.5, shown(ratio), ratio, colours)
    if layers <= 64:
        panel.vlines(range(1, layers), 0, len(rows), colors=ground, linewidth=0.5)
    panel.hlines(range(1, len(rows)), 0, layers, colors=ground, linewidth=1.5)

    left, right = 0.0, float(layers)
    for name, ratio in outside.items():
        if name in ("final norm", "head"):
            x, right = right + cell / 4, right + cell * 1.25
        else:
            x, left = left - cell * 1.25, left - cell * 1.25
        _fill(panel, x, 0, cell, len(rows), ratio, colours)
        text = f"{name}  {shown(ratio)}"
        _write(panel, x + cell / 2, len(rows) / 2, text, ratio, colours, rotation=90)

    panel.set_xlim(left, right)
    panel.set_ylim(len(rows), 0)
    step = next(
        s for s in (1, 2, 4, 5, 8, 10, 20, 50, 100) if layers * columns / s <= 20 or s == 100
    )
    panel.set_xticks([layer + 0.5 for layer in range(0, layers, step)])
    panel.set_xticklabels([str(layer) for layer in range(0, layers, step)])
    panel.set_yticks([y + 0.5 for y in range(len(rows))], list(rows))
    panel.tick_params(length=0)
    panel.set_frame_on(False)


def _fill(
    panel: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    ratio: float,
    colours: ScalarMappable,
) -> None:
    from matplotlib.patches import Rectangle

    colour = _colour(ratio, colours)
    panel.add_patch(Rectangle((x, y), width, height, facecolor=colour, linewidth=0))


def _write(
    panel: Axes,
    x: float,
    y: float,
    text: str,
    ratio: float,
    colours: ScalarMappable,
    rotation: float = 0,
) -> None:
    """Write on the colour of a ratio, in black or white, whichever can be read there."""
    red, green, blue, _ = _colour(ratio, colours)
    light = 0.299 * red + 0.587 * green + 0.114 * blue
    ink = "black" if light > 0.5 else "white"
    panel.text(x, y, text, color=ink, rotation=rotation, ha="center", va="center")


def _colour(ratio: float, colours: ScalarMappable) -> Any:
    return colours.to_rgba(ratio)  # type: ignore[arg-type]
