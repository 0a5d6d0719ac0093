"""The GPUs and the NCCL of this machine, looked at without touching a device.

Invariant: nothing here creates a CUDA context or changes a setting.
"""

from __future__ import annotations

import os

import msgspec


class Gpu(msgspec.Struct, frozen=True):
    """A GPU as the driver sees it."""

    uuid: str
    name: str
    memory: int
    driver: str


def inventory() -> list[Gpu]:
    """GPUs that a process started here would see, in CUDA order; empty without a driver."""
    try:
        import pynvml  # noqa: PLC0415  (absent on some machines)

        pynvml.nvmlInit()
    except Exception:
        return []
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        found = [
            Gpu(
                pynvml.nvmlDeviceGetUUID(handle),
                pynvml.nvmlDeviceGetName(handle),
                pynvml.nvmlDeviceGetMemoryInfo(handle).total,
                driver,
            )
            for handle in handles
        ]
    finally:
        pynvml.nvmlShutdown()
    return visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible(found: list[Gpu], setting: str | None) -> list[Gpu]:
    """The GPUs that `CUDA_VISIBLE_DEVICES` leaves, in its order: indices or UUID prefixes, up to the
    first that names none (CUDA's own rule)."""
    if setting is None:
        return found
    chosen: list[Gpu] = []
    for word in filter(None, (part.strip() for part in setting.split(","))):
        if word.isdigit():
            named = found[int(word) : int(word) + 1]
        else:
            named = [gpu for gpu in found if gpu.uuid.startswith(word)]
        if not named:
            break
        chosen.append(named[0])
    return chosen


def nccl_version() -> tuple[int, int, int] | None:
    """Version of the NCCL that rank processes would load, or None."""
    try:
        from nccl.bindings import nccl  # noqa: PLC0415  (absent on some machines)

        number = int(nccl.get_version())
    except Exception:
        return None
    return number // 10000, number // 100 % 100, number % 100


def nccl_environment(ranks_per_gpu: int) -> dict[str, str]:
    """Environment for rank processes on NCCL.

    NVLink multicast stays off: shared machines can lose their GPUs to it. Ranks that share a GPU spin side by
    side, so each may use only a few of its multiprocessors.
    """
    environment = {"NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1"}
    if ranks_per_gpu > 1:
        environment["NCCL_MULTI_RANK_GPU_ENABLE"] = "1"
        environment["NCCL_MAX_CTAS"] = "4" if ranks_per_gpu <= 8 else "2"
    return environment
