"""Peers' memory mapped at addresses of its own for every window, as NCCL maps it for every communicator.

Invariant: an address is a view of one window's memory on one peer, from its first use to the window's end. It is given
out once in a draw. Where nothing is mapped, before, between and after views, memory reads as zeros, takes what is
written, and remembers that it was touched. So a stale address ends no process, and is found.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.ipc.memory import SharedMemory
from harness.trace.events import Unmapped

SPACE = 1 << 38
"""Bytes of addresses. They take no memory."""
STEP = 2 << 20
"""Views begin at multiples of it, and so many bytes at least lie between two."""
PAGE = os.sysconf("SC_PAGE_SIZE")
SHOWN = 8
"""Bytes that are shown of what was written."""
READ_WRITE, MAP_SHARED, MAP_FIXED, MAP_NORESERVE = 3, 0x1, 0x10, 0x4000
KEEP_SIZE, PUNCH_HOLE = 1, 2


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return libc


LIBC = _libc()


class View(NamedTuple):
    """A window's memory on a peer: `size` bytes, `ahead` bytes behind `start`, which is an offset in the space and the
    begin of a page."""

    start: int
    ahead: int
    size: int
    window: int
    peer: int
    origin: int
    """Where that memory is in the shared memory."""


def _start(view: View) -> int:
    return view.start


class Views:
    """The views of one rank."""

    def __init__(self, shared: SharedMemory) -> None:
        self._shared, self._space = shared, Space()
        self._next = 0
        self._given: list[View] = []
        """Those of this draw, by their starts."""
        self._closed: set[int] = set()
        """Windows whose views are unmapped."""

    def open(self, window: int, peer: int, offset: int, size: int) -> int:
        """Address of a new view of `size` bytes of the shared memory from `offset` on."""
        ahead = offset % PAGE
        view = View(self._next, ahead, size, window, peer, offset)
        self._next += -(-(ahead + size) // STEP) * STEP + STEP
        if self._next > SPACE:
            raise MemoryError(f"a draw has no addresses left for {size} bytes of rank {peer}")
        self._given.append(view)
        self._space.map(self._shared.fd, view.start, ahead + size, offset - ahead)
        return self._space.base + view.start + ahead

    def close(self, window: int) -> None:
        """Unmap the views of a window, whose addresses are not given out again in this draw."""
        self._closed.add(window)
        for view in self._given:
            if view.window == window:
                self._space.clear(view.start, view.ahead + view.size)

    def forget(self) -> None:
        """Unmap all views, as a draw has ended. Their addresses come again only after most of the space was used."""
        self._closed.clear()
        if not self._given:
            return
        first = self._given[0].start
        self._space.clear(first, self._next - first)
        self._given.clear()
        for _ in self._space.touched():
            pass
        if self._next > SPACE // 2:
            self._next = 0

    def places(self, addresses: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in the shared memory the bytes at these addresses are; -1 where no view has them."""
        places = np.full(addresses.shape, -1, dtype=np.int64)
        at = addresses - self._space.base
        if not self._given or not ((at >= 0) & (at < SPACE)).any():
            return places
        index = np.searchsorted(np.array([view.start for view in self._given]), at, side="right") - 1
        for number in np.unique(index[(at >= 0) & (at < SPACE) & (index >= 0)]):
            view = self._given[number]
            within = at - view.start - view.ahead
            held = (index == number) & (within >= 0) & (within < view.size)
            if view.window not in self._closed:
                places[held] = view.origin + within[held]
        return places

    def touched(self) -> Iterator[Unmapped]:
        """What was touched since the last look where nothing is mapped, once for each view before it."""
        seen: set[View] = set()
        for start, found in self._space.touched():
            place = bisect_right(self._given, start, key=_start) - 1
            if place < 0:
                yield Unmapped(-1, -1, 0, found)
            elif (view := self._given[place]) not in seen:
                seen.add(view)
                yield Unmapped(view.window, view.peer, max(0, start - view.start - view.ahead), found)


class Space:
    """A range of addresses over a file of its own that has no pages until one is touched."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("symm-unmapped", os.MFD_CLOEXEC)
        os.ftruncate(self._fd, SPACE)
        self.base = _mapped(None, SPACE, MAP_NORESERVE, self._fd, 0)
        weakref.finalize(self, _give_up, self.base, SPACE, self._fd)

    def map(self, fd: int, start: int, size: int, offset: int) -> None:
        """Have `size` bytes from `start` on be those of a file from `offset` on."""
        _mapped(self.base + start, size, MAP_FIXED, fd, offset)

    def clear(self, start: int, size: int) -> None:
        """Map nothing there any more."""
        _mapped(self.base + start, size, MAP_FIXED | MAP_NORESERVE, self._fd, start)

    def touched(self) -> Iterator[tuple[int, str]]:
        """Where pages have come since the last look, and what was written first, if it was not zeros."""
        at = 0
        while True:
            try:
                at = os.lseek(self._fd, at, os.SEEK_DATA)  # a page that was only read is there, too
            except OSError:  # there is none up to the end of the file
                return
            end = os.lseek(self._fd, at, os.SEEK_HOLE)
            pages = os.pread(self._fd, end - at, at)
            first = len(pages) - len(pages.lstrip(b"\0"))
            # a hole in the file, and not in a mapping: what is mapped there now may be a peer's memory
            LIBC.fallocate(self._fd, KEEP_SIZE | PUNCH_HOLE, at, end - at)
            yield (at + first, pages[first : first + SHOWN].hex()) if first < len(pages) else (at, "")
            at = end


def _mapped(address: int | None, size: int, flags: int, fd: int, offset: int) -> int:
    found = LIBC.mmap(address, size, READ_WRITE, MAP_SHARED | flags, fd, offset)
    if found is None or found == ctypes.c_void_p(-1).value:
        error = ctypes.get_errno()
        raise OSError(error, f"cannot map {size} bytes: {os.strerror(error)}")
    return int(found)


def _give_up(base: int, size: int, fd: int) -> None:
    LIBC.munmap(base, size)
    os.close(fd)
