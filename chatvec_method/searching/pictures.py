"""Pictures of a search: its Pareto front, the schedules that it found, and which numbers matter."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState

from chatvec_method.pictures.ratios import schedule_picture
from chatvec_method.pictures.style import LINES, WIDTH, Theme, as_png, new_figure, style
from chatvec_method.searching.outcome import Outcome, Tried

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from chatvec_method.searching.search import Search

HEIGHT = 4.6
BAR, MARGIN = 0.26, 1.0
"""In inches: of a number's bar, and of what is above and below all of them."""
FEWEST = 8
"""Trials in full from which the importance of numbers can be told."""
TREES_SEED = 0


def search_pictures(outcome: Outcome, search: Search, study: optuna.Study) -> dict[str, bytes]:
    """Return pictures by file name, for light and for dark pages.

    Raises:
        ChatVecError: matplotlib is not installed.
    """
    themes: dict[str, Theme] = {"": "light", "-dark": "dark"}
    important = importances(outcome, study)
    pictures = {}
    for suffix, theme in themes.items():
        pictures[f"front{suffix}.png"] = front_picture(outcome, theme)
        if outcome.suggested is not None:
            shown = {f"suggested, {outcome.suggested.tried.label}": outcome.suggested}
            if outcome.uniform is not None:
                shown[f"best {outcome.uniform.tried.name}"] = outcome.uniform
            plans = [(name, search.plan(each.recipe)) for name, each in shown.items()]
            pictures[f"schedules{suffix}.png"] = schedule_picture(plans, theme)
        if important:
            pictures[f"importance{suffix}.png"] = importance_picture(important, theme)
    return pictures


def front_picture(outcome: Outcome, theme: Theme = "light") -> bytes:
    """Return a picture of every trial by its first two objectives, on the searching half.

    Args:
        outcome: What was found.
        theme: Dark on light, or light on dark.

    Returns:
        A PNG file.
    """
    first, second = outcome.sought.objectives[:2]
    with style(theme) as (_, ink):
        figure = new_figure(WIDTH, HEIGHT)
        panel = figure.subplots()
        whole = [t for t in outcome.trials if t.values is not None]
        uniform = sorted(
            (t for t in whole if t.uniform is not None), key=lambda t: t.uniform or 0.0
        )
        front = {each.tried.number for each in outcome.front}
        others = [t for t in whole if t.number not in front and t.uniform is None]
        _dots(panel, others, "trials", color=ink, alpha=0.45, s=20, linewidths=0)
        ended = [t for t in outcome.trials if t.values is None]
        if ended:
            look = {"facecolors": "none", "edgecolors": ink, "alpha": 0.35, "s": 16}
            _dots(panel, ended, "ended early, as far as they went", linewidths=0.8, **look)
        broken = [t for t in whole if not t.holds]
        if broken:
            _dots(panel, broken, "a limit is broken", color=ink, marker="x", alpha=0.6, s=30)
        panel.plot(
            *_values(uniform), color=LINES[1], marker="o", markersize=5, label="one ratio for all"
        )
        for trial in uniform:
            panel.annotate(
                f"{trial.uniform:g}",
                _place(trial),
                textcoords="offset points",
                xytext=(6, -10),
                color=LINES[1],
                fontsize=8,
            )
        on_front = [each.tried for each in outcome.front]
        panel.plot(*_values(on_front), color=LINES[0], linewidth=1, alpha=0.6)
        _dots(panel, on_front, "beaten by none", color=LINES[0], s=42, zorder=3)
        best = outcome.suggested
        if best is not None:
            x, y = _place(best.tried)
            panel.scatter([x], [y], s=150, facecolors="none", edgecolors=LINES[2], linewidths=2)
            panel.annotate(
                f"suggested: {best.tried.label}",
                (x, y),
                textcoords="offset points",
                xytext=(-10, 12),
                ha="right",
                color=LINES[2],
            )
        for axis, objective, tell in (
            (panel.xaxis, first, panel.set_xlabel),
            (panel.yaxis, second, panel.set_ylabel),
        ):
            tell(objective.name if objective.maximise else f"{objective.name} (less is better)")
            axis.set_inverted(not objective.maximise)
        early = sum(t.values is None for t in outcome.trials)
        panel.set_title(
            f"{len(outcome.trials)} trials, {early} of them ended early; searching half, "
            f"{outcome.prompts[0]} prompts",
            loc="left",
        )
        panel.grid(color=ink, alpha=0.15, linewidth=0.6)
        panel.set_frame_on(False)
        panel.tick_params(length=0)
        panel.legend(loc="best", frameon=False)
        return as_png(figure)


def importances(outcome: Outcome, study: optuna.Study) -> dict[str, Mapping[str, float]]:
    """Return by objective how much of its variation each number explains, by optuna's fANOVA.

    Empty where there is one number, or too few trials.
    """
    whole = [t for t in study.get_trials(deepcopy=False) if t.state is TrialState.COMPLETE]
    if len(whole) < FEWEST or len(whole[0].params) < 2:
        return {}
    important: dict[str, Mapping[str, float]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for place, objective in enumerate(outcome.sought.objectives):
            important[objective.name] = optuna.importance.get_param_importances(
                study,
                evaluator=optuna.importance.FanovaImportanceEvaluator(seed=TREES_SEED),
                target=lambda trial, place=place: trial.values[place],  # type: ignore[misc]
            )
    return important


def importance_picture(
    important: Mapping[str, Mapping[str, float]], theme: Theme = "light"
) -> bytes:
    """Return a picture of how much each number matters to each objective.

    Args:
        important: By objective and number, shares of the variation.
        theme: Dark on light, or light on dark.

    Returns:
        A PNG file.
    """
    names = sorted(
        next(iter(important.values())),
        key=lambda name: sum(each[name] for each in important.values()),
    )
    with style(theme) as (_, ink):
        figure = new_figure(WIDTH, MARGIN + BAR * len(names))
        panels: Any = figure.subplots(1, len(important), sharey=True, squeeze=False)
        for i, (panel, (objective, shares)) in enumerate(
            zip(panels[0], important.items(), strict=True)
        ):
            panel.barh(names, [shares[name] for name in names], color=LINES[i % len(LINES)])
            panel.set_title(f"what {objective} varies with", loc="left")
            panel.set_xlim(0, 1)
            panel.set_xticks([0, 0.2, 0.4, 0.6, 0.8])
            panel.grid(axis="x", color=ink, alpha=0.2, linewidth=0.6)
            panel.tick_params(length=0)
            panel.set_frame_on(False)
        return as_png(figure)


def _values(trials: Sequence[Tried]) -> tuple[list[float], list[float]]:
    """Return the first two objectives of trials."""
    places = [_place(trial) for trial in trials]
    return [x for x, _ in places], [y for _, y in places]


def _place(trial: Tried) -> tuple[float, float]:
    values = trial.so_far if trial.values is None else trial.values
    return values[0], values[1]


def _dots(panel: Axes, trials: Sequence[Tried], label: str, **look: Any) -> None:
    panel.scatter(*_values(trials), label=label, **look)
