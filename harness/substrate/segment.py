"""Segments and windows: the memory that pools are made of, and its registration with communicators.

Invariant: `segment.windows` holds the windows that are live over a segment on this rank, and no other.
"""

from __future__ import annotations

from typing import Protocol


class Segment:
    """One piece from the window-capable allocator. `windows` are those live over it on this rank."""

    def __init__(self, ident: int, pool: str, address: int, size: int) -> None:
        self.ident, self.pool, self.address, self.size = ident, pool, address, size
        self.windows: list[Window] = []

    def close_windows(self) -> None:
        """Deregister every window over the segment, as its memory is about to go. Local."""
        for window in list(self.windows):
            window.close()

    def __contains__(self, address: int) -> bool:
        return self.address <= address < self.address + self.size

    def __repr__(self) -> str:
        return f"<Segment {self.ident}: {self.size} bytes at {self.address:#x} of pool {self.pool!r}>"


class Registrar(Protocol):
    """The communicator that a segment is registered with, as far as a window needs it."""

    def deregister(self, window: Window) -> None:
        """Deregister a window. Local; a second call does nothing."""


class Window:
    """The registration of a segment, or of a part of one, with one communicator. `close` is local and may be called
    twice. `is_symmetric`: whether symmetric kernels take it; kernels that go by peer pointers take any."""

    def __init__(
        self,
        ident: int,
        communicator: Registrar,
        segment: Segment,
        handle: object,
        part: range | None = None,
        is_symmetric: bool = True,
    ) -> None:
        self.ident, self.communicator, self.segment, self.handle = ident, communicator, segment, handle
        part = range(segment.size) if part is None else part
        self.address, self.size = segment.address + part.start, len(part)
        self.is_symmetric = is_symmetric
        self.is_valid = True
        self.starts: list[int] | None = None
        """Where each rank's end is mapped here, in group order, once that has been asked for."""

    def close(self) -> None:
        """Deregister. Local; the caller makes sure that no collective uses the window."""
        self.communicator.deregister(self)

    def __repr__(self) -> str:
        state = "live" if self.is_valid else "closed"
        return f"<Window {self.ident}: {state}, segment {self.segment.ident}, {self.communicator}>"
