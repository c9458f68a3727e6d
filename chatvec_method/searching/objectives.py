"""What is sought: figures to raise or to lower, means of several, and limits that must hold.

Written as `follows`, `-reads`, `quality=follows+refuses`, `language>=0.98`. In a mean of several
figures all go from 0 to 1, and higher is better: a share as it is, or what it lacks to 1 where
lower is better; a perplexity as its inverse, the probability that the model gives a byte or a word.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from chatvec_method.errors import ChatVecError
from chatvec_method.evaluation.by_prompt import Figure, Marks
from chatvec_method.evaluation.intervals import Floats, interval, resampled

DEFAULT = ("quality=follows+knows+recalls+refuses+ends", "closeness=language+reads")
"""For the suite's languages: what a model can do, and how close it stays to the language."""
NAMED = re.compile(r"\s*([^=<>+]+?)\s*=(?!=)\s*(.+)")
LIMIT = re.compile(r"(.+?)\s*(>=|<=)\s*([-+.\deE]+)\s*")

ByFigure: TypeAlias = Mapping[str, Marks]
"""The marks of one recipe, by figure and prompt."""


@dataclass(frozen=True)
class Measure:
    """A figure, or the mean of several."""

    figures: tuple[Figure, ...]

    def value(self, marks: ByFigure) -> float:
        """Return what it is by all prompts that there are marks of."""
        return float(self._of([self._figure(f, marks[f.name].values()) for f in self.figures]))

    def replicates(self, marks: ByFigure, prompts: Mapping[str, Sequence[str]]) -> Floats:
        """Return what it would be of other prompts of the same kind.

        Args:
            marks: Of one recipe.
            prompts: By figure, those that are drawn from. The same prompts are drawn in the same
                way for every recipe, so that a difference of two is a paired one.
        """
        every = []
        for figure in self.figures:
            ids = prompts[figure.name]
            pairs = [marks[figure.name].get(each, (0.0, 0.0)) for each in ids]
            values, weights = zip(*pairs, strict=True)
            name = str(zlib.crc32("\n".join(ids).encode()))
            with np.errstate(invalid="ignore", divide="ignore"):
                drawn = np.nan_to_num(resampled(values, weights, of=name))
            every.append(np.exp(-drawn) if figure.perplexity else drawn)
        return np.asarray(self._of(every), dtype=np.float64)

    def _figure(self, figure: Figure, marks: Iterable[tuple[float, float]]) -> float:
        pairs = list(marks)
        weight = sum(each for _, each in pairs)
        mean = sum(value for value, _ in pairs) / weight if weight else 0.0
        return float(np.exp(-mean)) if figure.perplexity else mean

    def _of(self, values: Sequence[float | Floats]) -> float | Floats:
        if len(values) == 1:
            return values[0]
        shares = [
            1 / value if figure.perplexity else value if figure.higher_is_better else 1 - value
            for figure, value in zip(self.figures, values, strict=True)
        ]
        return sum(shares[1:], start=shares[0]) / len(shares)


@dataclass(frozen=True)
class Objective:
    """A measure that is to be as high, or as low, as possible."""

    name: str
    text: str
    """As it was written."""
    measure: Measure
    maximise: bool

    @property
    def sign(self) -> int:
        """Return 1 where more is better, else −1."""
        return 1 if self.maximise else -1


@dataclass(frozen=True)
class Constraint:
    """A limit that must hold."""

    text: str
    measure: Measure
    limit: float
    at_least: bool

    def excess(self, marks: ByFigure) -> float:
        """Return by how much the limit is broken: 0 or less where it holds."""
        value = self.measure.value(marks)
        return self.limit - value if self.at_least else value - self.limit


@dataclass(frozen=True)
class Sought:
    """All that a search is about."""

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Return the figures that have to be measured."""
        measures = [each.measure for each in self.objectives]
        measures += [each.measure for each in self.constraints]
        return tuple(dict.fromkeys(f for measure in measures for f in measure.figures))

    def values(self, marks: ByFigure) -> list[float]:
        """Return the objectives' values."""
        return [each.measure.value(marks) for each in self.objectives]


def sought(texts: Sequence[str], figures: Mapping[str, Figure]) -> Sought:
    """Return what objectives and constraints mean.

    Args:
        texts: As they are written.
        figures: What there is to measure, by name.

    Raises:
        ChatVecError: A figure is not measured, has no direction or does not fit into a mean, or
            there are less than two objectives.
    """
    objectives, constraints = [], []
    for text in texts:
        if limit := LIMIT.fullmatch(text):
            measure = _measure(limit[1], figures)
            constraints.append(
                Constraint(text.strip(), measure, _number(limit[3], text), limit[2] == ">=")
            )
        else:
            objectives.append(_objective(text, figures))
    if len(objectives) < 2:
        raise ChatVecError(
            f"a search wants two objectives or more, and there is {len(objectives) or 'none'}.",
            "Write `--objective` twice: with one alone, the other thing that matters is lost "
            "unseen.",
        )
    names = [each.name for each in objectives]
    if len(set(names)) < len(names):
        raise ChatVecError(
            f"two objectives are called {max(names, key=names.count)}.",
            "Write another name before one: `name=follows+refuses`.",
        )
    return Sought(tuple(objectives), tuple(constraints))


def _objective(text: str, figures: Mapping[str, Figure]) -> Objective:
    named = NAMED.fullmatch(text)
    name, body = (named[1], named[2]) if named else (text.strip(), text.strip())
    sign = body[0] if body[:1] in ("+", "-") else ""
    measure = _measure(body[len(sign) :], figures)
    better = True if len(measure.figures) > 1 else measure.figures[0].higher_is_better
    if not sign and better is None:
        raise ChatVecError(
            f"nobody says whether more or less of `{body}` is better.",
            f"Write `+{body}` or `-{body}`.",
        )
    return Objective(name, text.strip(), measure, sign == "+" if sign else bool(better))


def _measure(text: str, figures: Mapping[str, Figure]) -> Measure:
    names = [name.strip() for name in text.split("+")]
    for name in names:
        if name not in figures:
            raise ChatVecError(
                f"nothing measures `{name}` here.", f"There are: {', '.join(figures)}."
            )
    measure = Measure(tuple(figures[name] for name in names))
    for figure in measure.figures:
        if len(names) > 1 and figure.higher_is_better is None:
            raise ChatVecError(
                f"`{figure.name}` cannot be part of a mean: it is no share and no perplexity.",
                "Make it an objective of its own.",
            )
    return measure


def _number(text: str, whole: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ChatVecError(
            f"`{whole}` has no number as its limit.", "Write for example `language>=0.98`."
        ) from None


def prompts_of(measure: Measure, *recipes: ByFigure) -> dict[str, list[str]]:
    """Return by figure the prompts that count for one of some recipes at least."""
    return {
        figure.name: sorted({each for marks in recipes for each in marks[figure.name]})
        for figure in measure.figures
    }


def interval_of(measure: Measure, marks: ByFigure) -> tuple[float, float]:
    """Return the interval of 95 % of a measure, by the bootstrap over prompts."""
    return interval(measure.replicates(marks, prompts_of(measure, marks)))


def difference(
    measure: Measure, marks: ByFigure, other: ByFigure
) -> tuple[float, tuple[float, float]]:
    """Return by how much one recipe's measure is above another's, with its paired interval."""
    prompts = prompts_of(measure, marks, other)
    drawn = measure.replicates(marks, prompts) - measure.replicates(other, prompts)
    return measure.value(marks) - measure.value(other), interval(drawn)
