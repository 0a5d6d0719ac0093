"""SGLang's pool as released (0.5.12 to 0.5.23): `symm fuzz --pool examples.engines.sglang:Pool`."""

from contextlib import AbstractContextManager
from types import SimpleNamespace
from unittest.mock import patch

import torch

from harness.system.context import ProcessGroup, RankContext
from harness.system.released import Package, building

SETTINGS = SimpleNamespace(comm=SimpleNamespace(enable_symm_mem=True))
STAND_INS: dict[str, dict[str, object]] = {
    "sglang.srt.distributed.parallel_state": {"GroupCoordinator": object},
    "sglang.srt.environ": {"envs": None},
    "sglang.srt.runtime_context": {"get_exec": lambda: SETTINGS},
    "sglang.srt.utils.common": {"torch_release": tuple(map(int, torch.__version__.split(".")[:2]))},
}


class Pool:
    observed = forever = True
    fallback, prepare = "shared-at-exit", classmethod(lambda cls: cls())
    smallest = 1

    def __init__(self, context: RankContext | None = None) -> None:
        self._engine = Package(STAND_INS).load("sglang.srt.distributed.device_communicators.pynccl_allocator")
        with building(), patch.object(torch.distributed, "barrier"):  # the build is locked: nobody has to wait
            self._engine.get_nccl_mem_pool()

    def use(self, group: ProcessGroup) -> AbstractContextManager[None]:
        of = SimpleNamespace(pynccl_comm=SimpleNamespace(comm=SimpleNamespace(value=group.comm_ptr)))
        of.world_size, of.unique_name = max(self.smallest, len(group.ranks)), group.name
        return self._engine.use_symmetric_memory(of)  # type: ignore[no-any-return]


class OfEveryGroup(Pool):  # as `shared-at-exit`; the engine leaves groups of one rank to ordinary memory
    smallest = 2
