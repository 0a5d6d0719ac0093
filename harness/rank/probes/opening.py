"""How a measurement on ranks begins: with one communicator over all of them.

Runs inside rank processes. Invariant: nothing of a measurement is recorded.
"""

from __future__ import annotations

from harness.scenario.layouts.groups import GroupId
from harness.substrate.base import Substrate


def open_world(substrate: Substrate, slots: dict[GroupId, int]) -> GroupId:
    """The group of all ranks, whose communicator is there until `substrate.end()`. Collective over the world.

    `slots` has that group alone, as `World.call` hands it over. All ranks are on one node.
    """
    (group,) = slots
    substrate.start_recording(lambda event: None)
    substrate.world(len(group.ranks))
    substrate.begin([(group,)], [0] * len(group.ranks), slots)
    return group
