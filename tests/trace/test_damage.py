"""Events of damage: they come back as they were, with where a value came from."""

from __future__ import annotations

import msgspec
import pytest

from harness.scenario.layouts.groups import GroupId
from harness.trace.damage import Changed, Lost, Mismatch, Origin, Overwritten, PadOverwritten, SourceChanged, Touched
from harness.trace.events import Event


@pytest.mark.parametrize(
    "event",
    [
        Mismatch("a", 2, 8, 3, 0, "1.0", "2.0"),
        Mismatch("a", 2, 8, 3, 0, "1.0", "2.0", Origin("input", (1, 2), 4, 1, 2, 3)),
        Changed("a", 1, 8, 0, "1", "2"),
        SourceChanged("a", 1, 8, 0, "1", "2"),
        Lost("", 1, 8, 0, "1", "2", 3, "output", 4, "by", 64, by=5),
        Overwritten("a", "guard", 3, 1),
        Touched("call", "", 3, 64, 72, 2, "00", "01"),
        PadOverwritten(GroupId((0, 1), 1), "signal pad", -1, 2, "7"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_an_event_of_damage_comes_back_as_it_was(event: Event) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=Event) == event
