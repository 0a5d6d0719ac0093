"""What happens before what in a draw by a schedule, by vector clocks, and the accesses that nothing orders.

Invariant: a pair that comes out was ordered neither by a release that an acquire took over, at system scope, nor by a
meeting of ranks on the host, nor by its rank. Nor did both take the same words whole: such words come and go one by
one, and order nothing else. Data plays no part, nor does the order in which the two were made.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from harness.trace.accesses import Accessed, Met, Synced
from harness.trace.trace import Trace

Clock = list[int]
WRITES = ("writes", "atomically updates", "fills", "clears")


class Access(NamedTuple):
    """An access of a rank at a step. `at`: how far the rank's clock had come."""

    rank: int
    step: int
    event: Accessed
    at: int


class Pair(NamedTuple):
    """Two accesses of which nothing says that the first comes before the second, and the first byte of both."""

    first: Access
    second: Access
    byte: int


class _Cell:
    """Bytes between two bounds: by rank and kind of word, the last writes and the reads since."""

    __slots__ = ("reads", "writes")

    def __init__(self) -> None:
        self.writes: dict[tuple[int, int], Access] = {}
        self.reads: dict[tuple[int, int], Access] = {}


def unordered(traces: Sequence[Trace]) -> Iterator[Pair]:
    """The pairs, in the order of their second accesses."""
    events = sorted(
        (
            (event.number, trace.rank, step, event)
            for trace in traces
            for step, event in trace.steps()
            if isinstance(event, Accessed | Synced | Met)
        ),
        key=lambda entry: entry[0],
    )
    clocks: list[Clock] = [[0] * len(traces) for _ in traces]
    for rank, clock in enumerate(clocks):
        clock[rank] = 1
    published: dict[object, Clock] = {}
    cells = _Cells(event for _, _, _, event in events if isinstance(event, Accessed))
    for _, rank, step, event in events:
        clock = clocks[rank]
        match event:
            case Accessed():
                yield from cells.access(Access(rank, step, event, clock[rank]), clock)
            case Synced():
                if event.acquires:
                    for word in event.words:
                        _take(clock, published.get(word))
                if event.releases:
                    for word in event.words:
                        _publish(published, word, clock)
                    clock[rank] += 1
            case Met(has_left=has_left):
                meeting = (event.slot, event.field, event.target)
                if has_left:
                    _take(clock, published.get(meeting))
                else:
                    _publish(published, meeting, clock)
                    clock[rank] += 1


def _take(clock: Clock, other: Clock | None) -> None:
    if other is not None:
        clock[:] = map(max, clock, other)


def _publish(published: dict[object, Clock], where: object, clock: Clock) -> None:
    published[where] = [*map(max, clock, published.get(where, clock))]


class _Cells:
    """The shared memory, cut at every bound of an access."""

    def __init__(self, accesses: Iterator[Accessed]) -> None:
        self._bounds = sorted({bound for event in accesses for span in event.spans for bound in span})
        self._cells: dict[int, _Cell] = {}

    def access(self, access: Access, clock: Clock) -> Iterator[Pair]:
        """Note an access, which a rank makes with that clock. Gives each access once that nothing orders before it."""
        seen: set[int] = set()
        for begin, end in access.event.spans:
            for index in range(bisect_left(self._bounds, begin), bisect_left(self._bounds, end)):
                for other in self._met(self._cells.setdefault(index, _Cell()), access, clock):
                    if id(other) not in seen:
                        seen.add(id(other))
                        yield Pair(other, access, self._bounds[index])

    def _met(self, cell: _Cell, access: Access, clock: Clock) -> Iterator[Access]:
        is_write, word = access.event.how in WRITES, access.event.word
        for other in (*cell.writes.values(), *(cell.reads.values() if is_write else ())):
            is_ordered = other.rank == access.rank or clock[other.rank] >= other.at
            if not is_ordered and not (word and word == other.event.word):
                yield other
        if is_write and not word:  # what is not ordered with one before is not ordered with this one
            cell.writes.clear()
            cell.reads.clear()
        (cell.writes if is_write else cell.reads)[access.rank, word] = access
