"""Drawn streams: as many as were asked for, and buffers are used on streams that they do not belong to."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.scenario.bases import CollectiveStep
from harness.scenario.steps import STREAMS, Allocate
from harness.strategies.batches import sample
from harness.strategies.programs import scenarios


def test_buffers_are_used_on_streams_that_they_do_not_belong_to() -> None:
    found = 0
    for drawn in sample(scenarios(4, streams=STREAMS), 60, seed=2):
        own = {step.buffer: step.stream for step in drawn.steps if isinstance(step, Allocate)}
        found += any(own[step.whole.buffer] != step.stream for step in drawn.steps if isinstance(step, CollectiveStep))
    assert found >= 10


def test_every_stream_is_drawn_where_asked_for_and_one_elsewhere() -> None:
    for streams in (1, 2, STREAMS):
        drawn = sample(scenarios(4, streams=streams), 60, seed=3)
        assert {step.stream for each in drawn for step in each.steps} == {*range(streams)}


@pytest.mark.parametrize("streams", [0, STREAMS + 1])
def test_more_streams_than_there_are_is_refused(streams: int) -> None:
    with pytest.raises(UsageError, match=rf"^{streams} streams are not between 1 and {STREAMS}"):
        sample(scenarios(2, streams=streams), 1, seed=0)
