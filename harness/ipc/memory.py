"""The memory that the parent and all ranks share: counters, journals, each rank's arena, and its workspaces.

Invariant: every word has one writer; while no rank runs, the parent may set words back. It is an
anonymous file (`memfd`), so it has no name that could be left behind and no mount that could be
full; it goes when the last process of the world goes.

Ordering rests on one writer a word and on x86-64's total store order.

In a world over hosts, each host has counters, waits and journals of its own, which are mirrored (`harness.ipc.mirror`).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from harness.errors import MachineError
from harness.ipc import turns
from harness.ipc.journal import Journal
from harness.ipc.pads import FENCE, OF_BARRIER, SIGNALS, fence, overwritten
from harness.scenario.layouts.groups import GroupId
from harness.trace.events import PadOverwritten

NAME = "symm-harness"
"""Of the files, as `/proc` shows it."""
SLOTS = 1024
"""Communicators that have a row of their own at one time."""
FIELDS = 16
JOURNAL_BYTES = 1 << 20
STAGING_BYTES = 4 << 20
ARENA_BYTES = 512 << 20
WORKSPACE_BYTES = 256 << 20
"""Of a rank, for what plug-ins ask for. Apart from its arena, as it would move the segments of some ranks there."""
WORDS_WAITING = 4

REGISTER, SYMMETRIC, LEGACY, HOST, CLOSING, AGREE, CALL, SPLIT = range(8)
"""Fields of a communicator's row: one sequence number for each kind of rendezvous."""
WITHIN = (REGISTER, CALL, SPLIT)
"""Those of calls into another library, which may fail on some ranks and not on others."""
PAYLOAD = {REGISTER: 8, AGREE: 12}
"""First of the fields through which members hand each other up to three words, for each rendezvous that does."""
EPOCH, BARRIER = 11, 15
"""The fields in which a member counts the epochs of a plug-in's own barrier and of the harness's kernel barrier."""
PAD = -1
"""In a `waiting` record: the rank waits for its pad of the kernel barrier, not for a field."""


class SharedMemory:
    """A mapping of the world's shared memory, laid out for `ranks` ranks. Over hosts, `own` is this host's file of
    counters, waits and journals, and `bell` an eventfd that a rank rings once it has come to a meeting point.

    Attributes (numpy views; the first axis of each is a slot or a rank):
      counters  int64[SLOTS, ranks, FIELDS]  written by the member whose row it is
      pads      int32[SLOTS, ranks, ranks]   signal pads of plug-ins: [slot, owner, sender]
      barriers  int32[SLOTS, ranks, ranks]   the same for the harness's kernel barrier
      fenced    int32[2, SLOTS, ranks, ranks + 2 * FENCE]   both, each owner's words between fences
      waiting   int64[ranks, WORDS_WAITING]  what a rank waits for: slot + 1, field, value
      baton     int64[ranks + 1, WIDTH]      whose turn it is (`harness.ipc.turns`)

    `turns` is this process's end of the turns, in a draw that has a schedule.
    """

    def __init__(self, fd: int, ranks: int, own: int | None = None, bell: int | None = None) -> None:
        self.fd, self.ranks, self._own_fd, self.bell = fd, ranks, own, bell
        *parts, self._arenas, self._workspaces, self.size = _layout(ranks)
        counters, pads, waiting, baton, self._journals, self._staging = parts
        self._map = mmap.mmap(fd, self.size)
        self._own = self._map if own is None else mmap.mmap(own, self.size)
        self.bytes: NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8)
        self.base = self.bytes.ctypes.data
        self.counters = _words(self._own, counters, np.int64, (SLOTS, ranks, FIELDS))
        self.fenced = _words(self._map, pads, np.int32, (2, SLOTS, ranks, ranks + 2 * FENCE))
        self.pads, self.barriers = self.fenced[..., FENCE : FENCE + ranks]
        self.waiting = _words(self._own, waiting, np.int64, (ranks, WORDS_WAITING))
        self.baton = _words(self._map, baton, np.int64, (turns.rows(ranks), turns.WIDTH))
        self.turns: turns.Turns | None = None

    @classmethod
    def create(cls, ranks: int) -> SharedMemory:
        """Make the memory in the parent. Raises `MachineError` where the system refuses it."""
        return cls._on(ranks, ())

    @classmethod
    def of_host(cls, ranks: int, common: int | None = None) -> SharedMemory:
        """Make one host's memory, of a world over hosts. `common` is the file that the hosts share, if they share one;
        it is closed with the memory, or where this raises. Raises `MachineError` where the system refuses it."""
        return cls._on(ranks, () if common is None else (common,), is_over_hosts=True)

    @classmethod
    def _on(cls, ranks: int, files: tuple[int, ...], is_over_hosts: bool = False) -> SharedMemory:
        size, opened = _layout(ranks)[-1], [*files]
        try:
            for _ in range(len(opened), 1 + is_over_hosts):
                opened.append(os.memfd_create(NAME, os.MFD_CLOEXEC))
                os.ftruncate(opened[-1], size)  # pages come with their first use, so that most of it costs nothing
            if is_over_hosts:
                opened.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            return cls(opened[0], ranks, *opened[1:])
        except BaseException as error:
            for fd in opened:
                os.close(fd)
            if isinstance(error, OSError):
                raise _refused(size, error) from error
            raise

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What another process maps it by, after the number of ranks: `fd`, and over hosts `own` and `bell`."""
        return tuple(fd for fd in (self.fd, self._own_fd, self.bell) if fd is not None)

    def ring(self) -> None:
        """Have this host's mirror look at the counters now. Does nothing in a world on one host."""
        if self.bell is not None:
            os.eventfd_write(self.bell, 1)

    def turns_of(self, rank: int, world: int, changes: Sequence[int]) -> turns.Turns:
        """A rank's end of the turns in a draw of so many ranks."""
        return turns.Turns(self.baton, self.counters, self.bytes, rank, world, changes)

    def journal(self, rank: int) -> Journal:
        """The journal of a rank: written by the rank, read by the parent."""
        start = self._journals + rank * JOURNAL_BYTES
        return Journal(memoryview(self._own)[start : start + JOURNAL_BYTES])

    def arena(self, rank: int) -> tuple[int, int]:
        """Offset and bytes of the memory from which a rank takes segments."""
        return self._arenas + rank * ARENA_BYTES, ARENA_BYTES

    def workspaces(self, rank: int) -> tuple[int, int]:
        """The same for the workspaces and flags of plug-ins."""
        return self._workspaces + rank * WORKSPACE_BYTES, WORKSPACE_BYTES

    def staging(self, rank: int) -> NDArray[np.uint8]:
        """Scratch through which a rank's private memory reaches its peers, `STAGING_BYTES` long."""
        start = self._staging + rank * STAGING_BYTES
        return self.bytes[start : start + STAGING_BYTES]

    def written(self, offset: int, size: int) -> Iterator[tuple[int, int]]:
        """Offset and bytes of the pages that a piece has. The rest was never written, and takes no memory."""
        end = offset + size
        while offset < end:
            try:
                start = os.lseek(self.fd, offset, os.SEEK_DATA)
            except OSError:  # there is no data up to the end of the file
                return
            if start >= end:
                return
            offset = min(end, os.lseek(self.fd, start, os.SEEK_HOLE))
            yield start, offset - start

    def punch(self, offset: int, size: int) -> None:
        """Give the pages under a freed piece back to the system; they read as zero afterwards."""
        # MADV_DONTNEED would drop this process's view alone; of shared memory only a hole frees the pages (madvise(2))
        self._map.madvise(mmap.MADV_REMOVE, offset, size)

    def renew(self, slot: int, size: int) -> None:
        """Have a row begin anew for a communicator of `size` ranks: no registration or call counted, no signal, and
        fences whole. Only while none of its ranks runs."""
        self.counters[slot, :, [*WITHIN, EPOCH, BARRIER]] = 0
        fence(self.fenced[:, slot, :size], size)

    def pad_at(self, place: int) -> tuple[int, int, int] | None:
        """Which of the two pads, the row and the member a byte of the shared memory belongs to, if to any."""
        which, slot, member, _ = self.fenced.strides
        at = place - (self.fenced.ctypes.data - self.base)
        if not 0 <= at < self.fenced.nbytes:
            return None
        return at // which, at % which // slot, at % slot // member

    def overwritten(self, slot: int, group: GroupId, member: int) -> list[PadOverwritten]:
        """What has been written beside a member's two pads since the last look."""
        found = (
            overwritten(self.fenced[number, slot, member], group, pad)
            for number, pad in enumerate((SIGNALS, OF_BARRIER))
        )
        return [damage for damage in found if damage is not None]

    def reset(self) -> None:
        """Forget everything. Only while no rank runs."""
        for words in (self.counters, self.fenced, self.waiting, self.baton):
            words[...] = 0
        start, _ = self.arena(0)
        self.punch(start, self.ranks * (ARENA_BYTES + WORKSPACE_BYTES))

    def close(self) -> None:
        """Unmap and close. Local; other processes keep their mappings."""
        del self.counters, self.fenced, self.pads, self.barriers, self.waiting, self.baton, self.bytes
        for mapped in {self._map, self._own}:
            with suppress(BufferError):  # a journal may still look at it; the mapping goes with the last view
                mapped.close()
        for fd in self.descriptors:
            os.close(fd)
        self.fd, self._own_fd, self.bell = -1, None, None


def _words(file: mmap.mmap, offset: int, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[np.int64]:
    return np.frombuffer(file, dtype=dtype, count=int(np.prod(shape)), offset=offset).reshape(shape)


def _layout(ranks: int) -> tuple[int, ...]:
    """Offsets of counters, pads, waiting, baton, journals, staging, arenas and workspaces, and the whole size."""
    sizes = (
        SLOTS * ranks * FIELDS * 8,
        2 * SLOTS * ranks * (ranks + 2 * FENCE) * 4,
        ranks * WORDS_WAITING * 8,
        turns.rows(ranks) * turns.WIDTH * 8,
        ranks * JOURNAL_BYTES,
        ranks * STAGING_BYTES,
        ranks * ARENA_BYTES,
        ranks * WORKSPACE_BYTES,
    )
    offsets, at = [], 0
    for size in sizes:
        offsets.append(at)
        at += -(-size // (2 << 20)) * (2 << 20)
    return (*offsets, at)


def _refused(size: int, error: OSError) -> MachineError:
    return MachineError(f"cannot reserve {size >> 20} MiB of shared memory: {error.strerror}")
