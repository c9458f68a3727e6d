"""The prompts, split once: one half to search by, one to report by, which no trial ever sees.

Whoever picks the best of sixty trials picks luck with it. On prompts that had no part in the
choice, what was luck is gone.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chatvec_method.errors import ChatVecError
from chatvec_method.evaluation.by_prompt import Place

STAGES = (1 / 3, 1.0)
"""The shares of the searching half after which a trial is looked at: hopeless ones end there."""


@dataclass(frozen=True)
class Halves:
    """Two halves of the prompts, alike in what they are made of."""

    search: tuple[Place, ...]
    """In the order in which they are asked, within each stratum."""
    report: tuple[Place, ...]

    def stages(self) -> Iterator[tuple[Place, ...]]:
        """Yield the searching half in parts, of which each asks what the ones before have not."""
        by_stratum = _by_stratum(self.search)
        before = 0.0
        for share in STAGES:
            yield tuple(
                place
                for places in by_stratum
                for place in places[_first(before, places) : _first(share, places)]
            )
            before = share


def halves_of(places: Sequence[Place], seed: int) -> Halves:
    """Split prompts in two, each stratum by itself; one that is left over goes to the search.

    Args:
        places: All prompts.
        seed: Another one splits them otherwise.

    Raises:
        ChatVecError: There is only one of some kind.
    """
    search: list[Place] = []
    report: list[Place] = []
    for stratum in _by_stratum(places):
        name = stratum[0].stratum
        if len(stratum) < 2:
            raise ChatVecError(
                f"of {name} there is one prompt only, which no two halves can share.",
                "Take a higher `--limit`, a longer text, or leave it out.",
            )
        drawn = list(stratum)
        random.Random(f"{seed} {name}").shuffle(drawn)
        middle = math.ceil(len(drawn) / 2)
        search += drawn[:middle]
        report += sorted(drawn[middle:], key=lambda place: place.document)
    return Halves(tuple(search), tuple(report))


def _by_stratum(places: Sequence[Place]) -> list[list[Place]]:
    strata: defaultdict[str, list[Place]] = defaultdict(list)
    for place in places:
        strata[place.stratum].append(place)
    return list(strata.values())


def _first(share: float, places: Sequence[Place]) -> int:
    return math.ceil(share * len(places))
