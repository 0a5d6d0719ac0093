"""The simulated rank: its arena from draw to draw, and what it takes back at the end of one."""

from __future__ import annotations

import torch

from harness.scenario.layouts.groups import GroupId
from harness.trace.events import Deregistered, SegmentFreed
from tests.tools.one_rank import Rank


def begin(rank: Rank) -> None:
    rank.substrate.begin([(GroupId((0,)),)], [0], {GroupId((0,)): 0})


def left_behind(rank: Rank) -> torch.Tensor:
    """A buffer in a registered segment."""
    with rank.pool().use():
        buffer = torch.empty(5)
    rank.substrate.communicator(GroupId((0,))).register(rank.pool().segments[0])
    return buffer


def test_the_path_of_a_call_is_the_simulations_own_look_up(rank: Rank) -> None:
    assert rank.substrate.describe() == {"path_evidence": "simulated look-up"}


def test_the_end_of_a_draw_takes_back_segments_and_windows(rank: Rank) -> None:
    begin(rank)
    buffer = left_behind(rank)
    rank.substrate.end()
    assert (rank.pool().segments, rank.substrate.communicator(GroupId((0,))).windows) == ([], [])
    del buffer


def test_taking_back_is_no_event_of_the_draw(rank: Rank) -> None:
    begin(rank)
    buffer = left_behind(rank)
    rank.substrate.end()
    assert not [event for event in rank.events if isinstance(event, Deregistered | SegmentFreed)]
    del buffer


def test_a_draw_finds_the_whole_arena_free_at_the_same_addresses(rank: Rank) -> None:
    places = []
    for _ in range(2):
        rank.substrate.start_recording(rank.events.append)
        begin(rank)
        buffer = left_behind(rank)
        places.append(buffer.data_ptr())
        rank.substrate.end()
        del buffer
    assert places[0] == places[1]
