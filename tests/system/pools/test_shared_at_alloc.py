"""`shared-at-alloc`: a segment belongs to the group that made the pool grow, and to no other."""

from __future__ import annotations

from harness.trace.events import Placed, Registered, SegmentAllocated
from harness.world.world import World
from tests.tools.designs import (
    PROGRAMS,
    RECREATED,
    TRIMMED,
    TWO_GROUPS,
    found,
    run,
)
from tests.tools.scenes import rules


def test_shared_at_alloc_gives_the_second_group_on_a_segment_no_window(ranks: World) -> None:
    (finding,) = found(ranks, "shared-at-alloc", TWO_GROUPS)
    assert (finding.rule, finding.step, finding.ranks) == ("wrong-owner", 3, (0, 2))


def test_shared_at_alloc_registers_inside_the_allocation(ranks: World) -> None:
    draw = run(ranks, *TWO_GROUPS[:2], pool="shared-at-alloc")
    order = SegmentAllocated, Registered, Placed
    assert tuple(type(event) for event in draw.traces[0].events if isinstance(event, order)) == order


def test_shared_at_alloc_registers_nothing_with_a_new_communicator(ranks: World) -> None:
    assert rules(found(ranks, "shared-at-alloc", RECREATED)) == ["stale-window"]


def test_shared_at_alloc_is_sound_where_every_group_grows_the_pool_itself(ranks: World) -> None:
    assert found(ranks, "shared-at-alloc", TRIMMED) == []


def test_shared_at_alloc_hangs_where_one_rank_grows_alone(ranks: World) -> None:
    broken = found(ranks, "shared-at-alloc", PROGRAMS["uneven growth"])
    assert rules(broken)[0] == "registration-skew"
    assert "hang" in rules(broken)
