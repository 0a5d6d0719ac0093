"""Collectives of your own: `symm fuzz --collectives examples.collectives:LastRankForgets`.

`all_gather` and `reduce_scatter` get a context (rank, size, peer addresses, barrier) and contiguous
tensors. This one is the built-in pair with a planted mistake, to see what a finding looks like.
"""

import torch

from harness.system.collectives import CollectiveContext, TritonCollectives


class LastRankForgets(TritonCollectives):
    """The last rank of the group does not take part in the data movement of an all-gather."""

    def all_gather(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor) -> None:
        if context.rank + 1 < context.size:
            super().all_gather(context, output, source)
        else:
            context.barrier()  # comes and goes as the others do, and moves nothing
            context.barrier()
