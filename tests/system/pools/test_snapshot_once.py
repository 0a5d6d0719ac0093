"""`snapshot-once`: what its one set of addresses leaves unregistered."""

from __future__ import annotations

from harness.trace.events import Registered
from harness.world.world import World
from tests.tools.designs import (
    RECREATED,
    TRIMMED,
    TWO_GROUPS,
    events,
    found,
    run,
)


def test_snapshot_once_gives_the_second_group_on_a_segment_no_window(ranks: World) -> None:
    (finding,) = found(ranks, "snapshot-once", TWO_GROUPS)
    assert (finding.rule, finding.step, finding.ranks) == ("wrong-owner", 3, (0, 2))
    assert "was registered with tp[0,1,2,3] at step 0 (allocate); cp[0,2] has no window over it" in str(finding)


def test_snapshot_once_registers_a_segment_with_one_communicator(ranks: World) -> None:
    made = events(run(ranks, *TWO_GROUPS, pool="snapshot-once"), Registered)
    assert [len(each) for each in made] == [1] * 4


def test_snapshot_once_takes_a_new_segment_at_an_old_address_for_registered(ranks: World) -> None:
    (finding,) = found(ranks, "snapshot-once", TRIMMED)
    assert (finding.rule, finding.step, finding.ranks) == ("stale-window", 5, (0, 1, 2, 3))
    assert "that window went at step 3 (trim)" in str(finding)


def test_snapshot_once_takes_a_new_communicator_for_registered(ranks: World) -> None:
    assert [(f.rule, f.step) for f in found(ranks, "snapshot-once", RECREATED)] == [
        ("stale-window", 4),
        ("stale-window", 5),
    ]
