"""On a rank: what `deferred` does where no scenario can lead it, for `World.call`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from harness.scenario.layouts.groups import GroupId
from harness.substrate.base import Substrate
from harness.system.context import ProcessGroup, RankContext
from harness.system.pools.deferred import Deferred, GrowthDuringCapture
from harness.trace.events import Entered, Event, Leaked

BLOCK = 1 << 10
"""Bytes of a buffer that a small segment has room for many times."""


@dataclass
class Stage:
    """`deferred` and the group of all ranks, at the start of a draw."""

    policy: Deferred
    group: ProcessGroup
    events: list[Event] = field(default_factory=list)

    def empty(self, size: int = BLOCK) -> torch.Tensor:
        with self.policy.use(self.group):
            return torch.empty(size, dtype=torch.uint8)

    def calls(self) -> list[str]:
        """What was entered on the communicator since this was asked before."""
        entered = [event.call for event in self.events if isinstance(event, Entered)]
        self.events.clear()
        return entered

    def owns(self, tensor: torch.Tensor) -> bool:
        return self.group.communicator.find_window(tensor.data_ptr()) is not None


@contextmanager
def stage(substrate: Substrate, slots: dict[GroupId, int]) -> Iterator[Stage]:
    (group,) = slots
    events: list[Event] = []
    substrate.start_recording(events.append)
    substrate.world(len(group.ranks))
    substrate.begin([(group,)], [0] * len(group.ranks), slots)
    policy = Deferred(RankContext(substrate, len(group.ranks)))
    yield Stage(policy, ProcessGroup(substrate, "tp", group), events)
    policy.close()
    substrate.end()


def grow(substrate: Substrate, slots: dict[GroupId, int], sizes: list[list[int]]) -> dict[str, Any]:
    """Each rank allocates blocks of its own `sizes` in one go; then all allocate the same."""
    error_text = ""
    with stage(substrate, slots) as on:
        mine: list[torch.Tensor] = []
        try:
            with on.policy.use(on.group):
                mine.extend(torch.empty(size, dtype=torch.uint8) for size in sizes[substrate.rank])
        except torch.OutOfMemoryError as error:
            error_text = str(error)
        first, owned_first = on.calls(), [on.owns(tensor) for tensor in mine]
        after = on.empty()
        segment = substrate.locate(after.data_ptr())
        assert segment is not None
        place = segment.pool, after.data_ptr() - segment.address
        then, owned_then = on.calls(), on.owns(after)
        mine.clear()
        del after
    left = sum(isinstance(event, Leaked) for event in on.events)
    return {
        "error": error_text,
        "first": first,
        "owned first": owned_first,
        "then": then,
        "owned then": owned_then,
        "place": place,
        "left": left,
    }


def grow_in_capture(substrate: Substrate, slots: dict[GroupId, int]) -> dict[str, Any]:
    """A pool grows while a graph is captured, then outside, and is used in a capture again."""
    error_text = ""
    with stage(substrate, slots) as on:
        on.calls()
        with substrate.device.capture():
            try:
                on.empty()
            except GrowthDuringCapture as error:
                error_text = str(error)
        captured = on.calls()
        kept = on.empty()
        eager = on.calls()
        with substrate.device.capture():
            again = on.empty()
        found = {
            "error": error_text,
            "captured": captured,
            "eager": eager,
            "again": on.calls(),
            "owned": [on.owns(kept), on.owns(again)],
        }
        del kept, again
    return found


def run_out_elsewhere(substrate: Substrate, slots: dict[GroupId, int]) -> list[str]:
    """Inside the context of a pool that has grown, something else runs out of memory; what is then entered."""
    with stage(substrate, slots) as on:
        kept = on.empty()
        on.calls()
        with suppress(torch.OutOfMemoryError), on.policy.use(on.group):
            raise torch.OutOfMemoryError("not this pool's")
        entered = on.calls()
        del kept
    return entered
