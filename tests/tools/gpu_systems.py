"""Systems under test for the GPU tests."""

import ctypes
import os
import signal
from contextlib import contextmanager

import torch

from examples import two_groups
from harness.system.pools.per_group import PerGroup


class KilledOnRankOne(PerGroup):
    """Ends its own process at the first allocation on rank 1."""

    def use(self, group):
        if self._context.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().use(group)


class CapturesAnAllGather(PerGroup):
    """At the end, captures an all-gather over the world, replays it on changed input, and checks it.

    Raises, and so fails the draw, if the capture ran anything or the replay gave a wrong result.
    """

    def close(self):
        group = next(iter(self._context._substrate.communicators.values()))
        device, size, rank = self._context.device, group.size, group.rank
        pool = self._context.pool("captured")
        with pool.use():
            output = torch.zeros(4 * size, device=device)
        source = torch.zeros(4, device=device)
        window = group.register(pool.segments[0])
        substrate = self._context._substrate
        group.all_gather(output, source)  # once outside, so that nothing is initialised inside the capture
        with substrate.device.capture() as graph:
            path, _ = group.all_gather(output, source)
        source.fill_(rank + 1)
        graph.replay()
        substrate.device.synchronize()
        expected = torch.arange(1, size + 1, dtype=torch.float32).repeat_interleave(4)
        found = output.to("cpu", copy=True)
        group.barrier()
        window.close()
        del output, graph
        super().close()
        if path != "symmetric" or not torch.equal(found, expected):
            raise AssertionError(f"replay over path {path} gave {found.tolist()}")


class ByItself:
    """One pool for all groups, whose segments and windows it asks NCCL for itself, through ctypes: as `per-unique-id`,
    with the order of allocation in place of a snapshot's."""

    observed = forever = True

    def __init__(self, context):
        made, self._kept = two_groups.allocator(self._taken)
        self._pool = torch.cuda.MemPool(made)
        self._segments, self._done = [], set()

    def _taken(self, address, size):
        self._segments.append((address, size))

    @contextmanager
    def use(self, group):
        with torch.cuda.use_mem_pool(self._pool):
            yield
        for segment in self._segments:
            if len(group.ranks) > 1 and (group.comm_ptr, *segment) not in self._done:
                self._done.add((group.comm_ptr, *segment))
                self._register(group.comm_ptr, *segment)

    def _register(self, comm, address, size):
        nccl = ctypes.CDLL("libnccl.so.2")
        window = ctypes.c_void_p()
        place, count = ctypes.c_void_p, ctypes.c_size_t
        result = nccl.ncclCommWindowRegister(place(comm), place(address), count(size), ctypes.byref(window), 1)
        if result:
            raise RuntimeError(f"ncclCommWindowRegister gave {result}")
