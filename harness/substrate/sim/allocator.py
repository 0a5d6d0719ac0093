"""PyTorch's caching allocator over segments of shared memory.

Invariant: the sequence of segments, splits, merges and offsets is what `torch.cuda.MemPool` gives for
the same sequence of requests on one GPU (source: `c10/cuda/CUDACachingAllocator.cpp`, PyTorch 2.11:
512-byte rounding, small blocks up to 1 MiB from 2 MiB segments, large ones from 20 MiB segments or,
from 10 MiB on, from their own segment in steps of 2 MiB; best fit by stream, size and order).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from itertools import count

from harness.trace.events import SMALL_SEGMENT

ROUND = 512
SMALL = 1 << 20
LARGE_SEGMENT = 20 << 20
OWN_SEGMENT = 10 << 20
STEP = 2 << 20

Key = tuple[int, int, int]


class Block:
    """A slice of a segment; `prev` and `next` are its neighbours in the same segment."""

    def __init__(self, address: int, size: int, stream: int, is_small: bool, order: int) -> None:
        self.address, self.size, self.stream, self.is_small, self.order = address, size, stream, is_small, order
        self.is_free = False
        self.prev: Block | None = None
        self.next: Block | None = None

    @property
    def key(self) -> Key:
        return self.stream, self.size, self.order


class CachingAllocator:
    """Blocks for one pool. `grow(size)` supplies a segment's address; `shrink(address)` takes it back.

    `order` breaks ties between free blocks of one size: `address` (PyTorch's default) or `counter`
    (registration order, the deterministic alternative of PyTorch 2.9).
    """

    def __init__(self, grow: Callable[[int], int], shrink: Callable[[int], None], order: str = "address") -> None:
        self._grow, self._shrink, self._is_by_address = grow, shrink, order == "address"
        self._free: dict[bool, list[tuple[Key, Block]]] = {True: [], False: []}
        self._counter = count()
        self.in_use = 0
        self.used: dict[int, Block] = {}
        """Blocks that are handed out, by address."""

    def allocate(self, size: int, stream: int = 0) -> Block:
        """A block of at least `size` bytes; grows by a segment where no free block fits."""
        size = max(ROUND, -(-size // ROUND) * ROUND)
        is_small = size <= SMALL
        block = self._best_fit(size, stream, is_small) or self._segment(size, stream, is_small)
        remaining = block.size - size
        # PyTorch splits a small block wherever a block remains, and a large one only if more than 1 MiB remains.
        if remaining >= ROUND if is_small else remaining > SMALL:
            self._split(block, size)
        self.in_use += 1
        self.used[block.address] = block
        return block

    def release(self, block: Block) -> None:
        """Return a block to the free list, merged with free neighbours."""
        self.in_use -= 1
        del self.used[block.address]
        for neighbour in (block.prev, block.next):
            if neighbour is not None and neighbour.is_free:
                self._forget(neighbour)
                _merge(block, neighbour)
        self._offer(block)

    def trim(self) -> None:
        """Give back every segment that is one free block."""
        for free in self._free.values():
            for entry in list(free):
                block = entry[1]
                if block.prev is None and block.next is None:  # `cudaFree` takes whole segments alone
                    free.remove(entry)
                    self._shrink(block.address)

    def _best_fit(self, size: int, stream: int, is_small: bool) -> Block | None:
        free = self._free[is_small]
        at = bisect_left(free, (stream, size, -1), key=lambda entry: entry[0])
        if at == len(free) or free[at][1].stream != stream:
            return None
        block = free.pop(at)[1]
        block.is_free = False
        return block

    def _segment(self, size: int, stream: int, is_small: bool) -> Block:
        if is_small:
            whole = SMALL_SEGMENT
        elif size < OWN_SEGMENT:
            whole = LARGE_SEGMENT
        else:
            whole = -(-size // STEP) * STEP
        address = self._grow(whole)
        return Block(address, whole, stream, is_small, self._order(address))

    def _order(self, address: int) -> int:
        return address if self._is_by_address else next(self._counter)

    def _split(self, block: Block, size: int) -> None:
        order = self._order(block.address + size)
        rest = Block(block.address + size, block.size - size, block.stream, block.is_small, order)
        rest.prev, rest.next = block, block.next
        if rest.next is not None:
            rest.next.prev = rest
        block.next, block.size = rest, size
        self._offer(rest)

    def _offer(self, block: Block) -> None:
        block.is_free = True
        insort(self._free[block.is_small], (block.key, block), key=lambda entry: entry[0])

    def _forget(self, block: Block) -> None:
        self._free[block.is_small].remove((block.key, block))


def _merge(block: Block, other: Block) -> None:
    """Grow `block` over its free neighbour `other`."""
    if other is block.prev:
        block.address, block.order, block.prev = other.address, other.order, other.prev
        if block.prev is not None:
            block.prev.next = block
    else:
        block.next = other.next
        if block.next is not None:
            block.next.prev = block
    block.size += other.size
