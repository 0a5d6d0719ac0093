"""`shared-at-exit`: sound where sizes are equal, and broken by other groups and re-created communicators."""

from __future__ import annotations

import pytest

from harness.world.world import World
from tests.tools.designs import (
    OTHER_GROUPS_OFFSETS,
    OTHER_GROUPS_SEGMENTS,
    PROGRAMS,
    RECREATED,
    TWO_GROUPS,
    causes,
    found,
    registered,
    run,
)
from tests.tools.scenes import rules


@pytest.mark.parametrize("name", ["two groups", "trimmed"])
def test_shared_at_exit_is_sound_where_sizes_are_equal(ranks: World, name: str) -> None:
    assert found(ranks, "shared-at-exit", PROGRAMS[name]) == []


def test_shared_at_exit_registers_a_segment_with_every_group(ranks: World) -> None:
    draw = run(ranks, *TWO_GROUPS, pool="shared-at-exit")
    groups = [[trace.comms()[event.comm].group for event in each] for trace, each in registered(draw)]
    assert groups == [[(0, 1, 2, 3), cp] for cp in ((0, 2), (1, 3), (0, 2), (1, 3))]


def test_shared_at_exit_lets_a_new_communicator_inherit_the_index_of_the_old(ranks: World) -> None:
    broken = found(ranks, "shared-at-exit", RECREATED)
    assert [(f.rule, f.step) for f in broken] == [("stale-window", 4), ("stale-window", 5)]
    assert "that window went at step 2 (recreate) and tp[0,1,2,3] has none over it now" in str(broken[0])


def test_shared_at_exit_registers_what_other_groups_grew_by(ranks: World) -> None:
    """No group differs in itself. For tp, ranks 1 and 3 have two segments to register, and ranks 0 and 2 one."""
    broken = found(ranks, "shared-at-exit", OTHER_GROUPS_SEGMENTS)
    assert rules(broken) == ["registration-skew", "hang"]
    assert "of tp[0,1,2,3] entered different numbers of registrations: rank 0: 1, rank 1: 2, rank 2: 1, rank 3: 2" in (
        str(broken[0])
    )


def test_shared_at_exit_puts_buffers_where_other_groups_left_room(ranks: World) -> None:
    broken = found(ranks, "shared-at-exit", OTHER_GROUPS_OFFSETS)
    assert (causes(broken), broken[0].step) == (["offset-mismatch"], 3)
    assert "rank 0 at byte 2560, rank 1 at byte 3584, rank 2 at byte 2560, rank 3 at byte 3584" in str(broken[0])
