"""A substrate from draw to draw: pools and communicators by name, and nothing left of the draw before."""

from __future__ import annotations

import pytest
import torch

from harness.scenario.layouts.groups import GroupId
from harness.trace.events import CommCreated, CommDestroyed, Entered, Leaked
from tests.tools.one_rank import Rank

ALONE = (GroupId((0,)),)


def made_in(rank: Rank, elements: int = 5) -> torch.Tensor:
    with rank.pool().use():
        return torch.empty(elements)


def begin(rank: Rank) -> None:
    rank.substrate.begin([ALONE], [0], {GroupId((0,)): 0})


def test_segment_of_an_address_is_found_while_it_lives(rank: Rank) -> None:
    tensor = made_in(rank)
    address = tensor.data_ptr()
    found = rank.substrate.locate(address)
    del tensor
    rank.pool().trim()
    assert (found is not None and address in found, rank.substrate.locate(address)) == (True, None)


def test_ordinary_memory_lies_in_no_segment(rank: Rank) -> None:
    made_in(rank)
    assert rank.substrate.locate(torch.empty(5).data_ptr()) is None


def test_a_pool_is_made_at_its_first_use_and_kept(rank: Rank) -> None:
    assert rank.pool("one") is rank.pool("one")
    assert rank.substrate.pools.keys() == {"one"}


def test_a_draw_begins_without_the_pools_the_graph_and_the_denial_of_the_draw_before(rank: Rank) -> None:
    rank.pool()
    rank.substrate.graph, rank.substrate.denial.is_due, rank.substrate.refusal.is_due = "g", True, True
    rank.substrate.start_recording(rank.events.append)
    assert (rank.substrate.pools, rank.substrate.graph) == ({}, None)
    assert (rank.substrate.denial.is_due, rank.substrate.refusal.is_due) == (False, False)


def test_partitions_that_share_a_group_share_its_communicator(rank: Rank) -> None:
    rank.substrate.begin([ALONE, (GroupId((0,)), GroupId((1,)))], [0], {GroupId((0,)): 0})
    assert [type(event) for event in rank.events] == [CommCreated]


def test_two_communicators_over_the_same_ranks_are_two(rank: Rank) -> None:
    first, second = GroupId((0,)), GroupId((0,), 1)
    rank.substrate.begin([(first,), (second,)], [0], {first: 0, second: 1})
    made = [(event.group, event.number) for event in rank.events if isinstance(event, CommCreated)]
    assert made == [((0,), 0), ((0,), 1)]
    assert rank.substrate.communicator(first) is not rank.substrate.communicator(second)


def test_a_communicator_of_the_draw_before_is_gone(rank: Rank) -> None:
    begin(rank)
    before = rank.substrate.communicator(GroupId((0,)))
    begin(rank)
    assert rank.substrate.communicator(GroupId((0,))) is not before


def test_a_recreated_communicator_is_the_next_generation_of_its_group(rank: Rank) -> None:
    begin(rank)
    rank.substrate.recreate(ALONE)
    assert rank.events == [
        CommCreated(0, (0,), 0, True),
        Entered("recreate", 0),
        CommDestroyed(0),
        CommCreated(1, (0,), 1, True),
    ]


@pytest.mark.parametrize(("nodes", "has_windows"), [([0, 0], True), ([0, 1], False)])
def test_a_group_that_spans_nodes_has_no_windows(nodes: list[int], has_windows: bool, rank: Rank) -> None:
    rank.substrate.begin([(GroupId((0, 1)),)], nodes, {GroupId((0, 1)): 0})
    assert rank.substrate.communicator(GroupId((0, 1))).supports_windows is has_windows


def test_a_policy_sees_host_names_and_windows_follow_domains(rank: Rank) -> None:
    pair = GroupId((0, 1))
    for domains, hosts in (([0, 0], [0, 1]), ([0, 1], [0, 0])):
        rank.substrate.begin([(pair,)], domains, {pair: 0}, hosts)
        found = rank.substrate.hosts, rank.substrate.communicator(pair).supports_windows
        assert found == (tuple(hosts), domains == [0, 0])


def test_segments_and_windows_that_are_left_are_leaks(rank: Rank) -> None:
    begin(rank)
    left = made_in(rank)
    segment = rank.pool().segments[0]
    window = rank.substrate.communicator(GroupId((0,))).register(segment)
    assert window is not None
    rank.substrate.end()
    assert rank.events[-2:] == [
        Leaked("segment", segment.ident, segment.size),
        Leaked("window", window.ident, window.size),
    ]
    del left


def test_a_draw_that_gave_everything_back_leaks_nothing(rank: Rank) -> None:
    begin(rank)
    made_in(rank)
    rank.pool().close()
    rank.substrate.end()
    assert not [event for event in rank.events if isinstance(event, Leaked)]


def test_a_mistake_in_python_is_no_fault_of_the_device(rank: Rank) -> None:
    assert rank.substrate.fault(ValueError("a mistake")) == ""
