"""A rank's journal: its events in a fixed piece of shared memory, readable by the parent at any time.

Invariant: whoever reads sees whole events, and never waits for the rank.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from harness.trace import Event

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
        memory, at, end = self._memory, 8, 8 + self.length
        events: list[Event] = []
        while at < end:
            size = int.from_bytes(memory[at : at + 4], "little")
            events.append(_decoder.decode(memory[at + 4 : at + 4 + size]))
            at += 4 + size
        return tuple(events)


class Silence:
    """How long nothing has been written to any of these journals, as far as one looks."""

    def __init__(self, journals: Sequence[Journal]) -> None:
        self._journals = journals
        self._lengths: list[int] = []
        self._since = time.monotonic()
        self.longest = 0.0
        """Seconds of the longest silence that was seen."""

    def seconds(self) -> float:
        """Seconds since the last look that found something new. Call it often."""
        lengths, now = [journal.length for journal in self._journals], time.monotonic()
        self.longest = max(self.longest, now - self._since)
        if lengths != self._lengths:
            self._lengths, self._since = lengths, now
        return now - self._since
