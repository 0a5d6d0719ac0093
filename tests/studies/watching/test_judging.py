"""Judging takes work in proportion to what a program did, however often its memory and communicators changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.machine.observer.records import (
    Allocated,
    CommGone,
    Deregistered,
    Fact,
    Freed,
    Process,
    Registered,
    RegisterEntered,
)
from harness.oracle.lives import SegmentLife
from harness.studies.watching.judging import judge
from harness.trace.events import SegmentAllocated
from tests.tools.recorded import BASE, SEGMENT, comm, gather, process, registration
from tests.tools.work import bytecodes

FEW, TIMES, SLACK = 60, 4, 1.2
"""Cycles of the smaller recording, how many times as many the larger has, and how much more than so many times the
work it may take. Work that grows with the square takes up to `TIMES` squared as much."""
Cycle = Callable[[int, int], list[Fact]]
"""What a rank does in a cycle of this number."""


def memory(cycle: int, rank: int) -> list[Fact]:
    """A segment that is allocated, registered, used and freed, at an address that comes again and again."""
    window = 0x100 + cycle
    made = [Allocated(BASE, SEGMENT), *registration(0, window=window), gather(0, receive=BASE + 64 * (cycle % 5))]
    return [*made, Deregistered(0, window), Freed(BASE, False)]


def growth(cycle: int, rank: int) -> list[Fact]:
    """A segment that stays, with its window."""
    address = BASE + cycle * SEGMENT
    made = [Allocated(address, SEGMENT), *registration(0, address, window=0x100 + cycle)]
    return [*made, gather(0, receive=address), gather(0, receive=0x5000)]


def forgetful(cycle: int, rank: int) -> list[Fact]:
    """A segment that is freed under its window, at an address of its own."""
    return [*growth(cycle, rank), Freed(BASE + cycle * SEGMENT, False)]


def oversized(cycle: int, rank: int) -> list[Fact]:
    """A window that reaches past its segment."""
    made = [Allocated(BASE, SEGMENT), *registration(0, size=2 * SEGMENT, window=0x100 + cycle)]
    return [*made, Deregistered(0, 0x100 + cycle), Freed(BASE, False)]


def elsewhere(cycle: int, rank: int) -> list[Fact]:
    """The same memory, with calls of a communicator that never registers it."""
    made, call, given, freed = memory(cycle, rank)[:3], gather(9, receive=BASE), *memory(cycle, rank)[-2:]
    return [*made, call, given, freed]


def communicators(cycle: int, rank: int) -> list[Fact]:
    """A communicator that is made, registers, is used, and is destroyed."""
    made = [comm(10 + cycle, rank), *registration(10 + cycle, BASE, window=0x100 + cycle)]
    return [*made, gather(10 + cycle), CommGone(10 + cycle, "destroy")]


def skewed(cycle: int, rank: int) -> list[Fact]:
    """The same, but one rank registers once more than the other."""
    *begun, last = communicators(cycle, rank)
    more = [RegisterEntered(10 + cycle, BASE, 64, 1), Registered(10 + cycle, BASE, 64, 1, 0x9000 + cycle)]
    return [*begun, *(more if rank else []), last]


def sends(cycle: int, rank: int) -> list[Fact]:
    """A segment that is there for one send to each rank, and for one all-to-all, with another output at the end."""
    *made, _, given, freed = memory(cycle, rank)
    output = BASE if rank else 0x5000
    ends = [
        gather(0, function="Send", root=1 - rank, send=BASE, receive=0, count=1 << 16),
        gather(0, function="Recv", root=1 - rank, send=0, receive=output, count=1 << 16),
        gather(0, function="AlltoAll", send=BASE, receive=output + (1 << 19), count=1 << 16),
    ]
    return [*made, *ends, given, freed]


def senders(cycle: int, rank: int) -> list[Fact]:
    """A communicator that is made anew for one send."""
    *made, _, gone = communicators(cycle, rank)
    place = {"function": "Recv", "send": 0, "receive": BASE} if rank else {"function": "Send", "receive": 0}
    return [*made, gather(10 + cycle, root=1 - rank, count=1 << 16, **place), gone]


def recorded(cycles: int, cycle: Cycle) -> list[Process]:
    """Two ranks that do these cycles."""
    begins = [[comm(0, rank), comm(9, rank), Allocated(BASE - SEGMENT, SEGMENT)] for rank in range(2)]
    return [
        process([*begun, *(fact for number in range(cycles) for fact in cycle(number, rank))], rank)
        for rank, begun in enumerate(begins)
    ]


@pytest.mark.parametrize(
    "cycle", [memory, growth, forgetful, oversized, elsewhere, communicators, skewed, sends, senders]
)
def test_many_changes_take_no_more_work_each_than_few(cycle: Cycle) -> None:
    few, many = (recorded(FEW * times, cycle) for times in (1, TIMES))
    less, more = (bytecodes(lambda ranks=ranks: judge(ranks)) for ranks in (few, many))  # type: ignore[misc]
    assert more < SLACK * TIMES * less


def test_work_that_grows_with_the_square_would_be_found() -> None:
    """Of the count itself: a look at all segments for each one, as judging once took."""
    lives = [SegmentLife(SegmentAllocated(number, "", number, 1), 0) for number in range(FEW * TIMES)]

    def looks(cycles: int) -> int:
        return bytecodes(lambda: [life.covers(at) for at in range(cycles) for life in lives[:cycles]])

    assert looks(FEW * TIMES) > SLACK * TIMES * looks(FEW)
