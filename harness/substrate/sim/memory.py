"""Tensors over shared memory: a rank's arena, and pools that catch this thread's allocations.

Invariant: inside `Pool.use`, every tensor that an operator creates lies in the pool, whatever the
factory; outside, none does. A block returns to the pool when the last view of its storage dies.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map_only

from harness.ipc.memory import SharedMemory
from harness.substrate.denial import Denial
from harness.substrate.pool import Pool
from harness.substrate.recorder import Recorder
from harness.substrate.segment import Segment
from harness.substrate.sim.allocator import STEP, Block, CachingAllocator
from harness.substrate.sim.device import SimDevice


class Arena:
    """A rank's piece of the shared memory, handed out as segments.

    A freed address is the first to be used again for a segment of that size, so that an address which is remembered
    too long meets other memory at least as often as on a GPU. Other sizes come by first fit. Addresses rise from
    segment to segment; where `is_falling` is set they fall, so that segments lie in another order than on a peer, as
    they may on GPUs (pytorch 178138).
    """

    def __init__(self, shared: SharedMemory, place: tuple[int, int], is_falling: bool = False) -> None:
        """`place`: offset and bytes of the piece in the shared memory."""
        self.is_falling = is_falling
        self._shared = shared
        self._start, self._size = place
        self._taken: dict[int, int] = {}
        self._freed: dict[int, int] = {}
        """Bytes of the pieces that were freed last, by their starts, as long as nothing was put there."""

    def take(self, size: int) -> int:
        """Address of a fresh piece of `size` bytes. Raises `torch.OutOfMemoryError` when there is none."""
        whole = -(-size // STEP) * STEP
        fitting = [offset for offset, freed in self._freed.items() if freed == whole]
        at = (max if self.is_falling else min)(fitting) if fitting else self._in_a_gap(whole)
        self._freed = {start: size for start, size in self._freed.items() if start >= at + whole or start + size <= at}
        self._taken[at] = whole
        return self._shared.base + at

    def _in_a_gap(self, size: int) -> int:
        """Where the first free piece of at least `size` bytes begins, or the last one less so many ends."""
        ends = [self._start, *(offset + self._taken[offset] for offset in sorted(self._taken))]
        begins = [*sorted(self._taken), self._start + self._size]
        gaps = [(end, begin) for end, begin in zip(ends, begins, strict=True) if begin - end >= size]
        if not gaps:
            raise torch.OutOfMemoryError(f"arena of {self._size} bytes has no room for a segment of {size}")
        return gaps[-1][1] - size if self.is_falling else gaps[0][0]

    def behind(self, address: int) -> int:
        """Bytes from an address to the end of the piece that holds it; 0 where none does."""
        offset = address - self._shared.base
        ends = (start + size for start, size in self._taken.items() if start <= offset < start + size)
        return next((end - offset for end in ends), 0)

    def give_back(self, address: int) -> None:
        """Free a piece; its pages go back to the system."""
        offset = address - self._shared.base
        self._freed[offset] = self._taken.pop(offset)
        self._shared.punch(offset, self._freed[offset])


class SimPool(Pool):
    """A caching allocator over segments from the rank's arena."""

    def __init__(self, recorder: Recorder, name: str, arena: Arena, device: SimDevice, denial: Denial) -> None:
        super().__init__(recorder, name)
        self._arena, self._device, self._denial = arena, device, denial
        self._allocator = CachingAllocator(self._grow, self._shrink)

    @contextmanager
    def use(self) -> Iterator[None]:
        with _Routing(self):
            yield

    def snapshot(self) -> list[Segment]:
        return sorted(self.segments, key=lambda segment: segment.address)

    def used(self) -> list[tuple[int, int]]:
        return [(address, block.size) for address, block in self._allocator.used.items()]

    def trim(self) -> None:
        if self._allocator.in_use == 0 and not self.is_reserved:
            self.close()

    def close(self) -> None:
        with self._device.waited():
            self._allocator.trim()

    def empty(self, size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """An uninitialised tensor in a block of this pool."""
        count = int(np.prod(size, dtype=np.int64))
        if count == 0:
            return torch.empty(size, dtype=dtype)
        nbytes = count * dtype.itemsize
        lease = _Lease(self._allocator, self._allocator.allocate(nbytes, self._device.current_stream), nbytes)
        return torch.from_numpy(np.asarray(lease)).view(dtype).view(size)

    def _grow(self, size: int) -> int:
        try:
            if self._denial.refuses(self.name, size):
                raise torch.OutOfMemoryError(f"pool {self.name!r} was refused a segment of {size} bytes")
            address = self._arena.take(size)
        except torch.OutOfMemoryError:
            self.refusals += 1
            raise
        self.allocated(address, size)
        return address

    def _shrink(self, address: int) -> None:
        self.freed(address)
        self._device.once_landed(lambda: self._arena.give_back(address))


class _Lease:
    """Holds a block for as long as a storage refers to it."""

    def __init__(self, allocator: CachingAllocator, block: Block, nbytes: int) -> None:
        self._allocator, self._block = allocator, block
        self.__array_interface__ = {"data": (block.address, False), "shape": (nbytes,), "typestr": "|u1", "version": 3}

    def __del__(self) -> None:
        self._allocator.release(self._block)


class _Routing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Moves every tensor that an operator creates into a pool, as `torch.cuda.use_mem_pool` does.

    Plain allocations go there at once. The results of other factories are copied there.
    """

    def __init__(self, pool: SimPool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._pool = pool

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from wrapping the hook in `torch._dynamo.disable`, whose import alone takes 2 s a rank."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with _disable_current_modes():  # the innermost pool has the allocation to itself
            if func is torch.ops.aten.empty.memory_format and kwargs.get("memory_format") is None:
                return self._pool.empty(tuple(args[0]), kwargs.get("dtype") or torch.get_default_dtype())
            # `torch.tensor` makes its tensor beneath the dispatcher and passes it to `lift_fresh`, so it is new.
            known = set() if func is torch.ops.aten.lift_fresh.default else _storages((args, kwargs))
            return tree_map_only(torch.Tensor, lambda made: self._moved(made, known), func(*args, **kwargs))

    def _moved(self, made: torch.Tensor, known: set[int]) -> torch.Tensor:
        if made.untyped_storage().data_ptr() in known or made.numel() == 0:
            return made
        sizes = zip(made.shape, made.stride(), strict=True)
        span = 1 + sum((size - 1) * stride for size, stride in sizes)
        return self._pool.empty((span,), made.dtype).as_strided(made.shape, made.stride()).copy_(made)


def _storages(values: Any) -> set[int]:
    """Addresses of the storages of every tensor in a tree of arguments."""
    found: set[int] = set()
    tree_map_only(torch.Tensor, lambda tensor: found.add(tensor.untyped_storage().data_ptr()), values)
    return found
