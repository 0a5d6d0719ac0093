"""Events: each keeps its kind and its fields on the way from a rank to the parent."""

from __future__ import annotations

import typing

import msgspec
import pytest

from harness.trace import calls, damage, events
from harness.trace.events import CommCreated, Event, Placed, Registered, SegmentFreed

KINDS: tuple[type[msgspec.Struct], ...] = typing.get_args(Event)
SAMPLES = (
    CommCreated(0, (3, 1), 2, True),
    Registered(4, 0, 2, 4096, 8192, False),
    SegmentFreed(2, (4, 5)),
    Placed("a", -1, 64, 128),
)


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: type(event).__name__)
def test_an_event_comes_back_as_it_was(event: Event) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=Event) == event


def test_no_two_kinds_share_a_tag() -> None:
    tags = [kind.__struct_config__.tag for kind in KINDS]
    assert len({*tags}) == len(KINDS) > 20


def test_every_kind_of_the_module_is_one_of_the_union() -> None:
    """Another kind would be written, and fail when it is read."""
    defined = {
        each
        for module in (events, calls, damage)
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, msgspec.Struct) and each.__struct_config__.tag is not None
    }
    assert defined == {*KINDS}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_event_is_frozen(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen
