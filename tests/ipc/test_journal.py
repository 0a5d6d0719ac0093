"""The journal: events come back as they were written, whole, and as far as the rank came."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest

from harness.errors import JournalFull
from harness.ipc.journal import Journal
from harness.trace.events import (
    Began,
    CommCreated,
    Entered,
    Event,
    Finished,
    Mismatch,
    Operand,
    Ran,
    Registered,
)
from tests.tools.calls import gathered

EVENTS: tuple[Event, ...] = (
    CommCreated(0, (3, 1), 2, True),
    Began(0),
    Registered(2, 0, 1, (1 << 63) + 512, 2 << 20, False),
    Entered("all_gather", 0),
    gathered(0, Operand("source", 4096, 16), Operand("output", 8192, 32)),
    Ran("symmetric", "look-up"),
    Mismatch("output", 1, 8, 3, 0, "1.0 (0x3f800000)", "nan (0x7fc00000)"),
    Finished(),
)


@pytest.fixture
def memory() -> memoryview:
    return memoryview(bytearray(4096))


def test_a_fresh_journal_is_empty(memory: memoryview) -> None:
    assert Journal(memory).read() == ()


def test_events_are_read_as_they_were_written(memory: memoryview) -> None:
    journal = Journal(memory)
    for event in EVENTS:
        journal.append(event)
    assert journal.read() == EVENTS


def test_another_process_reads_what_was_written_so_far(memory: memoryview) -> None:
    writer, reader = Journal(memory), Journal(memory)
    seen = []
    for event in EVENTS[:3]:
        writer.append(event)
        seen.append(len(reader.read()))
    assert seen == [1, 2, 3]


def test_an_event_whose_length_was_not_written_yet_is_not_seen(memory: memoryview) -> None:
    journal = Journal(memory)
    journal.append(EVENTS[0])
    before = bytes(memory[:8])
    journal.append(EVENTS[1])
    memory[:8] = before  # as a rank leaves it that dies before the last store
    assert journal.read() == EVENTS[:1]


def test_an_event_written_after_a_torn_one_takes_its_place(memory: memoryview) -> None:
    journal = Journal(memory)
    journal.append(EVENTS[0])
    memory[8 + journal.length : 100 + journal.length] = b"\xff" * 92
    journal.append(EVENTS[1])
    assert journal.read() == EVENTS[:2]


@pytest.mark.parametrize(
    ("place", "data", "left"),
    [
        (slice(12, 13), b"\xc1", 0),
        (slice(0, 8), (1 << 40).to_bytes(8, "little"), 0),
        (slice(8, 12), (1 << 20).to_bytes(4, "little"), 0),
        (slice(0, 0), b"", 2),
    ],
    ids=["an event", "the length", "the length of an event", "nothing"],
)
def test_a_journal_that_was_written_over_says_so(memory: memoryview, place: slice, data: bytes, left: int) -> None:
    journal = Journal(memory)
    for event in EVENTS[:2]:
        journal.append(event)
    memory[place] = data
    assert journal.examine() == (EVENTS[:left], left < 2)
    assert journal.read() == EVENTS[:left]


def test_a_cleared_journal_is_empty(memory: memoryview) -> None:
    journal = Journal(memory)
    journal.append(EVENTS[0])
    journal.clear()
    assert journal.read() == ()


def test_a_cleared_journal_starts_anew(memory: memoryview) -> None:
    journal = Journal(memory)
    for event in EVENTS:
        journal.append(event)
    journal.clear()
    journal.append(Began(7))
    assert journal.read() == (Began(7),)


def test_a_full_journal_refuses_the_next_event() -> None:
    journal = Journal(memoryview(bytearray(64)))
    for step in range(4):  # 12 bytes each, behind the length of 8
        journal.append(Began(step))
    with pytest.raises(JournalFull, match="journal is full"):
        journal.append(Began(4))


def test_after_an_event_that_did_not_fit_none_is_written_until_the_journal_is_cleared() -> None:
    memory = memoryview(bytearray(64))
    journal = Journal(memory)
    journal.append(Began(0))
    for event in (Entered("x" * 64, 0), Began(1)):
        with pytest.raises(JournalFull):
            journal.append(event)
    Journal(memory).clear()  # as the parent does
    journal.append(Began(2))
    assert journal.read() == (Began(2),)


def test_a_full_journal_keeps_what_it_holds() -> None:
    journal = Journal(memoryview(bytearray(64)))
    journal.append(Began(0))
    with pytest.raises(JournalFull):
        journal.append(Entered("x" * 64, 0))
    assert journal.read() == (Began(0),)


def test_an_event_that_just_fits_is_kept() -> None:
    room = 8 + 4 + len(msgspec.msgpack.encode(Began(0))) + 8
    journal = Journal(memoryview(bytearray(room)))
    journal.append(Began(0))
    assert journal.read() == (Began(0),)


def test_beats_are_counted_beside_the_events(memory: memoryview) -> None:
    writer, reader = Journal(memory), Journal(memory)
    writer.append(EVENTS[0])
    assert reader.beats == 0
    writer.beat()
    writer.append(EVENTS[1])
    writer.beat()
    assert (reader.beats, reader.read()) == (2, EVENTS[:2])


def test_a_full_journal_leaves_room_for_its_beats(memory: memoryview) -> None:
    journal = Journal(memory)
    with suppress(JournalFull):
        for _ in range(len(memory)):
            journal.append(EVENTS[0])
    before = journal.read()
    journal.beat()
    assert (journal.beats, journal.read()) == (1, before)
