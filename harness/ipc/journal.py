"""A rank's journal: its events in a fixed piece of shared memory, readable by the parent at any time.

Invariant: whoever reads sees whole events, and never waits for the rank. No event is written after one that did not
fit, so nothing is missing in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import msgspec

from harness.errors import JournalFull
from harness.trace.events import Event

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


class Journal:
    """A rank's append-only list of events in a fixed piece of shared memory.

    Layout: an 8-byte length, then events as 4-byte length and msgpack. The length is written after
    the event, so a reader never sees half of one. The last 8 bytes count the beats.
    """

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._full_at = -1
        """The length at which an event did not fit. A rank does not outlive such a draw."""

    @property
    def length(self) -> int:
        return int.from_bytes(self._memory[:8], "little")

    def _set_length(self, length: int) -> None:
        self._memory[:8] = length.to_bytes(8, "little")

    @property
    def beats(self) -> int:
        """How often the rank said that it is at work."""
        return int.from_bytes(self._memory[-8:], "little")

    def beat(self) -> None:
        """Say that this rank is at work of the harness's own, which writes no event for long."""
        self._memory[-8:] = (self.beats + 1).to_bytes(8, "little")

    def clear(self) -> None:
        self._set_length(0)

    def append(self, event: Event) -> None:
        """Write one event. Raises `JournalFull`, from then on for any event."""
        data = _encoder.encode(event)
        start = 8 + self.length
        end = start + 4 + len(data)
        if end > len(self._memory) - 8 or start - 8 == self._full_at:
            self._full_at = start - 8
            raise JournalFull("the rank's journal is full; the program is too long")
        self._memory[start : start + 4] = len(data).to_bytes(4, "little")
        self._memory[start + 4 : end] = data
        self._set_length(end - 8)

    def written(self, start: int) -> bytes:
        """What is written from byte `start` on, as it is."""
        return bytes(self._memory[8 + start : min(8 + self.length, len(self._memory) - 8)])

    def copy(self, start: int, data: bytes, length: int, beats: int) -> None:
        """Have what another host's journal has from byte `start` on, its length and its beats."""
        self._memory[8 + start : 8 + start + len(data)] = data
        self._memory[-8:] = beats.to_bytes(8, "little")
        self._set_length(length)

    def examine(self) -> tuple[tuple[Event, ...], bool]:
        """Every event up to where the journal is damaged, and whether it is: something else has written over it."""
        try:
            return tuple(self._decoded()), False
        except ValueError:
            return tuple(self), True

    def read(self) -> tuple[Event, ...]:
        """Every event written so far."""
        return tuple(self)

    def __iter__(self) -> Iterator[Event]:
        """The events written so far, decoded as far as one goes. Ends where the journal is damaged."""
        with suppress(ValueError):
            yield from self._decoded()

    def _decoded(self) -> Iterator[Event]:
        """The events. Raises `ValueError` where something else was written over them."""
        memory, at, end = self._memory, 8, 8 + self.length
        if end > len(memory) - 8:
            raise ValueError("the length reaches past the end")
        while at < end:
            size = int.from_bytes(memory[at : at + 4], "little")
            yield _decoder.decode(memory[at + 4 : at + 4 + size])  # msgspec's error is a ValueError
            at += 4 + size
        if at != end:
            raise ValueError("the last event reaches past the length")
