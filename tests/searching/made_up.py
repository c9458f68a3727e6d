"""Figures, marks and trials that no model has anything to do with."""

from __future__ import annotations

from collections.abc import Sequence

from chatvec_method.evaluation.by_prompt import Figure, Marks, Place
from chatvec_method.searching.objectives import Sought, sought

FOLLOWS = Figure("follows", ("task",), "follows", None, False, True)
LOOPS = Figure("loops", ("task",), "loops", None, False, False)
LENGTH = Figure("length", ("task",), "length", None, False, None)
READS = Figure("reads", ("text",), "byte_perplexity", None, True, False)
FIGURES = {each.name: each for each in (FOLLOWS, LOOPS, LENGTH, READS)}
BOTH: Sought = sought(["follows", "reads"], FIGURES)


def places(count: int, task: str = "task") -> list[Place]:
    return [Place(f"{task}/{i}", task, i, task) for i in range(count)]


def passed(marks: Sequence[int]) -> Marks:
    """Return marks of prompts that were passed, 1, or not, 0."""
    return {f"task/{i}": (float(mark), 1.0) for i, mark in enumerate(marks)}


def read(losses: Sequence[float], bytes_: float = 10.0) -> Marks:
    """Return marks of pieces of a text, by the loss of each."""
    return {f"text/{i}": (-loss * bytes_, bytes_) for i, loss in enumerate(losses)}
