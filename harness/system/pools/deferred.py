"""`deferred`: one pool for each communicator. Growth is noted, and registered once the ranks have agreed on it.

Invariants:
- The segment allocator's callbacks note segments, and do nothing collective. Leaving an unchanged pool is one
  comparison: no snapshot, no communication.
- After a change the ranks of the group compare their new segments: the number, the sizes, that no rank was refused
  memory, and that each can register what it has. Either all register the same list in the same order, or all raise
  `torch.OutOfMemoryError`, give the pool up, and go on with a fresh one, again in step. Buffers of a pool that was
  given up keep their windows. They get no window of a communicator that is made later.
- A registration that fails on one rank leaves the others waiting in it. So each rank asks beforehand
  (`Communicator.check`), and registers only once all of them can.
- PyTorch up to 2.12 reuses, of free blocks of one size and kind, the one at the lowest address. Addresses may
  lie in another order on another rank (pytorch 178138). A pool in which they do takes no further allocation: its
  buffers keep their windows, and the next allocation starts a fresh pool, in step.
- Windows are known by (segment, communicator), never by address. A null window where the communicator
  supports windows is an error. A segment's windows close before it is freed.
- A graph has pools of its own, which are kept until the end: it writes them at every replay. A pool that has
  grown during its capture raises before any collective.

Callers keep three rules. Every rank of the group enters `use`, in one order (SPMD). The ranks allocate the same
sizes; `agreed` gives one size for ranks that need different ones. No buffer is freed inside the `use` that
allocated it, as the allocator may give its block out again before the ranks have compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b

import torch

from harness.system.context import (
    SMALL_SEGMENT,
    Communicator,
    GroupId,
    Pool,
    ProcessGroup,
    RankContext,
    RegistrationError,
    Segment,
    Window,
)

REFUSED, UNREGISTRABLE = -1, -2
"""The words that a rank exchanges when it was refused memory, and when it cannot register what it has."""
BITS = 31
"""Bits of a digest. Any other word is a digest of the new segments' sizes, and below it one of the order of all
addresses. Together they stay within a signed word."""

Place = tuple[GroupId, str | None]
"""A group outside graphs, or in one graph. Each has a pool of its own."""


class GrowthDuringCapture(RuntimeError):
    """A pool grew while a graph was captured; registering then would be captured, or hang."""


class Deferred:
    def __init__(self, context: RankContext) -> None:
        self._context = context
        self._pools: dict[Place, _GroupPool] = {}
        self._former: dict[Place, list[_GroupPool]] = {}
        """Pools that take no further allocation; each goes when nothing in it is in use."""
        self._made = 0

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        pool = self._pools.get(self._place(group)) or self._new(group)
        refusals = pool.memory.refusals
        try:
            with pool.memory.use():
                yield
        except torch.OutOfMemoryError:
            # Memory may have run out outside of this pool, on this rank alone: then the peers come to no agreement.
            if pool.memory.refusals > refusals:
                self._leave(pool, group, refused=True)
            raise
        self._leave(pool, group, refused=False)

    def agreed(self, sizes: Sequence[int]) -> int:
        """The size that every rank of a group allocates if they need `sizes`, so that their pools stay in step."""
        return max(sizes)

    def _place(self, group: ProcessGroup) -> Place:
        return group.id, self._context.graph

    def close(self) -> None:
        for pool in self._context.pools():
            pool.close()

    def _new(self, group: ProcessGroup) -> _GroupPool:
        name = f"{group.id.label}#{self._made}"
        self._made += 1
        place = self._place(group)
        for former in self._former.get(place, ()):
            former.memory.trim()
        pool = self._pools[place] = _GroupPool(self._context.pool(name))
        pool.memory.is_reserved = place[1] is not None
        return pool

    def _leave(self, pool: _GroupPool, group: ProcessGroup, refused: bool) -> None:
        communicator = group.communicator
        if pool.settled == (pool.epoch, communicator.ident) and not refused:
            return
        new = pool.unregistered(communicator)
        if self._context.is_capturing and (new or refused):
            raise GrowthDuringCapture(
                f"the pool of {group.name} had to grow while a graph was captured; let it grow once before the capture"
            )
        sizes, order = _digest(segment.size for segment in new), _digest(pool.order_of_addresses())
        word = sizes << BITS | order if _can_register(new, communicator) else UNREGISTRABLE
        words = group.exchange(REFUSED if refused else word)
        if min(words) < 0 or len({word >> BITS for word in words}) > 1:
            self._retire(group)
            raise torch.OutOfMemoryError(_disagreement(group, words))
        pool.settled = (pool.epoch, communicator.ident)
        if not communicator.supports_windows:
            return
        self._register(pool, new, group)
        if len(set(words)) > 1:  # the sizes agree, so the order of the addresses differs
            self._retire(group)

    def _register(self, pool: _GroupPool, segments: Sequence[Segment], group: ProcessGroup) -> None:
        try:
            pool.register(segments, group.communicator)
        except RegistrationError as error:
            # The ranks' address space for windows is used alike, so it runs out on all of them together.
            self._retire(group)
            raise torch.OutOfMemoryError(f"the pool of {group.name} is given up: {error}") from error

    def _retire(self, group: ProcessGroup) -> None:
        """Take no more from the group's pool: its buffers live on, and the next allocation starts a fresh one."""
        place = self._place(group)
        former = [pool for pool in self._former.get(place, ()) if pool.memory.segments]
        self._former[place] = [*former, self._pools.pop(place)]


class _GroupPool:
    """A group's memory, and which of its segments have which windows."""

    def __init__(self, memory: Pool) -> None:
        self.memory = memory
        self.epoch = 0
        """Counts segments that came or went."""
        self.settled = (0, -1)
        """The epoch and the communicator up to which the ranks have agreed and registered."""
        self._windows: dict[tuple[int, int], Window] = {}
        memory.on_allocated.append(self._allocated)
        memory.on_freed.append(self._freed)

    def unregistered(self, communicator: Communicator) -> list[Segment]:
        """Segments without a window of this communicator, in the order in which they came."""
        return [s for s in self.memory.segments if (s.ident, communicator.ident) not in self._windows]

    def order_of_addresses(self) -> list[int]:
        """Places of the segments, counted as they came, from the lowest address to the highest.

        Those for large blocks come first, then those for small ones.
        """
        # PyTorch never takes a small block for a large request, so only blocks of one kind compete by address.
        segments = self.memory.segments
        every = range(len(segments))
        return sorted(every, key=lambda place: (segments[place].size == SMALL_SEGMENT, segments[place].address))

    def register(self, segments: Sequence[Segment], communicator: Communicator) -> None:
        """Collective over the communicator's group, for equal lists."""
        for segment in segments:
            window = communicator.register(segment)
            if window is None:
                raise RuntimeError(f"registering {segment} with {communicator} gave a null window")
            self._windows[segment.ident, communicator.ident] = window

    def _allocated(self, segment: Segment) -> None:
        self.epoch += 1

    def _freed(self, segment: Segment) -> None:
        self.epoch += 1
        segment.close_windows()
        self._windows = {key: window for key, window in self._windows.items() if key[0] != segment.ident}


def _can_register(segments: Iterable[Segment], communicator: Communicator) -> bool:
    """Whether this rank can register segments, as far as it can know without its peers. Local."""
    try:
        for segment in segments:
            communicator.check(segment)
    except RegistrationError:
        return False
    return True


def _digest(numbers: Iterable[int]) -> int:
    """A number of `BITS` bits, the same for equal lists."""
    return int.from_bytes(blake2b(",".join(map(str, numbers)).encode(), digest_size=4).digest(), "little") >> 1


def _disagreement(group: ProcessGroup, words: Sequence[int]) -> str:
    whys = [
        f"{why} {' and '.join(f'rank {rank}' for rank in ranks)}"
        for word, why in ((REFUSED, "memory was refused to"), (UNREGISTRABLE, "registering is refused to"))
        if (ranks := [rank for rank, sent in zip(group.ranks, words, strict=True) if sent == word])
    ]
    why = ", and ".join(whys) or "its ranks grew by different segments"
    return f"the pool of {group.name} is given up: {why}"
