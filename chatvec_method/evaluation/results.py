"""What an evaluation says: as data for machines, as rows of tables, and how it came about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chatvec_method.evaluation.conclusion import conclusion
from chatvec_method.evaluation.scores import Score
from chatvec_method.evaluation.sweep import STEPS, Result


@dataclass(frozen=True)
class Circumstances:
    """How an evaluation came about."""

    date: str
    """In UTC, as ISO 8601 has it."""
    versions: Mapping[str, str]
    """Of the packages that count."""
    revisions: Mapping[str, Mapping[str, str]]
    """By target, those of its models: commits on the hub, or fingerprints of folders."""
    limit: int | None
    """Prompts an axis at most; None for all."""


@dataclass(frozen=True, repr=False)
class Results:
    """What all points of all targets achieved."""

    results: tuple[Result, ...]
    moved: Mapping[str, Mapping[str, float]]
    """By recipe, for each chat model ‖cp − base‖ / ‖chat − base‖: how far cp has moved."""
    circumstances: Circumstances

    def __repr__(self) -> str:
        return f"<Results of {len(self.results)} points>"

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    @property
    def conclusions(self) -> tuple[str, ...]:
        """Return a sentence for each recipe that was swept and each language of the suite."""
        sentences = []
        for target in dict.fromkeys(each.point.target for each in self.results):
            by_ratio = self.by_ratio(target)
            languages = {s.language: None for scores in by_ratio.values() for s in scores}
            for language in languages:
                if language is not None and (said := conclusion(by_ratio, language)):
                    sentences.append(said)
        return tuple(sentences)

    def by_ratio(self, target: str) -> dict[float, tuple[Score, ...]]:
        """Return the scores of a recipe at the ratios that are the same in all layers."""
        return {
            each.point.ratio: each.scores
            for each in self.results
            if each.point.target == target and each.point.ratio is not None
        }

    def as_data(self) -> dict[str, Any]:
        """Return everything but the answers, as JSON has it."""
        return {
            "date": self.circumstances.date,
            "versions": dict(self.circumstances.versions),
            "revisions": {name: dict(each) for name, each in self.circumstances.revisions.items()},
            "limit": self.circumstances.limit,
            "moved": {name: dict(each) for name, each in self.moved.items()},
            "results": [_data_of(each) for each in self.results],
            "conclusions": list(self.conclusions),
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield every score as a row."""
        for result in self.results:
            for score in result.scores:
                yield {**_named(result), **_score_data(score)}

    def answers(self) -> Iterator[dict[str, Any]]:
        """Yield every answer to the suite beside its prompt and its mark."""
        for result in self.results:
            for each in result.answers:
                yield {
                    **_named(result),
                    "language": each.prompt.language,
                    "axis": each.prompt.axis,
                    "prompt": each.prompt.id,
                    "messages": list(each.prompt.messages),
                    "answer": each.answer,
                    "stopped": each.stopped,
                    "ends": each.ends,
                    "passed": each.mark.passed,
                    "why": each.mark.why,
                    "answer_language": each.language,
                }


def _named(result: Result) -> dict[str, Any]:
    point = result.point
    return {"target": point.target, "ratio": point.ratio, "schedule": point.schedule}


def _data_of(result: Result) -> dict[str, Any]:
    line = None
    if result.line is not None:
        line = {
            "at": list(STEPS),
            "perplexity": list(result.line.perplexities),
            "barrier": result.line.barrier,
        }
    return {
        **_named(result),
        "scores": [_score_data(score) for score in result.scores],
        "line_from_cp": line,
    }


def _score_data(score: Score) -> dict[str, Any]:
    low, high = score.interval or (None, None)
    return {
        "axis": score.axis,
        "language": score.language,
        "value": score.value,
        "low": low,
        "high": high,
        "prompts": score.prompts,
        "unit": score.unit,
        "higher_is_better": score.higher_is_better,
        "source": score.source,
        "part_of": score.part_of,
    }
