"""The NCCL of this host: its version, and the environment that ranks run it with."""

from __future__ import annotations

import os

MAX_CTAS = "NCCL_MAX_CTAS"
PEER_POINTERS = (2, 29, 2)
"""The first NCCL that gives the address of a peer's memory, which kernels need."""

CTAS_OF_A_GPU = 32
"""Thread blocks of NCCL kernels that the ranks on one GPU may hold together: their kernels spin, and are to be
resident side by side (4 for each of 8 ranks, 2 of 16, as measured)."""


def why_missing() -> str:
    """Why `version` finds none, as ` (…)`."""
    try:
        import nccl.core  # noqa: F401, PLC0415
        from nccl.bindings import nccl as bound  # noqa: PLC0415

        bound.get_version()
    except Exception as error:
        return f" ({' '.join(str(error).split()) or type(error).__name__})"
    return ""


def version() -> tuple[int, int, int] | None:
    """Version of the NCCL that rank processes would load, or None."""
    try:
        from nccl.bindings import nccl  # noqa: PLC0415  (absent on some machines)

        number = int(nccl.get_version())
    except Exception:
        return None
    return taken_apart(number)


def taken_apart(number: int) -> tuple[int, int, int]:
    """NCCL's number of a version, such as 23203, as a version (`NCCL_VERSION` in nccl.h, 2.9 and later)."""
    return number // 10000, number // 100 % 100, number % 100


def environment(ranks_per_gpu: int) -> dict[str, str]:
    """Environment for rank processes on NCCL.

    NVLink multicast stays off: shared machines can lose their GPUs to it. Ranks that share a GPU spin side by
    side, so each may use only a few of its multiprocessors.
    """
    found = {"NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1"}
    if ranks_per_gpu > 1:
        found["NCCL_MULTI_RANK_GPU_ENABLE"] = "1"
        found |= cta_environment(ranks_per_gpu)
    return found


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
