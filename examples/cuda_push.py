"""A collective of your own in CUDA C++: `symm fuzz --collectives examples.cuda_push:Pushes`.

`push.cu` beside this file is compiled when it is first launched, by the extra `cuda`. `LeavesTheRest` is the same with
a mistake, which a GPU shows within some draws as `wrong-data`. Without a GPU the built-in kernels stand in for both.
"""

from pathlib import Path

import numpy as np
import torch

from harness.system.collectives import CollectiveContext, TritonCollectives
from harness.system.cuda import CudaSource

SOURCE = Path(__file__).with_name("push.cu")


class Pushes(TritonCollectives):
    """All-gather by a kernel of its own; the other calls by the built-in ones."""

    fallback = "triton"
    code = CudaSource(SOURCE)

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        outputs, width = context.peer_addresses(output), source.element_size()
        start, count = sum(context.counts[: context.rank]) * width, source.numel() * width
        blocks, size = min(32, context.max_blocks), np.int32(context.size)
        context.barrier()
        self.code.launch("push", blocks, 256, outputs, source, np.int64(start), np.int64(count), size)
        context.barrier()


class LeavesTheRest(Pushes):
    """The last elements of a chunk stay away where it is no multiple of 16 bytes."""

    code = CudaSource(SOURCE, "LEAVES_THE_REST")
