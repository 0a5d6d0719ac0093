"""The simulated rank: its arena from draw to draw, its order of addresses, and what it takes back at the end."""

from __future__ import annotations

import pytest
import torch

from harness.scenario.layouts.groups import Group, GroupId
from harness.scenario.operands import View
from harness.scenario.scenario import Scenario
from harness.scenario.steps import AllGather, Allocate, Release
from harness.scenario.system import System
from harness.trace.events import Deregistered, SegmentFreed
from harness.world.world import World
from tests.tools.one_rank import Rank
from tests.tools.scenes import PAIR, findings, rules


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


# orders of addresses

LARGE = 3 << 20
"""Elements of a buffer that has a segment of its own."""
TWO_FREE = (
    Allocate("a", "tp", LARGE),
    Allocate("b", "tp", LARGE),
    Release("a"),
    Release("b"),
    Allocate("c", "tp", LARGE),
    AllGather("tp", View("c"), 100),
)


@pytest.mark.parametrize("falling", [(0,), (1,)])
def test_ranks_whose_addresses_fall_choose_another_of_two_equal_blocks(ranks: World, falling: Group) -> None:
    drawn = Scenario(PAIR, TWO_FREE, System("per-group"), falling=falling)
    assert "segment-mismatch" in rules(findings(ranks, drawn))


@pytest.mark.parametrize("falling", [(), (0, 1)])
def test_ranks_in_one_order_choose_the_same_block(ranks: World, falling: Group) -> None:
    assert findings(ranks, Scenario(PAIR, TWO_FREE, System("per-group"), falling=falling)) == []


def test_a_pool_that_compares_orders_survives_falling_addresses(ranks: World) -> None:
    assert findings(ranks, Scenario(PAIR, TWO_FREE, System("deferred"), falling=(1,))) == []


def test_the_next_draw_has_rising_addresses_again(ranks: World) -> None:
    ranks.run(Scenario(PAIR, TWO_FREE, System("per-group"), falling=(1,)))
    assert findings(ranks, Scenario(PAIR, TWO_FREE, System("per-group"))) == []


# communicators


def test_a_re_created_communicator_has_the_address_of_the_one_before(rank: Rank) -> None:
    begin(rank)
    ids = (GroupId((0,)),)
    before = rank.substrate.communicator(ids[0])
    rank.substrate.recreate(ids)
    after = rank.substrate.communicator(ids[0])
    assert (after is before, after.ptr, after.generation) == (False, before.ptr, 1)
