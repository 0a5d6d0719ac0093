"""One rank's part in a draw by a schedule, from its first turn to its last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from harness.errors import JournalFull
from harness.ipc.memory import SharedMemory
from harness.scenario.layouts.groups import GroupId
from harness.scenario.schedule import Schedule
from harness.substrate.sim.schedules.interpreted import watched
from harness.substrate.sim.schedules.witness import Witness
from harness.substrate.sim.views import Views
from harness.trace.events import Event


@contextmanager
def in_turn(
    rank: int,
    shared: SharedMemory,
    views: Views,
    schedule: Schedule,
    slots: dict[GroupId, int],
    record: Callable[[Event], None],
) -> Iterator[Witness]:
    """Under it, this rank runs in its turns alone, and its witness records."""
    turns = shared.turns = shared.turns_of(rank, len(schedule.order), schedule.changes)
    try:
        turns.begin()
        witness = Witness(rank, shared, views, turns, slots, record)
        try:
            with watched(witness):
                yield witness
        finally:
            with suppress(JournalFull):  # the draw is over for this rank, which has said so
                witness.flush()
    finally:
        shared.turns = None
        turns.end()
