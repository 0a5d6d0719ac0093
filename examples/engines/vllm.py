"""vLLM's pool as released (0.33.0): `symm fuzz --pool examples.engines.vllm:Pool`."""

from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

from harness.system.context import ProcessGroup, RankContext
from harness.system.released import Package, building

SAID = dict.fromkeys(("debug", "debug_once", "info", "info_once", "warning", "warning_once", "error"), print)
ENVS = {"VLLM_USE_NCCL_SYMM_MEM": True, "VLLM_NCCL_SO_PATH": None, "VLLM_NCCL_INCLUDE_PATH": None}
STAND_INS: dict[str, dict[str, object]] = {
    "vllm": {"envs": SimpleNamespace(**ENVS)},
    "vllm.envs": {**ENVS},
    "vllm.logger": {"init_logger": lambda name: SimpleNamespace(isEnabledFor=lambda level: False, **SAID)},
    "vllm.platforms": {"current_platform": SimpleNamespace(is_cuda=lambda: True, is_rocm=lambda: False)},
    "vllm.distributed.utils": {"StatelessProcessGroup": object},
    "vllm.utils.torch_utils": {"current_stream": None},
}
FILES = [f"vllm.distributed.device_communicators.pynccl{part}" for part in ("_wrapper", "", "_allocator")]


class Pool:
    observed = forever = True
    fallback, prepare = "per-unique-id", classmethod(lambda cls: cls())

    def __init__(self, context: RankContext | None = None) -> None:
        package = Package(STAND_INS)
        with building():
            _, self._wrapper, self._pynccl, self._engine = map(package.load, ["vllm.utils.nccl", *FILES])
            if self._engine.get_nccl_mem_pool() is None:  # the engine goes without symmetric memory then
                raise RuntimeError("vLLM could not build its allocator, and printed why")

    def use(self, group: ProcessGroup) -> AbstractContextManager[None]:
        found: Any = object.__new__(self._pynccl.PyNcclCommunicator)
        found.nccl, found.world_size = self._wrapper.NCCLLibrary(), len(group.ranks)
        found.comm, found.nccl_version = self._wrapper.ncclComm_t(group.comm_ptr), found.nccl.ncclGetRawVersion()
        found.unique_id = SimpleNamespace(internal=repr((group.id, group.generation)).encode())
        return self._engine.nccl_symm_mem_context(found)  # type: ignore[no-any-return]
