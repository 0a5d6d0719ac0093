"""Megatron's pools as released (megatron-core 0.16.1): `symm fuzz --pool examples.engines.megatron:Pool`."""

from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

from harness.system.context import GroupId, ProcessGroup, RankContext
from harness.system.released import Backends, Package, building

UTILS = {"is_torch_min_version": lambda version: True, "log_single_rank": lambda logger, level, text: print(text)}


class Pool:
    observed, fallback = True, "per-group"
    prepare = classmethod(lambda cls: cls(SimpleNamespace(device=None)))

    def __init__(self, context: RankContext) -> None:
        self._engine = Package({"megatron.core.utils": UTILS}).load("megatron.core.nccl_allocator")
        with building():
            self._engine._build_nccl_allocator()  # its init() would switch NVLink multicast on
        self._pools, self._backends = dict[GroupId, Any](), Backends(context.device, self._leave)

    def comm_ptr(self, group: ProcessGroup) -> int:
        return int(self._backends.of(group)._comm_ptr())

    def use(self, group: ProcessGroup) -> AbstractContextManager[None]:
        named = SimpleNamespace(_get_backend=lambda device: self._backends.of(group), group_desc=group.name)
        pool = self._pools.get(group.id) or self._pools.setdefault(group.id, self._engine.create_nccl_mem_pool(True))
        return self._engine.nccl_mem(pool, group=named)  # type: ignore[no-any-return]

    def _leave(self, group: GroupId, backend: Any) -> None:
        if group in self._pools:
            self._engine.deregister_mem_pool(self._pools[group], SimpleNamespace(_get_backend=lambda device: backend))

    def close(self) -> None:
        self._backends.close()
        self._pools.clear()
