"""The sound policies break no rule, so that what a derived class breaks is its fault's doing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.scenario.steps import Step
from harness.trace.events import Registered
from harness.world.world import World
from tests.tools.designs import RECREATED, TRIMMED, TWO_GROUPS, events, found, run

SOUND = [f"harness.system.planted.sound:{name}" for name in ("Sound", "EveryGroup", "GoesWithout")]
PROGRAMS = {"two groups": TWO_GROUPS, "recreated": RECREATED, "trimmed": TRIMMED}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
@pytest.mark.parametrize("pool", SOUND)
def test_a_sound_policy_breaks_no_rule(pool: str, program: Sequence[Step], ranks: World) -> None:
    assert found(ranks, pool, program) == []


@pytest.mark.parametrize(("pool", "windows"), [(SOUND[0], 2), (SOUND[1], 3)])
def test_every_group_registers_segments_of_others_and_sound_does_not(pool: str, windows: int, ranks: World) -> None:
    """tp grows first, and its segment comes before cp has been seen; cp's segment is registered with both."""
    assert [len(each) for each in events(run(ranks, *TWO_GROUPS, pool=pool), Registered)] == [windows] * 4
