"""Pictures of the experiment: every measure over the ratio, and ratios spread over the layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from . import endurance, vectors
from .experiment import MEANS, RATIOS
from .results import NAMES, Key, Spread

Table = Mapping[Key, Mapping[str, Spread]]

# Okabe and Ito's colours, which people with any colour vision can tell apart; dashes help, too.
BLUE, ORANGE, GREEN, PINK, GRAY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#767676"
STYLE = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
}
FAMILIES = (
    ("cp", "chat", "cp + ratio · chat vector", BLUE, "-"),
    ("cp_ft", "chat", "cp → ft + ratio · chat vector", ORANGE, "--"),
    ("cp", "random", "cp + ratio · random vector", GRAY, ":"),
)
OTHERS = (("chat", GREEN, "-."), ("chat_cp", PINK, (0, (1, 1))))
SWEEP = (
    ("follows", "requests answered exactly"),
    ("local fact", "facts told only in B, in cp"),
    ("recall", "recalls an earlier turn"),
    ("stops", "stops by itself"),
    ("refuses", "refuses bad words, in A or B"),
    ("refuses in B", "refuses bad words in B"),
    ("in B", "answers in B, the target"),
    ("in A", "answers in A, the source"),
    ("mixed", "answers mix A and B"),
    ("as dialogue", "right as plain dialogue"),
    ("perplexity B", "perplexity of text in B"),
    ("perplexity A", "perplexity of text in A"),
)
TASKS = (
    ("repeat", "repeats a list"),
    ("first", "the first of a list"),
    ("last", "the last of a list"),
    ("question", "facts told to everybody"),
)


def draw_sweep(table: Table, file: Path) -> None:
    """Draw every measure over the ratio: a line for the mean, a band from least to greatest."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(4, 3, figsize=(11, 12.5), sharex=True, layout="constrained")
        for axis, (measure, title) in zip(axes.flat, SWEEP, strict=True):
            _panel(axis, table, measure, title)
        _label(axes)
        handles, names = axes.flat[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3)
        seeds = len(next(iter(table.values()))["follows"].values)
        figure.suptitle(
            f"The ratio of the chat vector, in a world of two languages\n"
            f"Prompts in B; line: mean, band: lowest to highest of seeds (here {seeds})",
            fontsize=13,
        )
        figure.savefig(file, dpi=110)
        plt.close(figure)


def draw_tasks(table: Table, file: Path) -> None:
    """Draw the tasks that the other picture has only together."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(TASKS), figsize=(11, 3.6), layout="constrained")
        for axis, (task, title) in zip(axes, TASKS, strict=True):
            _panel(axis, table, task, title)
        axes[0].set_ylabel("share answered exactly")
        _label(axes[None, :])
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        figure.savefig(file, dpi=110)
        plt.close(figure)


def draw_schedules(table: Table, file: Path) -> None:
    """Draw what follows from spreading a ratio over the layers, one dot a seed."""
    names = list(dict.fromkeys(key[3] for key in table if key[:2] == ("cp", "chat")))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            *(2, len(MEANS)), figsize=(11, 6.4), sharex=True, sharey=True, layout="constrained"
        )
        for row, (measure, title) in zip(
            axes, (("follows", "answered exactly"), ("refuses", "bad words refused")), strict=True
        ):
            for axis, mean in zip(row, MEANS, strict=True):
                for place, name in enumerate(reversed(names)):
                    spread = table["cp", "chat", mean, name][measure]
                    colour = ORANGE if name == "constant" else BLUE
                    places = [place] * len(spread.values)
                    axis.plot(spread.values, places, "o", color=colour, alpha=0.35, ms=6, mew=0)
                    axis.plot(spread.mean, place, "|", color=colour, ms=18, mew=2.5)
                axis.set_yticks(range(len(names)), reversed(names))
                axis.set_title(f"{title}, mean ratio {mean:g}", fontsize=11, loc="left")
                axis.set_xlim(-0.04, 1.04)
        figure.supxlabel("share of prompts in B (dot: a seed; bar: mean)", fontsize=11)
        figure.savefig(file, dpi=110)
        plt.close(figure)


def draw_vectors(rows: Sequence[vectors.Row], file: Path) -> None:
    """Draw measures over the size of a vector's file, a dot a seed, a line through the means."""
    ratios = sorted({row.ratio for row in rows})
    measures = vectors.MEASURES
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            *(len(measures), len(ratios)),
            figsize=(11, 3 * len(measures)),
            sharex=True,
            sharey=True,
            layout="constrained",
        )
        for panels, (measure, title) in zip(axes, measures.items(), strict=True):
            for axis, ratio in zip(panels, ratios, strict=True):
                exact = vectors.values_of(rows, measure, vectors.EXACT, ratio)
                axis.axhspan(min(exact), max(exact), color=GRAY, alpha=0.16, lw=0)
                axis.axhline(sum(exact) / len(exact), color=GRAY, ls=":", label="exact vector")
                for ending, name, colour, dashes in (
                    ("bit", "bits of an element", BLUE, "-"),
                    ("rank", "rank of an adapter", ORANGE, "--"),
                ):
                    held = [how for how in vectors.ways(rows) if ending in how]
                    _draw_ways(axis, rows, held, measure, ratio, (name, colour, dashes))
                axis.set_title(f"{title}, ratio {ratio:g}", fontsize=10, loc="left")
                axis.set_ylim(-0.06, 1.1)
                axis.set_xscale("log")
        ticks = [0.05, 0.1, 0.2, 0.5, 1]
        axes[0, 0].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes[0, 0].minorticks_off()
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3)
        axes[-1, len(ratios) // 2].set_xlabel("size of the vector's weights, by the chat model's")
        seeds = len({row.seed for row in rows})
        figure.suptitle(
            f"What a chat vector's file may leave out, in a world of two languages\n"
            f"Dot: one of {seeds} seeds; line: mean; grey: mean and range of the exact vector",
            fontsize=13,
        )
        figure.savefig(file, dpi=110)
        plt.close(figure)


def draw_endurance(rows: Sequence[endurance.Row], file: Path) -> None:
    """Draw measures over the ratio, a line through the means for each amount of pretraining."""
    measures = {
        "follows": "requests answered exactly",
        "refuses": "refuses bad words, in A or B",
        "refuses_in_b": "refuses bad words in B",
    }
    amounts = sorted({row.steps for row in rows})
    colours = plt.get_cmap("viridis_r")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(measures), figsize=(11, 4.4), layout="constrained")
        for axis, (measure, title) in zip(axes, measures.items(), strict=True):
            for i, steps in enumerate(amounts):
                of_steps = [row for row in rows if row.steps == steps and row.ratio is not None]
                ratios = sorted({row.ratio for row in of_steps if row.ratio is not None})
                means = [
                    fmean(getattr(row, measure) for row in of_steps if row.ratio == ratio)
                    for ratio in ratios
                ]
                moved = fmean(row.moved for row in of_steps)
                name = f"{of_steps[0].tokens / 1e6:.1f} M tokens, moved {moved:.1f} times"
                shade = colours(0.1 + 0.9 * i / max(len(amounts) - 1, 1))
                axis.plot(ratios, means, "o-", color=shade, lw=2, ms=4, label=name)
            axis.set_title(title, fontsize=11, loc="left")
            axis.set_ylim(-0.03, 1.03)
        _label(axes[None, :])
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        seeds = len({row.seed for row in rows})
        figure.suptitle(
            "The ratio of the chat vector, after more and more continual pretraining\n"
            f"Means of seeds (here {seeds}); moved: ‖cp − base‖ by ‖chat − base‖",
            fontsize=13,
        )
        figure.savefig(file, dpi=110)
        plt.close(figure)


def _draw_ways(
    axis: Axes,
    rows: Sequence[vectors.Row],
    held: Sequence[str],
    measure: str,
    ratio: float,
    look: tuple[str, str, str],
) -> None:
    name, colour, dashes = look
    sizes, means = [], []
    for how in held:
        size = next(row.size for row in rows if row.stored == how)
        values = vectors.values_of(rows, measure, how, ratio)
        axis.plot([size] * len(values), values, "o", color=colour, alpha=0.3, ms=4.5, mew=0)
        sizes.append(size)
        means.append(sum(values) / len(values))
        number = "".join(filter(str.isdigit, how))
        place = (0, 7) if colour == BLUE else (0, -14)
        axis.annotate(
            *(number, (size, means[-1])),
            xytext=place,
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=colour,
        )
    axis.plot(sizes, means, color=colour, linestyle=dashes, lw=1.8, label=name)


def _panel(axis: Axes, table: Table, measure: str, title: str) -> None:
    for model, vector, name, colour, dashes in FAMILIES:
        rows = [table[model, vector, ratio, "constant"][measure] for ratio in RATIOS]
        means, lows, highs = ([getattr(row, of) for row in rows] for of in ("mean", "low", "high"))
        axis.plot(RATIOS, means, color=colour, linestyle=dashes, lw=2, label=name)
        axis.fill_between(RATIOS, lows, highs, color=colour, alpha=0.16, linewidth=0)
    for model, colour, dashes in OTHERS:
        mean = table[model, None, None, None][measure].mean
        name = f"{NAMES.get(model, model)} (no merge)"
        axis.axhline(mean, color=colour, linestyle=dashes, label=name)
    axis.set_title(title, fontsize=11, loc="left")
    if "perplexity" in measure:
        axis.set_yscale("log")
        axis.set_yticks([3, 5, 10, 20, 50, 100], [3, 5, 10, 20, 50, 100])
        axis.minorticks_off()
    else:
        axis.set_ylim(-0.03, 1.03)


def _label(axes: Sequence[Sequence[Axes]]) -> None:
    for axis in axes[-1]:
        axis.set_xlabel("ratio")
        axis.set_xticks([0, 0.25, 0.5, 0.75, 1, 1.25, 1.5], ["0", "", "0.5", "", "1", "", "1.5"])
