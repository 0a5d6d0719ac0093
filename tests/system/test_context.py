"""What a pool policy sees of its rank."""

from __future__ import annotations

import pytest
import torch

from harness.scenario.layouts.groups import GroupId
from harness.system.context import ProcessGroup, RankContext
from tests.tools.one_rank import Rank


@pytest.fixture
def context(rank: Rank) -> RankContext:
    rank.substrate.begin([(GroupId((0,)),)], [0], {GroupId((0,)): 0})
    return RankContext(rank.substrate, 1)


def group(rank: Rank) -> ProcessGroup:
    return ProcessGroup(rank.substrate, "tp", GroupId((0,)))


def test_a_group_is_named_by_its_family_and_ranks(rank: Rank) -> None:
    assert ProcessGroup(rank.substrate, "cp", GroupId((2, 0))).name == "cp[2,0]"


def test_a_groups_rank_is_the_index_of_this_rank(rank: Rank) -> None:
    assert ProcessGroup(rank.substrate, "cp", GroupId((2, 0))).rank == 1


def test_a_groups_communicator_is_the_new_one_after_a_recreate(rank: Rank, context: RankContext) -> None:
    everyone = group(rank)
    before = everyone.communicator
    rank.substrate.recreate((GroupId((0,)),))
    assert (everyone.communicator is before, everyone.communicator.generation) == (False, 1)


def test_groups_of_equal_ranks_share_a_communicator(rank: Rank, context: RankContext) -> None:
    assert group(rank).communicator is ProcessGroup(rank.substrate, "dp", GroupId((0,))).communicator


def test_a_re_created_communicator_may_be_at_the_old_address(rank: Rank, context: RankContext) -> None:
    before = group(rank).comm_ptr
    rank.substrate.recreate((GroupId((0,)),))
    assert group(rank).comm_ptr == before


def test_a_group_exchanges_words(rank: Rank, context: RankContext) -> None:
    assert group(rank).exchange(-1) == [-1]


def test_buffers_of_a_simulated_rank_live_on_the_cpu(context: RankContext) -> None:
    assert context.device == torch.device("cpu")


def test_a_policy_sees_the_graph_that_allocations_are_for(rank: Rank, context: RankContext) -> None:
    rank.substrate.graph = "g"
    assert context.graph == "g"


def test_a_policy_sees_whether_a_graph_is_captured(rank: Rank, context: RankContext) -> None:
    with rank.substrate.device.capture():
        inside = context.is_capturing
    assert (inside, context.is_capturing) == (True, False)


def test_pools_are_those_made_so_far(context: RankContext) -> None:
    made = [context.pool("one"), context.pool("other"), context.pool("one")]
    assert list(context.pools()) == made[:2]


def test_pools_may_be_made_while_they_are_gone_through(context: RankContext) -> None:
    context.pool("one")
    for pool in context.pools():
        context.pool(f"beside {pool.name}")
    assert len(list(context.pools())) == 2


def test_a_block_of_another_stream_is_not_given_out(context: RankContext) -> None:
    places = []
    for index in (0, 1):
        with context.stream(index), context.pool("one").use():
            places.append(torch.empty(5).data_ptr())
    assert places[0] != places[1]
