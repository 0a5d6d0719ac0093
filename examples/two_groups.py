"""A program with two groups over the same ranks, and a buffer of one that the other gathers into.

    symm watch --out run -- torchrun --nproc-per-node 2 examples/two_groups.py

It knows nothing of the harness. With `--right` the group that gathers owns the buffer.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
COUNT, CALLS = 1024, 20


def allocator(taken: Callable[[int, int], object] = lambda address, size: None) -> tuple[Any, list[Any]]:
    """Segments from `ncclMemAlloc`, and what has to stay alive for it. `taken` is told of each."""
    nccl = ctypes.CDLL("libnccl.so.2")
    nccl.ncclMemAlloc.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    nccl.ncclMemFree.argtypes = (ctypes.c_void_p,)

    def take(size: int, device: int, stream: int) -> int | None:
        address = ctypes.c_void_p()
        if nccl.ncclMemAlloc(ctypes.byref(address), size) or address.value is None:
            return None
        taken(address.value, size)
        return address.value

    def give_back(address: int, size: int, device: int, stream: int) -> None:
        nccl.ncclMemFree(address)

    place, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    calls = [
        ctypes.CFUNCTYPE(place, size, number, place)(take),
        ctypes.CFUNCTYPE(None, place, size, number, place)(give_back),
    ]
    return torch._C._cuda_customAllocator(*(ctypes.cast(call, place).value or 0 for call in calls)), calls


def main() -> None:
    device = torch.device("cuda", RANK % torch.cuda.device_count())
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    tp, cp = dist.new_group([*range(WORLD)]), dist.new_group([*range(WORLD)])
    made, kept = allocator()
    pool = torch.cuda.MemPool(made)
    with torch.cuda.use_mem_pool(pool):
        buffer = torch.empty(WORLD * COUNT, dtype=torch.bfloat16, device=device)
    owner = cp if "--right" in sys.argv else tp
    owner._get_backend(device).register_mem_pool(pool, symm=True)
    mine = torch.ones(COUNT, dtype=torch.bfloat16, device=device)
    for _ in range(CALLS):
        dist.all_gather_into_tensor(buffer, mine, group=cp)
    torch.cuda.synchronize()
    dist.destroy_process_group()
    del kept


if __name__ == "__main__":
    main()
