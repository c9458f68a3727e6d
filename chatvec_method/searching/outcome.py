"""What a search found: the recipes that no other one beats, and whether one ratio does as well.

The Pareto set is chosen on the searching half of the prompts. What its recipes are worth is said by
the reporting half, which had no part in that; there each is held against the best ratio that is the
same everywhere, prompt by prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from chatvec_method.evaluation.by_prompt import Marks
from chatvec_method.evaluation.intervals import interval
from chatvec_method.recipe.file import Recipe
from chatvec_method.searching.objectives import (
    Objective,
    Sought,
    difference,
    interval_of,
    prompts_of,
)

ByFigure = Mapping[str, Marks]
WORTH = 0.01
"""Of the mean of the objectives, from the worst of all trials to the best: the least that counts.
Of a perplexity the hundredth part of that can be measured with certainty, and is nothing."""


@dataclass(frozen=True)
class Tried:
    """A trial that is finished."""

    number: int
    name: str | None
    """Of a point where the search began."""
    uniform: float | None
    """The ratio, where it is the same everywhere."""
    numbers: Mapping[str, float]
    """What was tried: a value for each number of the space."""
    values: tuple[float, ...] | None
    """The objectives' on the searching half; None if the trial ended early."""
    so_far: tuple[float, ...]
    """The same on the prompts that it was asked, where it ended early."""
    holds: bool
    """Whether all limits hold, on the searching half."""
    seconds: float

    @property
    def label(self) -> str:
        """Return what to call it."""
        return self.name or f"trial {self.number}"


@dataclass(frozen=True, repr=False)
class Candidate:
    """A recipe, with what it was worth on either half."""

    tried: Tried
    recipe: Recipe
    search: ByFigure
    report: ByFigure

    def __repr__(self) -> str:
        return f"<Candidate {self.tried.label}>"


@dataclass(frozen=True, repr=False)
class Outcome:
    """What a search found."""

    sought: Sought
    trials: tuple[Tried, ...]
    front: tuple[Candidate, ...]
    """The Pareto set of the searching half, by the first objective, the best one first."""
    uniform: Candidate | None
    """The best ratio that is the same everywhere; None where none was finished that may count."""
    prompts: tuple[int, int]
    """Of the searching and of the reporting half."""
    circumstances: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<Outcome of {len(self.trials)} trials: {len(self.front)} recipes>"

    @cached_property
    def suggested(self) -> Candidate | None:
        """Return the recipe of the Pareto set that is suggested; None if there is none."""
        return max(self.front, key=lambda each: self.score(each.tried.values or ()), default=None)

    @cached_property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """Return by objective the lowest and the highest value of all trials."""
        return ranges_of(self.trials)

    def score(self, values: Sequence[float]) -> float:
        """Return the mean of objectives, each from 0 (the worst of all trials) to 1 (the best)."""
        return score(self.sought.objectives, self.ranges, values)

    def above_uniform(self, candidate: Candidate) -> tuple[float, tuple[float, float]] | None:
        """Return how far a recipe is above the best uniform ratio, on the reporting half.

        Returns:
            The difference of the scores, with its paired interval of 95 %; None without a uniform
            ratio, or where it is the recipe itself.
        """
        if self.uniform is None or candidate.tried.number == self.uniform.tried.number:
            return None
        total: Any = 0.0
        value = 0.0
        for each, (low, high) in zip(self.sought.objectives, self.ranges, strict=True):
            weight = each.sign / ((high - low) or 1.0) / len(self.ranges)
            prompts = prompts_of(each.measure, candidate.report, self.uniform.report)
            total = total + weight * (
                each.measure.replicates(candidate.report, prompts)
                - each.measure.replicates(self.uniform.report, prompts)
            )
            value += weight * (
                each.measure.value(candidate.report) - each.measure.value(self.uniform.report)
            )
        return value, interval(total)

    @property
    def sentences(self) -> list[str]:
        """Return what it comes to."""
        best = self.suggested
        if best is None:
            return ["No trial holds all limits on the searching half: there is nothing to suggest."]
        told = [
            f"Suggested: {best.tried.label}. Of the {len(self.front)} recipes that no other trial "
            "beats on the searching half, it has the highest mean of the objectives, each taken "
            "from the worst (0) to the best (1) of all trials."
        ]
        if self.uniform is None:
            return [
                *told,
                "No uniform ratio holds all limits, so there is none to compare it with.",
            ]
        name = f"the best uniform ratio, {self.uniform.tried.uniform:g}"
        above = self.above_uniform(best)
        if above is None:
            return [*told, f"That is {name}, itself: nothing beats it."]
        value, (low, high) = above
        between = f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
        if low > 0 and value >= WORTH:
            return [*told, f"On the reporting half it beats {name}: {between} of that mean."]
        if high < 0:
            why = "there the suggested recipe is worse"
        elif low > 0:
            why = "that is too little to matter"
        else:
            why = "chance can do that"
        return [*told, f"Nothing beats {name}: {between} on the reporting half, and {why}."]

    def as_data(self) -> dict[str, Any]:
        """Return all of it but the prompts' marks, as JSON has it."""
        best = self.suggested
        return {
            **self.circumstances,
            "prompts": {"search": self.prompts[0], "report": self.prompts[1]},
            "objectives": {each.name: each.text for each in self.sought.objectives},
            "constraints": [each.text for each in self.sought.constraints],
            "trials": [
                {
                    "number": t.number,
                    "name": t.name,
                    "uniform": t.uniform,
                    "numbers": dict(t.numbers),
                    "values": None if t.values is None else self._named(t.values),
                    "ended_early_at": None if t.values is not None else self._named(t.so_far),
                    "holds": t.holds,
                    "seconds": round(t.seconds, 3),
                }
                for t in self.trials
            ],
            "pareto": [self._candidate(each) for each in self.front],
            "best_uniform": None if self.uniform is None else self._candidate(self.uniform),
            "suggested": None if best is None else best.tried.number,
            "conclusions": self.sentences,
        }

    def _named(self, values: Sequence[float]) -> dict[str, float]:
        names = [each.name for each in self.sought.objectives]
        return dict(zip(names, values, strict=True))

    def _candidate(self, each: Candidate) -> dict[str, Any]:
        above = self.above_uniform(each)
        return {
            "trial": each.tried.number,
            "name": each.tried.name,
            "uniform": each.tried.uniform,
            "objectives": {
                objective.name: self._objective(objective, each)
                for objective in self.sought.objectives
            },
            "limits": {
                constraint.text: {
                    "search": constraint.measure.value(each.search),
                    "report": constraint.measure.value(each.report),
                }
                for constraint in self.sought.constraints
            },
            "above_best_uniform": None
            if above is None
            else {"value": above[0], "low": above[1][0], "high": above[1][1]},
        }

    def _objective(self, objective: Objective, each: Candidate) -> dict[str, Any]:
        low, high = interval_of(objective.measure, each.report)
        told: dict[str, Any] = {
            "search": objective.measure.value(each.search),
            "report": objective.measure.value(each.report),
            "low": low,
            "high": high,
            "above_best_uniform": None,
        }
        if self.uniform is not None and each.tried.number != self.uniform.tried.number:
            value, (low, high) = difference(objective.measure, each.report, self.uniform.report)
            told["above_best_uniform"] = {"value": value, "low": low, "high": high}
        return told


def pareto(trials: Sequence[Tried], objectives: Sequence[Objective]) -> list[Tried]:
    """Return the trials that hold all limits and that no other such one beats.

    Of several with the same ratios the first one stands for all.
    """
    allowed = [trial for trial in trials if trial.values is not None and trial.holds]
    unlike: dict[tuple[float, ...], Tried] = {}
    for trial in allowed:
        unlike.setdefault(tuple(trial.numbers.values()), trial)
    raised = {
        t.number: np.array([o.sign * v for o, v in zip(objectives, t.values or (), strict=True)])
        for t in unlike.values()
    }
    on_front = [
        trial
        for trial in unlike.values()
        if not any(_dominates(other, raised[trial.number]) for other in raised.values())
    ]
    return sorted(on_front, key=lambda t: (-raised[t.number][0], t.number))


def best_uniform(trials: Sequence[Tried], objectives: Sequence[Objective]) -> Tried | None:
    """Return the trial with the best ratio that is the same everywhere."""
    ranges = ranges_of(trials)
    allowed = [t for t in trials if t.uniform is not None and t.values is not None and t.holds]
    return max(allowed, key=lambda t: score(objectives, ranges, t.values or ()), default=None)


def ranges_of(trials: Sequence[Tried]) -> tuple[tuple[float, float], ...]:
    """Return by objective the lowest and the highest value of all trials."""
    rows = [trial.values for trial in trials if trial.values is not None]
    return tuple((min(column), max(column)) for column in zip(*rows, strict=True))


def score(
    objectives: Sequence[Objective],
    ranges: Sequence[tuple[float, float]],
    values: Sequence[float],
) -> float:
    """Return the mean of objectives, each from 0 for the worst of all trials to 1 for the best."""
    shares = []
    for objective, (low, high), value in zip(objectives, ranges, values, strict=True):
        share = (value - low) / ((high - low) or 1.0)
        shares.append(share if objective.maximise else 1 - share)
    return float(np.mean(shares))


def _dominates(one: Any, other: Any) -> bool:
    return bool((one >= other).all() and (one > other).any())
