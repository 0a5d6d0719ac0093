"""PyTorch's own registration (2.11), with a pool for each group: `symm fuzz --pool examples.engines.pytorch:Pool`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from harness.system.context import GroupId, ProcessGroup, RankContext
from harness.system.released import Backends, allocator


class Pool:
    observed, fallback = True, "per-group"

    def __init__(self, context: RankContext) -> None:
        self.backends = Backends(context.device, self._leave)
        self._pools = dict[GroupId, Any]()
        self._registered = set[GroupId]()

    def comm_ptr(self, group: ProcessGroup) -> int:
        return int(self.backends.of(group)._comm_ptr())

    @contextmanager
    def use(self, group: ProcessGroup) -> Iterator[None]:
        pool = self._pools.get(group.id) or self._pools.setdefault(group.id, torch.cuda.MemPool(allocator()))
        with torch.cuda.use_mem_pool(pool):
            yield
        if group.id not in self._registered:  # from then on PyTorch registers each new segment by itself
            self._registered.add(group.id)
            self.backends.of(group).register_mem_pool(pool, symm=True)

    def _leave(self, group: GroupId, backend: Any) -> None:
        if group in self._registered:
            self._registered.remove(group)
            backend.deregister_mem_pool(self._pools[group])

    def close(self) -> None:
        self.backends.close()
        self._pools.clear()
