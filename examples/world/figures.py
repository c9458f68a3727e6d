"""Pictures of the experiment: every measure over the ratio, and ratios spread over the layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

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
