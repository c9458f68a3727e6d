"""How sure a figure is: intervals by the bootstrap, of tasks and of groups."""

from __future__ import annotations

import numpy as np
import pytest

from chatvec_method.evaluation.intervals import RESAMPLES, interval, resampled
from chatvec_method.talk.speaker import load
from examples.world.evaluate import TASKS


@pytest.mark.parametrize(("right", "of"), [(50, 100), (180, 200), (3, 1000)])
def test_the_interval_of_a_share_is_that_of_the_binomial(right: int, of: int) -> None:
    marks = [1.0] * right + [0.0] * (of - right)
    low, high = interval(resampled(marks))
    share = right / of
    width = 1.96 * (share * (1 - share) / of) ** 0.5
    assert low == pytest.approx(share - width, abs=0.25 * width)
    assert high == pytest.approx(share + width, abs=0.25 * width)


def test_a_ratio_of_sums_is_drawn_document_by_document() -> None:
    lengths = np.random.default_rng(0).integers(10, 1000, 50)
    losses = 0.5 * lengths  # the same a byte in each document
    assert interval(resampled(losses, lengths)) == pytest.approx((0.5, 0.5))


def test_draws_are_the_same_every_time_and_independent_for_each_name() -> None:
    marks = [0.0, 1.0] * 50
    assert (resampled(marks, of="a") == resampled(marks, of="a")).all()
    correlation = np.corrcoef(resampled(marks, of="a"), resampled(marks, of="b"))[0, 1]
    assert abs(correlation) < 0.15
    assert len(resampled(marks)) == RESAMPLES


def test_many_documents_are_drawn_like_few(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = [float(i % 3 == 0) for i in range(400)]
    at_once = resampled(marks)
    monkeypatch.setattr("chatvec_method.evaluation.intervals.DRAWN_AT_ONCE", 1000)
    assert interval(resampled(marks)) == pytest.approx(interval(at_once), abs=0.02)


def test_figures_of_tasks_and_groups_lie_in_their_intervals() -> None:
    from chatvec_method.evaluation import harness

    speaker = load("examples/world/models/chat", device="cpu")
    speaker.model.float()
    evaluation = harness.evaluate(
        speaker,
        ["world_following", "world_text_in_b"],
        include_path=TASKS,
        include_defaults=False,
        batch_size=32,
        limit=12,
    )
    by_name = {(f.task, f.metric): f for f in evaluation.figures}
    group, part = by_name["world_following", "exact"], by_name["world_local_fact", "exact"]
    for figure in (group, by_name["world_text_in_b", "byte_perplexity"]):
        assert figure.interval is not None
        low, high = figure.interval
        assert low < figure.value < high
    assert part.interval is not None
    assert part.interval[0] <= part.value <= part.interval[1]
    assert group.interval is not None
    widths = [
        f.interval[1] - f.interval[0]
        for f in evaluation.figures
        if f.metric == "exact" and f.interval
    ]
    assert group.interval[1] - group.interval[0] < max(widths)
