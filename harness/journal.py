"""A rank's journal: its events in a fixed piece of shared memory, readable by the parent at any time.

Invariant: whoever reads sees whole events, and never waits for the rank.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import msgspec

from harness.trace import Began, Event

LOOK = 0.2
"""Most seconds that one interval between two looks at a silence counts for."""

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


class Journal:
    """A rank's append-only list of events in a fixed piece of shared memory.

    Layout: an 8-byte length, then events as 4-byte length and msgpack. The length is written after
    the event, so a reader never sees half of one.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory

    @property
    def length(self) -> int:
        return int.from_bytes(self._memory[:8], "little")

    def _set_length(self, length: int) -> None:
        self._memory[:8] = length.to_bytes(8, "little")

    def clear(self) -> None:
        self._set_length(0)

    def append(self, event: Event) -> None:
        """Write one event. Raises `MemoryError` if the journal is full."""
        data = _encoder.encode(event)
        start = 8 + self.length
        end = start + 4 + len(data)
        if end > len(self._memory):
            raise MemoryError("the rank's journal is full; the program is too long")
        self._memory[start : start + 4] = len(data).to_bytes(4, "little")
        self._memory[start + 4 : end] = data
        self._set_length(end - 8)

    def read(self) -> tuple[Event, ...]:
        """Every event written so far."""
        return tuple(self)

    def __iter__(self) -> Iterator[Event]:
        """The events written so far, decoded as far as one goes."""
        memory, at, end = self._memory, 8, 8 + self.length
        while at < end:
            size = int.from_bytes(memory[at : at + 4], "little")
            yield _decoder.decode(memory[at + 4 : at + 4 + size])
            at += 4 + size


class Silence:
    """How long nothing has been written to any of these journals, since every rank began its first step.

    What comes before that, such as importing a plug-in, is no silence. An interval between two looks counts for no more
    than `LOOK`: whoever looks may have been stopped, and the ranks with it.
    """

    def __init__(self, journals: Sequence[Journal]) -> None:
        self._journals = journals
        self._lengths: list[int] = []
        self._looked = time.monotonic()
        self._have_begun = False
        self._seconds = 0.0
        self.longest = 0.0
        """Seconds of the longest silence that was seen."""

    def look(self) -> float:
        """Seconds of the silence so far. Call it often."""
        now = time.monotonic()
        since, self._looked = min(now - self._looked, LOOK), now
        lengths = [journal.length for journal in self._journals]
        if not self._have_begun:
            self._have_begun = all(any(isinstance(event, Began) for event in each) for each in self._journals)
        elif lengths == self._lengths:
            self._seconds += since
            self.longest = max(self.longest, self._seconds)
        if lengths != self._lengths:
            self._lengths, self._seconds = lengths, 0.0
        return self._seconds
