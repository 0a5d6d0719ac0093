"""Events of calls: they come back as they were, and say whether their ranks differ in counts."""

from __future__ import annotations

import msgspec
import pytest

from harness.trace.calls import Operand, Ran
from harness.trace.events import Event
from tests.tools.calls import gathered, scattered

SOURCE, OUTPUT = Operand("a", 64, 24), Operand("b", 72, 16)


@pytest.mark.parametrize(
    "event",
    [
        gathered(0, SOURCE, OUTPUT),
        scattered(0, SOURCE, OUTPUT, counts=(4, 2), meant=()),
        Ran("symmetric", "the log"),
        Ran("legacy", "", 7),
        Ran("legacy", "the log", None, True),
    ],
    ids=repr,
)
def test_an_event_of_a_call_comes_back_as_it_was(event: Event) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=Event) == event


@pytest.mark.parametrize(("counts", "is_uneven"), [(4, False), ((4, 4), False), ((4, 2), True), ((0, 4), True)])
def test_a_call_is_uneven_where_counts_differ(counts: int | tuple[int, ...], is_uneven: bool) -> None:
    assert scattered(0, SOURCE, OUTPUT, counts=counts).is_uneven is is_uneven
