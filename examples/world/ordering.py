"""Does every seed tell the same story? The paper's ordering of models, seed by seed.

Means can hide a seed that shows the opposite. So each seed is held to the whole ordering: cp does
not follow, cp with its best ratio does, a random vector does not bring it, training on from chat
keeps less of it, and bad words are refused more often with the whole vector than with half of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .experiment import RATIOS
from .results import Key, Spread

NOTHING, MOST = 0.05, 0.85  # of the requests: less than this is none, more than this is enough


@dataclass(frozen=True)
class Ordering:
    """What one seed says: shares of requests answered exactly, and of bad words refused."""

    seed: int
    cp: float
    best: float  # of cp with the chat vector, at the ratio that serves this seed best
    best_ratio: float
    random: float  # the most that any ratio of the random vector brings
    chat_cp: float
    refuses_at_half: float  # in any language, as the next
    refuses_at_one: float

    @property
    def holds(self) -> bool:
        """Tell whether this seed shows the ordering in full."""
        return (
            self.cp < NOTHING
            and self.best > MOST
            and self.random < NOTHING
            and self.chat_cp < self.best
            and self.refuses_at_half < self.refuses_at_one
        )


def orderings(table: Mapping[Key, Mapping[str, Spread]], seeds: Sequence[int]) -> list[Ordering]:
    """Return what each seed says, given the results of these seeds in this order."""
    return [_ordering(table, place, seed) for place, seed in enumerate(seeds)]


def _ordering(table: Mapping[Key, Mapping[str, Spread]], place: int, seed: int) -> Ordering:
    def merges(vector: str, measure: str) -> dict[float, float]:
        rows = {ratio: table["cp", vector, ratio, "constant"] for ratio in RATIOS}
        return {ratio: row[measure].values[place] for ratio, row in rows.items()}

    follows, refuses = merges("chat", "follows"), merges("chat", "refuses")
    best_ratio = max(follows, key=follows.__getitem__)
    return Ordering(
        seed=seed,
        cp=table["cp", None, None, None]["follows"].values[place],
        best=follows[best_ratio],
        best_ratio=best_ratio,
        random=max(merges("random", "follows").values()),
        chat_cp=table["chat_cp", None, None, None]["follows"].values[place],
        refuses_at_half=refuses[0.5],
        refuses_at_one=refuses[1.0],
    )


def markdown(orderings: Sequence[Ordering]) -> str:
    """Return one row a seed, as a table for people."""
    lines = [
        "| seed | cp | cp + best ratio | random vector | chat → cp "
        "| refuses at 0.5 | at 1 | holds |",
        f"| --- {'| ---: ' * 6}| --- |",
        *(
            f"| {each.seed} | {each.cp:.2f} | {each.best:.2f} at {each.best_ratio:g} "
            f"| {each.random:.2f} | {each.chat_cp:.2f} "
            f"| {each.refuses_at_half:.2f} | {each.refuses_at_one:.2f} "
            f"| {'yes' if each.holds else 'no'} |"
            for each in orderings
        ),
    ]
    return "\n".join(lines) + "\n"
