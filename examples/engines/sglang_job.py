"""Layers with DP attention over SGLang's released communicators and pool, in a program of its own:

    symm watch --out run -- torchrun --nproc-per-node 8 -m examples.engines.sglang_job

Needs `sglang` (0.5.23) and GPUs; `--implicit` asks for every buffer with the TP group, as SGLang did at the time of its
bug report. The files of the package are loaded alone, so its dependencies need not be installed.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
import torch.distributed as dist

from examples.engines.sglang import STAND_INS
from harness.system.released import Package, building

RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
ATTENTION, TOKENS, HIDDEN, LAYERS = 2, 16, 1024, 4
KEPT: list[object] = []
"""The pool's module, to the end of the process, as in the engine: its segments go with it, windows or not."""
COMMUNICATORS = "sglang.srt.distributed.device_communicators."


class Group:
    """What SGLang's pool and layers take from a group: its communicator over the ranks, made as SGLang does."""

    def __init__(self, name: str, ranks: list[list[int]], device: torch.device, pynccl: Any) -> None:
        made = [dist.new_group(each, backend="gloo") for each in ranks]
        (mine,) = (group for group, each in zip(made, ranks, strict=True) if RANK in each)
        self.unique_name, self.world_size = name, dist.get_world_size(mine)
        self.pynccl_comm = pynccl.PyNcclCommunicator(mine, device, is_symmetric_memory_enabled=True)


def layer(tp: Group, attention: Group, use: Any, empty: Any, named: Group) -> None:
    """One layer: attention's sum, the gather before the experts, the sum behind them, and the gather after it.
    `named` is the group with which the buffers of attention are asked for."""
    with use(named):
        hidden, whole_again = empty(TOKENS, HIDDEN), empty(TOKENS, HIDDEN)
    with use(tp):
        gathered = empty(WORLD // ATTENTION * TOKENS, HIDDEN)
    hidden.fill_(RANK)
    attention.pynccl_comm.all_reduce(hidden)
    mine = hidden.tensor_split(ATTENTION)[RANK % ATTENTION]
    tp.pynccl_comm.all_gather(gathered, mine)
    summed = torch.empty_like(mine)
    tp.pynccl_comm.reduce_scatter(summed, gathered)
    attention.pynccl_comm.all_gather(whole_again, summed)


def main() -> None:
    device = torch.device("cuda", RANK % torch.cuda.device_count())
    torch.cuda.set_device(device)
    dist.init_process_group("gloo")
    stream = {"get_current_device_stream_fast": torch.cuda.current_stream}
    stand_ins = {name: {**names, **(stream if name.endswith(".common") else {})} for name, names in STAND_INS.items()}
    package = Package({**stand_ins, "sglang.srt.distributed.utils": {"StatelessProcessGroup": type("None_", (), {})}})
    package.load(f"{COMMUNICATORS}pynccl_wrapper")
    pynccl, pool = (package.load(COMMUNICATORS + name) for name in ("pynccl", "pynccl_allocator"))
    KEPT.append(pool)
    with building():
        pool.get_nccl_mem_pool()
    pairs = [[*range(first, first + ATTENTION)] for first in range(0, WORLD, ATTENTION)]
    tp, attention = Group("tp", [[*range(WORLD)]], device, pynccl), Group("attn_tp", pairs, device, pynccl)
    named = tp if "--implicit" in sys.argv else attention

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.bfloat16, device=device)

    with tp.pynccl_comm.change_state(enable=True), attention.pynccl_comm.change_state(enable=True):
        for _ in range(LAYERS):
            layer(tp, attention, pool.use_symmetric_memory, empty, named)
    torch.cuda.synchronize()
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
