"""The GPUs and the NCCL of this machine, looked at without touching a device.

Invariant: nothing here creates a CUDA context or changes a setting.
"""

from __future__ import annotations

import os

import msgspec

CONTROL_DEVICE = "/dev/nvidiactl"
MAX_CTAS = "NCCL_MAX_CTAS"
CTAS_OF_A_GPU = 32
"""Thread blocks of NCCL kernels that the ranks on one GPU may hold together: their kernels spin, and are to be
resident side by side (4 for each of 8 ranks, 2 of 16, as measured)."""


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


def why_no_gpu() -> str:
    """Why `inventory` is empty where a driver or its binding is to blame, as ` (…)`; empty where there is no GPU."""
    try:
        import pynvml  # noqa: PLC0415

        pynvml.nvmlInit()
    except Exception as error:
        return f" ({error})" if os.path.exists(CONTROL_DEVICE) else ""
    pynvml.nvmlShutdown()
    return ""


def why_no_nccl() -> str:
    """Why `nccl_version` has none, as ` (…)`."""
    try:
        import nccl.core  # noqa: F401, PLC0415
        from nccl.bindings import nccl as bound  # noqa: PLC0415

        bound.get_version()
    except Exception as error:
        return f" ({' '.join(str(error).split()) or type(error).__name__})"
    return ""


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
        environment |= cta_environment(ranks_per_gpu)
    return environment


def cta_environment(ranks: int) -> dict[str, str]:
    """Environment that leaves each of `ranks` ranks on one GPU its part of it; what is set already stands."""
    return {MAX_CTAS: os.environ.get(MAX_CTAS, str(max(1, CTAS_OF_A_GPU // ranks)))}


def node_environment(node: int) -> dict[str, str]:
    """Environment that makes NCCL take a process for one of node `node`, whatever machine it runs on.

    NCCL reads it once a process. Groups that span nodes then have no windows, and talk over sockets.
    """
    return {
        "NCCL_HOSTID": f"node{node}",
        "NCCL_MNNVL_ENABLE": "0",
        "NCCL_NET": "Socket",
        "NCCL_SOCKET_IFNAME": "lo",
    }
