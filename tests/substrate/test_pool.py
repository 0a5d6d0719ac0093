"""The bookkeeping of a pool: what is recorded of a segment, and when subscribers see it."""

from __future__ import annotations

import torch

from harness.substrate.pool import Pool
from harness.trace.events import SegmentAllocated, SegmentFreed
from tests.tools.one_rank import Rank

M = 1 << 20


def allocate(pool: Pool) -> torch.Tensor:
    with pool.use():
        return torch.empty(5)


def test_coming_and_going_of_a_segment_are_recorded_with_its_place(rank: Rank) -> None:
    address = allocate(rank.pool("tp")).data_ptr()
    rank.pool("tp").trim()
    assert rank.events == [SegmentAllocated(0, "tp", address, 2 * M), SegmentFreed(0, ())]


def test_subscribers_see_a_segment_before_the_tensor_and_while_it_is_still_there(rank: Rank) -> None:
    pool, seen = rank.pool(), []
    pool.on_allocated.append(lambda segment: seen.append(("allocated", segment.size, segment in pool.segments)))
    pool.on_freed.append(lambda segment: seen.append(("freed", segment.size, segment in pool.segments)))
    allocate(pool)
    pool.trim()
    assert seen == [("allocated", 2 * M, True), ("freed", 2 * M, True)]


def test_a_segment_that_goes_under_live_windows_is_recorded_with_them(rank: Rank) -> None:
    pool, communicator = rank.pool(), rank.communicator()
    allocate(pool)
    window = communicator.register(pool.segments[0])
    assert window is not None
    pool.trim()
    assert rank.events[-1] == SegmentFreed(window.segment.ident, (window.ident,))


def test_a_window_that_a_subscriber_closes_is_not_live_when_its_segment_goes(rank: Rank) -> None:
    pool, communicator = rank.pool(), rank.communicator()
    pool.on_freed.append(lambda segment: segment.close_windows())
    allocate(pool)
    communicator.register(pool.segments[0])
    ident = pool.segments[0].ident
    pool.trim()
    assert rank.events[-1] == SegmentFreed(ident, ())


def test_a_reserved_pool_keeps_its_segments_when_it_is_trimmed(rank: Rank) -> None:
    pool = rank.pool()
    pool.is_reserved = True
    allocate(pool)
    pool.trim()
    assert len(pool.segments) == 1
