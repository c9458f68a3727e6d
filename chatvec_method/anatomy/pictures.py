"""Pictures of an anatomy: where the vectors are, where they collide, and which tokens moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mergekit.common import ModelReference

from chatvec_method.anatomy.report import Anatomy
from chatvec_method.anatomy.sums import Sums, total
from chatvec_method.anatomy.tokens import TokenMoves
from chatvec_method.facts.plan import KINDS, PlannedTensor
from chatvec_method.pictures.style import (
    LINES,
    WIDTH,
    Theme,
    as_png,
    can_show,
    new_figure,
    short,
    style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHAT_COLOUR, CP_COLOUR = LINES[:2]
CURVES_HEIGHT, ROW_HEIGHT, MARGIN = 1.9, 0.3, 1.1
"""In inches: of the curves, of a row of the map, and of what is written around it."""
TOKEN_HEIGHT, SHOWN_TOKENS = 0.3, 12
LEAST_SPREAD = 5
"""The colours are full at this distance from chance, in %, at least: noise is to look like noise.
"""
MOST_TICKS, MOST_NUMBERS = 16, 24
"""So many layers have their number below the map, and numbers in it."""
NONE = Sums()


def pictures(anatomy: Anatomy) -> dict[str, bytes]:
    """Return all pictures of an anatomy by file name, for light and for dark pages."""
    by_name = {}
    themes: dict[str, Theme] = {"": "light", "-dark": "dark"}
    for suffix, theme in themes.items():
        by_name[f"anatomy{suffix}.png"] = anatomy_picture(anatomy, theme)
        if any(moves.most for moves in anatomy.tokens):
            by_name[f"anatomy-tokens{suffix}.png"] = tokens_picture(anatomy, theme)
    return by_name


def anatomy_picture(anatomy: Anatomy, theme: Theme = "light") -> bytes:
    """Return a picture of where the vectors live and collide, one chat vector below the other.

    Above, how long the chat vector and the language vector are in each layer and how their energy
    is spread; below, a map of their collision: orange where more than half of what both change
    pulls apart, blue where less does. Of a vector whose base is not here, there is only the chat
    vector, and no map.

    Args:
        anatomy: What was measured.
        theme: Dark on light, or light on dark.

    Returns:
        A PNG file.
    """
    chats = anatomy.roles.chats
    maps = {chat: _rows(anatomy, chat) for chat in anatomy.compared}
    heights = [
        h
        for chat in chats
        for h in (CURVES_HEIGHT, *([ROW_HEIGHT * len(maps[chat])] if chat in maps else []))
    ]
    with style(theme) as (ground, ink):
        figure = new_figure(WIDTH, sum(heights) + MARGIN * len(heights))
        grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
        places = iter(range(len(heights)))
        for chat in chats:
            place = next(places)
            lengths = figure.add_subplot(grid[place, 0])
            energies = figure.add_subplot(grid[place, 1])
            _draw_lengths(lengths, anatomy, chat, ink)
            _draw_energies(energies, anatomy, chat, ink)
            if chat not in maps:
                lengths.set_title(f"{short(str(chat), 45)}\n\nLength of the vector", loc="left")
                continue
            collisions = figure.add_subplot(grid[next(places), :])
            colours = _draw_map(collisions, anatomy, maps[chat], ground)
            bar = figure.colorbar(colours, ax=collisions, pad=0.01, aspect=12, extend="both")
            bar.outline.set_visible(False)
            bar.set_label("% (50: chance)")
            names = f"{short(str(chat), 45)} and {short(str(anatomy.roles.cp), 45)}"
            lengths.set_title(f"{names}\n\nLength of the vectors", loc="left")
        return as_png(figure)


NO_FONT = (
    "A row's number stands for a token in a script that no installed font has "
    "(Debian: fonts-noto-cjk)."
)


def tokens_picture(anatomy: Anatomy, theme: Theme = "light") -> bytes:
    """Return a picture of the tokens whose rows each chat model moved most, and how far cp did.

    Args:
        anatomy: What was measured.
        theme: Dark on light, or light on dark.

    Returns:
        A PNG file.
    """
    shown = [moves for moves in anatomy.tokens if moves.most]
    heights = [TOKEN_HEIGHT * min(SHOWN_TOKENS, len(moves.most)) for moves in shown]
    with style(theme) as (_, ink):
        figure = new_figure(WIDTH, sum(heights) + MARGIN * len(shown))
        panels: Any = figure.subplots(len(shown), squeeze=False, height_ratios=heights)
        for panel, moves in zip(panels[:, 0], shown, strict=True):
            _draw_tokens(panel, moves, ink)
        return as_png(figure)


def _rows(anatomy: Anatomy, chat: ModelReference) -> dict[str, dict[int, Sums]]:
    """Return the sums by kind of tensor and its part (`attention q_proj`), and by layer."""
    parts: dict[str, dict[int, list[Sums]]] = {}
    for kind in KINDS:
        for tensor in anatomy.tensors:
            planned = tensor.planned
            if planned.kind == kind and planned.layer is not None:
                layers = parts.setdefault(_row_name(planned), {})
                layers.setdefault(planned.layer, []).append(tensor.sums[chat, anatomy.roles.cp])
    return {
        name: {layer: total(sums) for layer, sums in layers.items()}
        for name, layers in parts.items()
    }


def _row_name(planned: PlannedTensor) -> str:
    if planned.kind == "norms":
        return "norms"
    return planned.name.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2]


def _draw_lengths(panel: Axes, anatomy: Anatomy, chat: ModelReference, ink: str) -> None:
    layers = anatomy.by_layer((chat, anatomy.roles.cp))
    curves = (
        ("chat vector", "vector_relative", CHAT_COLOUR, "o"),
        ("language vector", "other_relative", CP_COLOUR, "s"),
    )
    for name, key, colour, marker in curves[: 1 if chat in anatomy.alone else 2]:
        numbers = [100 * getattr(sums, key) for sums in layers.values()]
        panel.plot(list(layers), numbers, color=colour, marker=marker, markersize=3.5, label=name)
    panel.set_ylabel(f"% of {'cp' if chat in anatomy.alone else 'base'}'s norm")
    panel.set_ylim(bottom=0)
    _finish_curves(panel, anatomy, ink)


def _draw_energies(panel: Axes, anatomy: Anatomy, chat: ModelReference, ink: str) -> None:
    layers = anatomy.by_layer((chat, anatomy.roles.cp))
    alone = chat in anatomy.alone
    bars = (
        ("chat vector", "vector", CHAT_COLOUR, 0.0 if alone else -0.2),
        ("language vector", "other", CP_COLOUR, 0.2),
    )
    for name, key, colour, side in bars[: 1 if alone else 2]:
        energies = [getattr(sums, key) for sums in layers.values()]
        shares = [100 * energy / (sum(energies) or 1.0) for energy in energies]
        panel.bar([i + side for i in layers], shares, width=0.4, color=colour, label=name)
    panel.set_title("Where their energy is", loc="left")
    panel.set_ylabel("% of all layers'")
    _finish_curves(panel, anatomy, ink)


def _finish_curves(panel: Axes, anatomy: Anatomy, ink: str) -> None:
    panel.set_xlabel("layer")
    panel.set_xticks(_ticks(anatomy))
    panel.grid(axis="y", color=ink, alpha=0.2, linewidth=0.6)
    panel.set_axisbelow(True)
    panel.tick_params(length=0)
    panel.set_frame_on(False)
    top = panel.get_ylim()[1]
    panel.set_yticks([tick for tick in panel.get_yticks() if 0 <= tick <= top])
    panel.set_ylim(top=top * 1.2)  # room for the legend, without lines through it
    panel.legend(loc="upper center", ncols=2, frameon=False, handlelength=1.5)


def _draw_map(panel: Axes, anatomy: Anatomy, rows: dict[str, dict[int, Sums]], ground: str) -> Any:
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    layers = anatomy.layers
    numbers = np.array(
        [[100 * row.get(i, NONE).weighted_conflict for i in layers] for row in rows.values()]
    )
    # Norms have few elements and go their own way; colours are for telling the others apart.
    telling = [row for name, row in zip(rows, numbers, strict=True) if name != "norms"]
    far = np.abs(np.array(telling or numbers) - 50)
    spread = max(LEAST_SPREAD, float(far[~np.isnan(far)].max(initial=0)))
    colours = LinearSegmentedColormap.from_list(
        "collision", ["#08306b", "#3f8ec0", "#f7f7f7", "#e6700f", "#7f2704"]
    )
    scale = Normalize(50 - spread, 50 + spread)
    edges = [*layers, layers[-1] + 1], range(len(rows) + 1)
    image = panel.pcolormesh(*edges, numbers, cmap=colours, norm=scale, edgecolors=ground, lw=0.5)
    if len(layers) <= MOST_NUMBERS:
        for (y, x), number in np.ndenumerate(numbers):
            if not np.isnan(number):
                ink = "white" if abs(number - 50) > 0.5 * spread else "black"
                panel.text(x + 0.5, y + 0.5, f"{number:.0f}", color=ink, ha="center", va="center")
    panel.invert_yaxis()
    panel.set_title("Where they collide: share of |τ|·|λ| that pulls apart", loc="left")
    panel.set_xticks([tick + 0.5 for tick in _ticks(anatomy)], [str(t) for t in _ticks(anatomy)])
    panel.set_yticks([y + 0.5 for y in range(len(rows))], list(rows))
    panel.set_xlabel("layer")
    panel.tick_params(length=0)
    panel.set_frame_on(False)
    return image


def _ticks(anatomy: Anatomy) -> list[int]:
    step = next(s for s in (1, 2, 4, 5, 10, 20, 50, 100) if len(anatomy.layers) <= s * MOST_TICKS)
    return anatomy.layers[::step]


def _draw_tokens(panel: Axes, moves: TokenMoves, ink: str) -> None:
    shown = moves.most[:SHOWN_TOKENS]
    places = range(len(shown))
    panel.barh(
        [y - 0.2 for y in places],
        [100 * move.by_chat for move in shown],
        height=0.4,
        color=CHAT_COLOUR,
        label="by chat",
    )
    by_cp = [move.by_cp for move in shown if move.by_cp is not None]
    if by_cp:
        panel.barh(
            [y + 0.2 for y in places],
            [100 * share for share in by_cp],
            height=0.4,
            color=CP_COLOUR,
            label="by cp",
        )
    for y, move in zip(places, shown, strict=True):
        if move.untrained:
            panel.text(0, y + 0.2, " untrained in cp", color=ink, va="center", fontsize=7)
    labels = [move.name if can_show(move.name) else f"row {move.row}" for move in shown]
    panel.set_yticks(list(places), labels, parse_math=False)
    panel.invert_yaxis()
    panel.set_title(
        f"Tokens that {short(str(moves.chat), 40)} moved most, in {short(moves.tensor, 40)}",
        loc="left",
    )
    from_base = "distance from base's row" if by_cp else "length of the vector's row"
    unit = f"{from_base}, % of the norm of a typical row"
    hidden = not all(can_show(move.name) for move in shown)
    panel.set_xlabel(f"{unit}\n{NO_FONT}" if hidden else unit)
    panel.grid(axis="x", color=ink, alpha=0.2, linewidth=0.6)
    panel.set_axisbelow(True)
    panel.tick_params(length=0)
    panel.set_frame_on(False)
    panel.legend(loc="lower right", frameon=False)
