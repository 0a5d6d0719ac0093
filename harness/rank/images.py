"""Images of a rank's memory around calls: what changed where no call may write is recorded.

Invariant: a rank's memory changes in a call only where its own operands lie. Peers write to the outputs of calls that
this rank takes part in, and nowhere else. A look takes one image and judges that, as a peer may write on meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch

from harness.rank.own import equal, frombuffer, zeros_like
from harness.substrate.base import Substrate
from harness.substrate.device import Copy
from harness.trace.events import Touched

Span = tuple[int, int]
"""Address and bytes."""
When = Literal["call", "replay", "flight", "between"]
SHOWN = 8
"""Bytes that are shown of a change."""
WORD = 8
FRESH = 0xC5
"""The byte that fills a buffer before its first use and after its last, so that a store of zeros shows there."""
EDGE = 32 << 10
"""Bytes at either end of a large buffer that are filled."""


class Image:
    """A copy of memory. What lies between its pieces held zeros."""

    def __init__(self, pieces: Iterable[tuple[int, Copy]] = ()) -> None:
        self.pieces = list(pieces)
        self._by_address = dict(self.pieces)

    def at(self, address: int) -> Copy | None:
        """The piece that begins there."""
        return self._by_address.get(address)

    def read(self, address: int, like: Copy) -> Copy:
        """As many bytes as `like` has, from an address on; not copied if one piece holds them all."""
        piece = self._by_address.get(address)
        if piece is not None and len(piece) == len(like):
            return piece
        parts = list(_within(self.pieces, (address, len(like))))
        if len(parts) == 1 and len(parts[0][1]) == len(like):
            return parts[0][1]
        return _filled(address, like, parts)


class Memory:
    """The memory that a rank may see change: segments of its pools, and live buffers outside of them. Local.

    Without `is_watched` nothing is looked at.
    """

    def __init__(self, substrate: Substrate, is_watched: bool) -> None:
        self._substrate, self.is_watched = substrate, is_watched
        self._live: dict[str, torch.Tensor] = {}
        self._spans: dict[str, Span] = {}
        self._before = Image()
        self._there: set[str | int] = set()
        """The buffers, by name, and the segments, by number, that were there before."""
        self._last, self._seen = Image(), set[str]()
        """What the last call left, and the buffers that were live then."""

    def hold(self, name: str, buffer: torch.Tensor) -> None:
        """A buffer has come."""
        self._live[name], self._spans[name] = buffer.view(torch.uint8), _span(buffer)
        self._fill(name)

    def drop(self, name: str) -> None:
        """A buffer is about to go."""
        self._fill(name)
        del self._live[name], self._spans[name]
        self._seen.discard(name)

    def _fill(self, name: str) -> None:
        if self.is_watched and not self._substrate.device.does_later:
            live = self._live[name]
            self._substrate.touched("clears", live)
            for part in (live,) if len(live) <= 2 * EDGE else (live[:EDGE], live[-EDGE:]):
                part.fill_(FRESH)
            self._substrate.device.synchronize()  # another stream may get the block next

    def before(self, *written: torch.Tensor) -> None:
        """A call is about to run, and `written` holds what it needs. Record what else changed since the last call."""
        if not self.is_watched:
            return
        self._before, self._there = Image(self._pieces(self._last)), self._what_is_there()
        spared = [_span(part) for part in written]
        for start, now in self._before.pieces if self._seen else ():
            was = self._last.read(start, now)
            if not _same(was, now):
                self._record_between(start, was, now, spared)

    def _record_between(self, start: int, was: Copy, now: Copy, spared: Sequence[Span]) -> None:
        """Record what differs in buffers that the last call left. Nothing else is anybody's between two calls."""
        for name in [name for name in self._spans if name in self._seen]:
            for at, part in _within([(start, now)], self._spans[name]):
                first = at - start
                self._record(self._changes("between", at, was[first : first + len(part)], part, spared))

    def after(self, when: When, *operands: torch.Tensor) -> None:
        """Record what has changed since `before`, its operands left out."""
        if not self.is_watched:
            return
        before, now = self._before, Image(self._pieces(self._before))
        spared = [_span(operand) for operand in operands]
        changes = [
            event
            for start, part in now.pieces
            if when != "flight" or self._was_there(start)  # memory that came in flight has held anything before
            for event in self._changes(when, start, before.read(start, part), part, spared)
        ]
        self._record(changes)
        # a canary that changed is mended next, which is no change of the program's
        self._before, self._last, self._seen = Image(), now, set() if changes else set(self._spans)

    def look_back(self, *names: str) -> None:
        """Record what changed in live buffers since the last call: in all of them, or in those of these names."""
        if self._substrate.device.does_later:  # what runs then, and may be read, is not known
            return
        looked_at = self._seen.intersection(names or self._seen)
        pages = [*self._pages()] if looked_at else []
        for name in [name for name in self._spans if name in looked_at]:
            for address, size in filter(None, (_overlap(page, self._spans[name]) for page in pages)):
                now = self._substrate.device.copy(address, size, self._last.at(address))
                changes = [*self._changes("between", address, self._last.read(address, now), now)]
                self._record(changes)
                if changes:
                    self._seen.discard(name)

    def _record(self, changes: Iterable[Touched]) -> None:
        for change in changes:
            self._substrate.record(change)

    def forget(self) -> None:
        """Live buffers have changed rightly since the last call."""
        self._seen.clear()

    def _what_is_there(self) -> set[str | int]:
        return {*self._spans, *(segment.ident for pool in self._substrate.pools.values() for segment in pool.segments)}

    def _was_there(self, start: int) -> bool:
        """Whether what a piece is of, which begins there, was there before."""
        segment = self._substrate.locate(start)
        names = [name for name, span in self._spans.items() if span[0] == start]
        return not self._there.isdisjoint(names if segment is None else [segment.ident])

    def _pieces(self, known: Image) -> Iterator[tuple[int, Copy]]:
        """A copy of all there is; `known` is an earlier image."""
        copy = self._substrate.device.copy
        return ((address, copy(address, size, known.at(address))) for address, size in self._pages())

    def _pages(self) -> Iterator[Span]:
        segments = [segment for pool in self._substrate.pools.values() for segment in pool.segments]
        for segment in segments:
            yield from self._substrate.written(segment)
        for span in self._spans.values():
            if not any(span[0] in segment for segment in segments):
                yield span

    def _changes(self, when: When, start: int, was: Copy, now: Copy, spared: Sequence[Span] = ()) -> Iterator[Touched]:
        """What differs between two copies of the bytes from `start` on, outside the `spared` spans: one event a
        buffer, one for the rest."""
        if was is now:
            return
        parts = (slice(low - start, high - start) for low, high in _apart((start, len(now)), spared))
        if all(_same(was[part], now[part]) for part in parts):
            return
        changed = (_tensor(was) != _tensor(now)).nonzero().flatten()
        for address, size in spared:
            changed = changed[(changed < address - start) | (changed >= address + size - start)]
        for name, (address, size) in self._spans.items():
            is_inside = (changed >= address - start) & (changed < address + size - start)
            yield from self._touched(when, name, start, changed[is_inside], was, now)
            changed = changed[~is_inside]
        for address, size in self._foreign() if len(changed) else ():
            changed = changed[(changed < address - start) | (changed >= address + size - start)]
        yield from self._touched(when, "", start, changed, was, now)

    def _foreign(self) -> Iterator[Span]:
        """Blocks that are handed out and hold no buffer of the program: a plug-in may write its own workspace."""
        ours = [address for address, _ in self._spans.values()]
        for pool in self._substrate.pools.values():
            for address, size in pool.used():
                if not any(address <= each < address + size for each in ours):
                    yield address, size

    def _touched(
        self, when: When, name: str, start: int, changed: torch.Tensor, was: Copy, now: Copy
    ) -> Iterator[Touched]:
        """The event for the bytes with indices `changed`; none if there are none."""
        if len(changed):
            first, last = int(changed[0]), int(changed[-1])
            segment = self._substrate.locate(start + first)
            shown = (bytes(_tensor(each[first : min(first + SHOWN, last + 1)]).tolist()).hex() for each in (was, now))
            ident = -1 if segment is None else segment.ident
            yield Touched(when, name, ident, start + first, start + last + 1, len(changed), *shown)


def _within(pieces: Iterable[tuple[int, Copy]], span: Span) -> Iterator[tuple[int, Copy]]:
    """The parts of pieces that lie in a span, by address."""
    for address, piece in pieces:
        if (shared := _overlap((address, len(piece)), span)) is not None:
            first, size = shared
            yield first, piece[first - address : first - address + size]


def _overlap(one: Span, other: Span) -> Span | None:
    """What two spans share; None if that is nothing."""
    first, end = max(one[0], other[0]), min(sum(one), sum(other))
    return (first, end - first) if first < end else None


def _apart(span: Span, spared: Iterable[Span]) -> list[tuple[int, int]]:
    """The parts of a span outside the spared ones, each from its first byte to the one after its last."""
    parts = [(span[0], sum(span))]
    for low, size in spared:
        cut = (each for first, end in parts for each in ((first, min(end, low)), (max(first, low + size), end)))
        parts = [(first, end) for first, end in cut if first < end]
    return parts


def _filled(address: int, like: Copy, parts: Iterable[tuple[int, Copy]]) -> Copy:
    """Parts where they lie from an address on, and zeros between them; as long as `like`, and of its kind."""
    whole = zeros_like(_tensor(like))
    for start, part in parts:
        whole[start - address : start - address + len(part)] = _tensor(part)
    return whole.numpy().tobytes() if isinstance(like, bytes) else whole


def _span(tensor: torch.Tensor) -> Span:
    return tensor.data_ptr(), tensor.numel() * tensor.element_size()


def _tensor(copy: Copy) -> torch.Tensor:
    return frombuffer(bytearray(copy), dtype=torch.uint8) if isinstance(copy, bytes) else copy


def _same(one: Copy, other: Copy) -> bool:
    """Whether two runs of bytes are equal; those of a device are compared by words as far as they can be."""
    if isinstance(one, bytes) or isinstance(other, bytes):
        return one is other or one == other
    ahead = -one.storage_offset() % WORD
    if ahead != -other.storage_offset() % WORD:
        return equal(one, other)
    words = slice(ahead, ahead + max(0, len(one) - ahead) // WORD * WORD)
    is_same = equal(one[words].view(torch.int64), other[words].view(torch.int64))
    return is_same and equal(one[: words.start], other[: words.start]) and equal(one[words.stop :], other[words.stop :])
