"""Shared memory: laid out without overlap, reset to zero, named where the system refuses it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest

from harness.errors import MachineError
from harness.ipc.memory import BARRIER, CALL, EPOCH, REGISTER, SPLIT, SharedMemory
from harness.trace.events import Began
from tests.tools.draws import descriptors

PAGE = mmap.PAGESIZE


def refuse(*_: object) -> None:
    raise OSError(12, "Cannot allocate memory")


def test_memory_that_is_refused_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(MachineError, match=r"\d+ MiB of shared memory: Cannot allocate memory"):
        SharedMemory.create(2)


def test_memory_that_is_refused_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    before = descriptors()
    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(MachineError):
        SharedMemory.create(2)
    assert descriptors() == before


@pytest.fixture
def shared() -> Iterator[SharedMemory]:
    memory = SharedMemory.create(2)
    yield memory
    memory.close()


def test_another_mapping_of_the_memory_sees_what_is_written(shared: SharedMemory) -> None:
    other = SharedMemory(os.dup(shared.fd), 2)
    shared.counters[3, 1, REGISTER] = 7
    shared.staging(1)[5] = 8
    assert (other.counters[3, 1, REGISTER], other.staging(1)[5]) == (7, 8)
    other.close()


def test_no_two_parts_of_the_memory_overlap(shared: SharedMemory) -> None:
    """Each part is filled with a number of its own, and holds it once all others are filled."""
    parts = [shared.counters, shared.pads, shared.barriers, shared.waiting, *(shared.staging(rank) for rank in (0, 1))]
    for number, part in enumerate(parts, 1):
        part[...] = number
    for rank in (0, 1):
        shared.journal(rank).append(Began(rank))
    assert [(int(part.min()), int(part.max())) for part in parts] == [(n, n) for n in range(1, len(parts) + 1)]
    assert [shared.journal(rank).read() for rank in (0, 1)] == [(Began(0),), (Began(1),)]


def test_the_arenas_of_two_ranks_lie_side_by_side_in_the_memory(shared: SharedMemory) -> None:
    (first, size), (second, _) = shared.arena(0), shared.arena(1)
    assert second == first + size
    assert second + size <= shared.size


def test_reset_memory_reads_as_zero(shared: SharedMemory) -> None:
    start, _ = shared.arena(1)
    shared.counters[0, 0, REGISTER] = shared.pads[0, 0, 1] = shared.waiting[1, 0] = shared.bytes[start] = 1
    shared.reset()
    assert [int(part.max()) for part in (shared.counters, shared.pads, shared.waiting)] == [0, 0, 0]
    assert shared.bytes[start] == 0


def test_a_row_that_begins_anew_counts_and_signals_nothing_and_its_neighbour_stays(shared: SharedMemory) -> None:
    for part in (shared.counters, shared.pads, shared.barriers):
        part[:2] = 5
    shared.renew(0, 2)
    fields = (REGISTER, CALL, SPLIT, EPOCH, BARRIER)
    assert [int(shared.counters[0, :, field].max()) for field in fields] == [0] * 5
    assert [int(part[0].max()) for part in (shared.pads, shared.barriers)] == [0, 0]
    assert [int(part[1].min()) for part in (shared.counters, shared.pads, shared.barriers)] == [5, 5, 5]


def test_the_pages_that_were_written_are_known(shared: SharedMemory) -> None:
    start, _ = shared.arena(0)
    shared.punch(start, 8 * PAGE)
    assert list(shared.written(start, 8 * PAGE)) == []
    for page in (1, 2, 5):
        shared.bytes[start + page * PAGE] = 1
    found = [((offset - start) // PAGE, size // PAGE) for offset, size in shared.written(start, 8 * PAGE)]
    assert found == [(1, 2), (5, 1)]
    assert list(shared.written(start + 2 * PAGE, 4 * PAGE - 1)) == [
        (start + 2 * PAGE, PAGE),
        (start + 5 * PAGE, PAGE - 1),
    ]


def test_a_punched_piece_reads_as_zero_and_its_neighbours_stay(shared: SharedMemory) -> None:
    start, _ = shared.arena(0)
    shared.bytes[start : start + 3 * PAGE] = 1
    shared.punch(start + PAGE, PAGE)
    assert [int(shared.bytes[start + at]) for at in (0, PAGE, 2 * PAGE)] == [1, 0, 1]
