"""The built-in collectives in CUDA C++, with the largest reductions through queues in the receivers' memory.

Invariant: as that of the others. Which calls go through queues follows from what all ranks share.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
import torch

from harness.kernels.cuda.collectives import (
    BLOCKS,
    HERE,
    HOPPER,
    WORD,
    CudaCollectives,
    Ranks,
    addresses,
    grid,
    place,
    reduction,
    whole_words,
)
from harness.system.collectives import CollectiveContext, NotOwned
from harness.system.cuda import CudaSource

QUEUERS = 320
"""Threads of a block that has queues, as the kernels say."""
SLOTS, STAGES, SLOT = 4, 3, 36 << 10
"""Tiles of a queue, and stages of a block, as the kernels say; bytes of each at most, so that two blocks fit on a
multiprocessor."""
QUEUES, LEAST, UNIT = BLOCKS * SLOTS * SLOT, 16 << 10, 512
"""Bytes of all queues of a rank; of a slot at least, as each tile has its price; and what a slot is a multiple of."""
RANKS = 2
"""The most that queues are known to be faster for."""
QUEUED = {"reduce_scatter": 128 << 20, "all_reduce": 8 << 20}
"""Bytes of the smallest slice that goes through queues."""


class Queues(NamedTuple):
    """A rank's own of one communicator."""

    queues: Ranks
    """Addresses of every rank's queues, and of their counts."""
    counts: Ranks
    epochs: torch.Tensor
    """One for each block."""


class QueuedCollectives(CudaCollectives):
    """`CudaCollectives`, and the largest reductions of two ranks through queues. A communicator has memory for
    them from the first such call on that is neither captured nor in flight; until then they go as the others do."""

    queued = CudaSource(HERE / "queues.cu")

    def __init__(self) -> None:
        super().__init__()
        self.queues: dict[Hashable, Queues] = {}

    def close(self, context: CollectiveContext) -> None:
        super().close(context)
        self.queues.pop(context.identity, None)

    def reduce_scatter(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        width, counts = output.element_size(), context.counts or (output.numel(),) * context.size
        if len({*counts}) > 1 or not self.is_queued("reduce_scatter", context, source, counts[0] * width):
            super().reduce_scatter(context, output, source, op)
            return
        count = np.int64(counts[0])
        self._queued(context, "reduce_scatter", counts[0] * width, (source, output), (count,), op)

    def all_reduce(self, context: CollectiveContext, output: torch.Tensor, source: torch.Tensor, op: str) -> None:
        width, count = output.element_size(), output.numel()
        part = whole_words(-(-count // context.size))
        if not self.is_queued("all_reduce", context, source, part * width):
            super().all_reduce(context, output, source, op)
            return
        try:
            outputs = addresses(context, output)
        except NotOwned:
            super().all_reduce(context, output, source, op)
            return
        counts = np.int64(count), np.int64(part)
        self._queued(context, "all_reduce", part * width, (source,), counts, op, outputs)

    def is_queued(self, kind: str, context: CollectiveContext, source: torch.Tensor, nbytes: int) -> bool:
        """Whether a reduction goes through queues, where slices of `source` have so many bytes on every rank.
        Collective. Raises `NotOwned` where it would and the source is not owned."""
        is_for_them = nbytes >= QUEUED[kind] and 1 < context.size <= RANKS
        if not is_for_them or nbytes % WORD or not has_room(source):
            return False
        return context.alignment(source) >= WORD and self.has_queues(context)

    def has_queues(self, context: CollectiveContext) -> bool:
        """Whether the communicator has queues, which it gets if it can. Collective."""
        if context.identity not in self.queues and context.can_provide:
            space, flags = context.workspace(QUEUES), context.flags(BLOCKS * (1 + 2 * context.size))
            counts = addresses(context, flags[BLOCKS:])
            self.queues[context.identity] = Queues(addresses(context, space), counts, flags[:BLOCKS])
        return context.identity in self.queues

    def _queued(
        self,
        context: CollectiveContext,
        kind: str,
        nbytes: int,
        tensors: tuple[torch.Tensor, ...],
        counts: tuple[np.int64, ...],
        op: str,
        outputs: Ranks | None = None,
    ) -> None:
        """Enqueue a kernel. Where every rank's output gets a part, blocks meet at its end."""
        number, how = reduction(context, tensors[0].dtype, op)
        mine, all_blocks = self.queues[context.identity], self.memories[context.identity]
        slot, width = slot_of(context.size), tensors[0].element_size()
        self.queued.launch(
            f"{kind}<{number}>",
            grid(context, nbytes, BLOCKS),
            QUEUERS,
            mine.queues,
            mine.counts,
            *((outputs, all_blocks.flags) if outputs else ()),
            mine.epochs,
            *((all_blocks.large,) if outputs else ()),
            *tensors,
            *counts,
            np.int64(slot),
            np.int64(slot // width),
            *place(context),
            *how,
            shared=STAGES * slot,
        )


def has_room(tensor: torch.Tensor) -> bool:
    """Whether it lies on a GPU that queues are made for: later ones may have less shared memory (sm_120)."""
    return tensor.is_cuda and torch.cuda.get_device_capability() == HOPPER


def slot_of(size: int) -> int:
    """Bytes of each queue's slots; 0 where there are too many ranks for queues, or only one."""
    slot = min(SLOT, QUEUES // (BLOCKS * SLOTS * (size - 1)) // UNIT * UNIT) if size > 1 else 0
    return slot if slot >= LEAST else 0
