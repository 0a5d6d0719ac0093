"""Images of a rank's memory around calls: what changed where no call may write is recorded.

Invariant: a rank's memory changes in a call only where its own operands lie. Peers write to the outputs of calls that
this rank takes part in, and nowhere else. A look takes one image and judges that, as a peer may write on meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import torch

from harness.rank.own import equal, zeros_like
from harness.substrate.base import Substrate
from harness.trace.events import Touched

Span = tuple[int, int]
"""Address and bytes."""
When = Literal["call", "replay", "between"]
SHOWN = 8
"""Bytes that are shown of a change."""
WORD = 8
FRESH = 0xC5
"""The byte that fills a buffer before its first use and after its last, so that a store of zeros shows there."""
EDGE = 32 << 10
"""Bytes at either end of a large buffer that are filled."""


class Image:
    """A copy of memory. What lies between its pieces held zeros."""

    def __init__(self, pieces: Iterable[tuple[int, torch.Tensor]] = ()) -> None:
        self.pieces = [(address, piece.clone()) for address, piece in pieces]
        self._by_address = dict(self.pieces)

    def read(self, address: int, like: torch.Tensor) -> torch.Tensor:
        """As many bytes as `like` has, from an address on; not copied if one piece holds them all."""
        piece = self._by_address.get(address)
        if piece is not None and len(piece) == len(like):
            return piece
        parts = list(_within(self.pieces, (address, len(like))))
        if len(parts) == 1 and len(parts[0][1]) == len(like):
            return parts[0][1]
        whole = zeros_like(like)
        for start, part in parts:
            whole[start - address : start - address + len(part)] = part
        return whole

    def adopt(self, span: Span, other: Image) -> None:
        """Have a span hold what it holds in another image."""
        for start, part in _within(self.pieces, span):
            part.copy_(other.read(start, part))


class Memory:
    """The memory that a rank may see change: segments of its pools, and live buffers outside of them. Local.

    `held` has the bytes of the live buffers by name. Without `is_watched` nothing is looked at.
    """

    def __init__(self, substrate: Substrate, is_watched: bool) -> None:
        self._substrate, self.is_watched = substrate, is_watched
        self.held: dict[str, torch.Tensor] = {}
        self._before = Image()
        self._last, self._seen = Image(), set[str]()
        """What the last call left, and the buffers that were live then."""

    def hold(self, name: str, buffer: torch.Tensor) -> None:
        """A buffer has come."""
        self.held[name] = buffer.view(torch.uint8)
        self._fill(name)

    def drop(self, name: str) -> None:
        """A buffer is about to go."""
        self._fill(name)
        del self.held[name]
        self._seen.discard(name)

    def _fill(self, name: str) -> None:
        if self.is_watched and not self._substrate.device.is_capturing:
            held = self.held[name]
            for part in (held,) if len(held) <= 2 * EDGE else (held[:EDGE], held[-EDGE:]):
                part.fill_(FRESH)
            self._substrate.device.synchronize()  # another stream may get the block next

    def before(self, *written: torch.Tensor) -> None:
        """A call is about to run, and `written` holds what it needs. Record what else changed since the last call."""
        if not self.is_watched:
            return
        self._before = Image(self._pieces())
        spared = [_span(part) for part in written]
        for span in spared:
            self._last.adopt(span, self._before)
        for name in tuple(self._seen):
            for start, now in _within(self._before.pieces, _span(self.held[name])):
                self._record(self._changes("between", start, self._last.read(start, now), now, spared))

    def after(self, when: When, *operands: torch.Tensor) -> None:
        """Record what has changed since `before`, its operands left out."""
        if not self.is_watched:
            return
        before, now = self._before, Image(self._pieces())
        spared = [_span(operand) for operand in operands]
        for span in spared:
            before.adopt(span, now)
        changes = [
            event
            for start, part in now.pieces
            for event in self._changes(when, start, before.read(start, part), part, spared)
        ]
        self._record(changes)
        # a canary that changed is mended next, which is no change of the program's
        self._before, self._last, self._seen = Image(), now, set() if changes else set(self.held)

    def look_back(self, *names: str) -> None:
        """Record what changed in live buffers since the last call: in all of them, or in those of these names."""
        if self._substrate.device.is_capturing:  # nothing runs, and nothing can be read
            return
        looked_at = self._seen.intersection(names or self._seen)
        pieces = [*self._pieces()] if looked_at else []
        for name in [name for name in self.held if name in looked_at]:
            for start, part in _within(pieces, _span(self.held[name])):
                was = self._last.read(start, part)
                if not _same(was, part):
                    self._record(self._changes("between", start, was, part.clone()))
                    self._seen.discard(name)

    def _record(self, changes: Iterable[Touched]) -> None:
        for change in changes:
            self._substrate.record(change)

    def forget(self) -> None:
        """Live buffers have changed rightly since the last call."""
        self._seen.clear()

    def _pieces(self) -> Iterator[tuple[int, torch.Tensor]]:
        segments = [segment for pool in self._substrate.pools.values() for segment in pool.segments]
        for segment in segments:
            whole = self._substrate.device.view(segment.address, segment.size)
            for start, size in self._substrate.written(segment):
                yield start, whole[start - segment.address : start - segment.address + size]
        for buffer in self.held.values():
            if not any(buffer.data_ptr() in segment for segment in segments):
                yield buffer.data_ptr(), buffer

    def _changes(
        self, when: When, start: int, was: torch.Tensor, now: torch.Tensor, spared: Iterable[Span] = ()
    ) -> Iterator[Touched]:
        """What differs between two copies of the bytes from `start` on: one event a buffer, one for the rest. In the
        `spared` spans anything may: a page that is written for the first time was in no image before."""
        if _same(was, now):
            return
        changed = (was != now).nonzero().flatten()
        for address, size in spared:
            changed = changed[(changed < address - start) | (changed >= address + size - start)]
        for name, buffer in self.held.items():
            low = buffer.data_ptr() - start
            is_inside = (changed >= low) & (changed < low + len(buffer))
            yield from self._touched(when, name, start, changed[is_inside], was, now)
            changed = changed[~is_inside]
        for address, size in self._foreign() if len(changed) else ():
            changed = changed[(changed < address - start) | (changed >= address + size - start)]
        yield from self._touched(when, "", start, changed, was, now)

    def _foreign(self) -> Iterator[Span]:
        """Blocks that are handed out and hold no buffer of the program: a plug-in may write its own workspace."""
        ours = [buffer.data_ptr() for buffer in self.held.values()]
        for pool in self._substrate.pools.values():
            for address, size in pool.used():
                if not any(address <= each < address + size for each in ours):
                    yield address, size

    def _touched(
        self, when: When, name: str, start: int, changed: torch.Tensor, was: torch.Tensor, now: torch.Tensor
    ) -> Iterator[Touched]:
        """The event for the bytes with indices `changed`; none if there are none."""
        if len(changed):
            first, last = int(changed[0]), int(changed[-1])
            segment = self._substrate.locate(start + first)
            shown = (bytes(each[first : min(first + SHOWN, last + 1)].tolist()).hex() for each in (was, now))
            ident = -1 if segment is None else segment.ident
            yield Touched(when, name, ident, start + first, start + last + 1, len(changed), *shown)


def _within(pieces: Iterable[tuple[int, torch.Tensor]], span: Span) -> Iterator[tuple[int, torch.Tensor]]:
    """The parts of pieces that lie in a span, by address."""
    start, end = span[0], sum(span)
    for address, piece in pieces:
        first, last = max(start, address), min(end, address + len(piece))
        if first < last:
            yield first, piece[first - address : last - address]


def _span(tensor: torch.Tensor) -> Span:
    return tensor.data_ptr(), tensor.numel() * tensor.element_size()


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two runs of bytes are equal, compared by words as far as they can be."""
    is_aligned = not (one.storage_offset() % WORD or other.storage_offset() % WORD)
    words = len(one) // WORD * WORD if is_aligned else 0
    if not words:
        return equal(one, other)
    if words == len(one):  # most are whole pages, and each slice costs as much as the comparison of a page
        return equal(one.view(torch.int64), other.view(torch.int64))
    is_same = equal(one[:words].view(torch.int64), other[:words].view(torch.int64))
    return is_same and equal(one[words:], other[words:])
